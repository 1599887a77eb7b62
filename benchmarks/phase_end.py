"""Herding, class means and evaluation as a share of a phase of 160 epochs (iCaRL, ResNet-32, ten phases).

Each phase trains two epochs; the second one is taken 160 times.
"""

from _common import SilentView, print_table, run_harness

from imbcil.harness.store.run_folder import PhaseRecord
from imbcil.harness.store.run_info import RunInfo
from imbcil.harness.view import EpochProgress

EPOCHS = 160


class Phases(SilentView):
    """Seconds of one warm epoch, and of what follows the last one, for each phase."""

    def __init__(self) -> None:
        self.epochs: dict[int, float] = {}
        self.rows: list[tuple[int, float, float, float]] = []

    def epoch(self, progress: EpochProgress) -> None:
        self.epochs[progress.phase] = progress.images_per_s

    def phase_finished(self, info: RunInfo, record: PhaseRecord) -> None:
        cost = record.metrics
        images = cost["cost/train_s"] * cost["cost/images_per_s"] / 2
        training = EPOCHS * images / self.epochs[record.phase]
        self.rows.append((record.phase, training, cost["cost/end_s"], cost["cost/evaluation_s"]))


def main() -> None:
    view = Phases()
    short = {"train.epochs": 2, "train.milestones": []}
    run_harness(
        view,
        method=["icarl"],
        recipe="paper",
        preset="sound",
        n_tasks=10,
        compile="off",
        set=short,
    )
    table = [
        (
            str(t),
            f"{train:,.0f}",
            f"{end:.2f}",
            f"{test:.2f}",
            f"{100 * (end + test) / (train + end + test):.2f} %",
            "<= 10 %",
        )
        for t, train, end, test in view.rows
    ]
    whole = [sum(row[column] for row in view.rows) for column in (1, 2, 3)]
    share = 100 * (whole[1] + whole[2]) / sum(whole)
    table.append(
        ("all", f"{whole[0]:,.0f}", f"{whole[1]:.2f}", f"{whole[2]:.2f}", f"{share:.2f} %", "<= 10 %")
    )
    header = ("phase", "160 epochs, s", "herding and means, s", "evaluation, s", "share", "asked")
    print_table("End of a phase against its training", header, table)


if __name__ == "__main__":
    main()
