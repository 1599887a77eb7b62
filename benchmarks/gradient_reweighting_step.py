"""Time of a step of gradient reweighting over the same learner without reweighting (prior and distillation stay).

Measured in the second phase, where there are old classes and a teacher.
"""

from _common import SMALL, harness, in_turns, print_table, ratio_row

ROUNDS = 7
OFF = {f"gradient_reweighting.{switch}": False for switch in ("alpha", "ratio", "beta")}
SHORT = {"train.epochs": ROUNDS + 2, "train.first_phase": 1, "train.milestones": []}
CASES = (
    # backbone, recipe, classes per phase, settings
    ("small", "quick", (40, 40, 20), SHORT | SMALL),
    ("resnet32_conv", "paper", (10, 10, 80), SHORT),
)


def main() -> None:
    rows = []
    for kind, recipe, sizes, short in CASES:
        settings = {"method": ["gradient_reweighting"], "recipe": recipe, "sizes": sizes, "compile": "off"}
        plain = harness(1, **settings, set=short | OFF)
        whole = harness(1, **settings, set=short)
        without, with_it = in_turns(ROUNDS, plain, whole)
        rows.append(ratio_row(kind, without, with_it, "<= 1.1"))
    header = ("network", "without/s", "with/s", "time ratio", "spread", "asked")
    print_table("Gradient reweighting: time of a step with over without", header, rows)


if __name__ == "__main__":
    main()
