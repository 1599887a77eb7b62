"""Time of a step with MORE over the same step without, and the parameters that it adds while training.

The term needs a second pass through the backbone, forward and backward. Measured in the first phase of replay.
"""

from _common import SMALL, harness, in_turns, print_table, ratio_row

from imbcil.harness.network.backbones import build_backbone
from imbcil.methods.plugins._split import KINDS, factor_shapes

ROUNDS = 5
CASES = (
    # backbone, recipe, classes of the measured phase, settings
    ("small", "quick", (40, 60), SMALL),
    ("resnet32_conv", "paper", (10, 90), {}),
)


def extra_parameters(kind: str, ratio: float = 0.1) -> tuple[int, int]:
    """(numbers in B and A, numbers in the weights that they add to)."""
    weights = [part.weight for part in build_backbone(kind).modules() if isinstance(part, KINDS["conv"])]
    extra = 0
    for weight in weights:
        left, right = factor_shapes(weight.shape, ratio, "matrix")
        extra += left[0] * left[1] + right[0] * right[1]
    return extra, sum(weight.numel() for weight in weights)


def main() -> None:
    rows, sizes = [], []
    for kind, recipe, classes, own in CASES:
        train = {"train.epochs": ROUNDS + 2, "train.milestones": [], **own}
        settings = {"recipe": recipe, "sizes": classes, "compile": "off", "set": train}
        plain = harness(method=["replay"], **settings)
        split = harness(method=["replay+more"], **settings)
        without, with_it = in_turns(ROUNDS, plain, split)
        rows.append(ratio_row(kind, without, with_it, "<= 2.1"))
    for kind in ("small", "resnet32_pad", "resnet32_conv", "resnet18"):
        extra, weights = extra_parameters(kind)
        sizes.append((kind, f"{extra:,}", f"{weights:,}", f"{100 * extra / weights:.1f} %"))
    header = ("network", "without/s", "with/s", "time ratio", "spread", "asked")
    print_table("MORE: time of a step with over without", header, rows)
    print_table("MORE: parameters while training, none after", ("network", "extra", "of", "share"), sizes)


if __name__ == "__main__":
    main()
