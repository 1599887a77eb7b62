"""Each learner's time per image over replay's, and what a phase costs outside its training steps.

All train ResNet-32 on the same embedded data in batches of 128, in the second phase, where there are old classes, a
teacher or a second backbone. What is measured is a learner's first stage, of MAFDRC for the most part the second, which
has two teachers. The share is that of a phase of 160 epochs.
`BENCH_LEARNERS=icarl,podnet` measures some of them.
"""

import os
from contextlib import suppress

from _common import Enough, harness, in_turns, print_table, ratio_row, run_harness

from imbcil.harness.store.run_folder import PhaseRecord
from imbcil.harness.store.run_info import RunInfo
from imbcil.harness.view import EpochProgress, SilentView

ROUNDS, EPOCHS, PHASE = 5, 160, 1
TEACHER, MAPS, BACKBONES = "<= 1.4", "<= 1.6", "<= 1.8"
ASKED = {
    "finetune": "", "il2m": "", "ewc": "", "lwf": TEACHER, "icarl": TEACHER, "bic": TEACHER, "wa": TEACHER,
    "ssil": TEACHER, "eeil": TEACHER, "lucir": TEACHER, "gradient_reweighting": TEACHER, "podnet": MAPS,
    "mafdrc": MAPS, "foster": BACKBONES, "der": BACKBONES, "memo": BACKBONES,
}  # fmt: skip


class SecondPhase(SilentView):
    """Images/s of the last epoch and the seconds after it, of one phase; leaves the run there."""

    def __init__(self) -> None:
        self.rate = self.images = self.after = 0.0

    def epoch(self, progress: EpochProgress) -> None:
        self.rate = progress.images_per_s

    def phase_finished(self, info: RunInfo, record: PhaseRecord) -> None:
        cost = record.metrics
        self.images = cost["cost/train_s"] * cost["cost/images_per_s"]
        self.after = cost["cost/end_s"] + cost["cost/evaluation_s"]
        if record.phase == PHASE:
            raise Enough


def settings(method: str, epochs: int) -> dict[str, object]:
    """A run of two phases worth measuring; the rest of the classes are never reached."""
    return {
        "method": [method], "recipe": "quick", "preset": "sound", "sizes": (20, 20, 60), "compile": "off",
        "set": {
            "train.epochs": epochs, f"{method}.train.first_phase": 1 / epochs, "train.batch": 128,
            "backbone.name": "resnet32_conv",
        },
    }  # fmt: skip


def outside(method: str) -> tuple[str, ...]:
    """Seconds after the last step of a phase, and their share of a phase of 160 epochs."""
    view, epochs = SecondPhase(), 2
    with suppress(Enough):
        run_harness(view, **settings(method, epochs))
    training = EPOCHS / epochs * view.images / view.rate
    return f"{view.after:.2f}", f"{100 * view.after / (training + view.after):.2f} %"


def main() -> None:
    chosen = os.environ.get("BENCH_LEARNERS", ",".join(ASKED)).split(",")
    rows = []
    for method in chosen:
        pair = [harness(PHASE, **settings(name, ROUNDS + 2)) for name in ("replay", method)]
        plain, other = in_turns(ROUNDS, *pair)
        rows.append((*ratio_row(method, plain, other, ASKED[method]), *outside(method)))
        print(f"{method} done", flush=True)
    header = ("learner", "replay/s", "learner/s", "time ratio", "spread", "asked", "end, s", "share of 160")
    print_table("Time per image over replay, ResNet-32, second phase", header, rows)


if __name__ == "__main__":
    main()
