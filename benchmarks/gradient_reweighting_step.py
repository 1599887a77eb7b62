"""Time of a step of gradient reweighting over the same learner without reweighting (prior and distillation stay).

Measured in the second phase, where there are old classes and a teacher.
"""

from _common import harness, in_turns, print_table, ratio_row

ROUNDS = 7
OFF = {f"gradient_reweighting.{switch}": False for switch in ("alpha", "ratio", "beta")}
SHORT = {"train.epochs": ROUNDS + 2, "train.milestones": []}
CASES = (
    # backbone, recipe, classes per phase
    ("small", "quick", (40, 40, 20)),
    ("resnet32_conv", "paper", (10, 10, 80)),
)


def main() -> None:
    rows = []
    for kind, recipe, sizes in CASES:
        settings = {"method": ["gradient_reweighting"], "recipe": recipe, "sizes": sizes, "compile": "off"}
        plain = harness(1, **settings, set=SHORT | OFF)
        whole = harness(1, **settings, set=SHORT)
        without, with_it = in_turns(ROUNDS, plain, whole)
        rows.append(ratio_row(kind, without, with_it, "<= 1.1"))
    header = ("network", "without/s", "with/s", "time ratio", "spread", "asked")
    print_table("Gradient reweighting: time of a step with over without", header, rows)


if __name__ == "__main__":
    main()
