"""What happens in a run, in words: one line an event, the same on a screen and in `log.txt`."""

from imbcil.harness.store.run_folder import PhaseRecord
from imbcil.harness.store.run_info import RunInfo
from imbcil.harness.view import EpochProgress

SHOWN = {"phase/acc_total": "seen", "phase/acc_new": "new", "phase/acc_old": "old", "phase/map": "mAP"}


def start_line(info: RunInfo, resumed_at: str) -> str:
    """`icarl, seed 0, on lfs-10 of cifar100-lt (run 1f3a…) starts`, or where it continues."""
    what = f"continues from {resumed_at}" if resumed_at else "starts"
    return f"{_who(info)} on {info.column} of {info.dataset} (run {info.run_key}) {what}"


def epoch_line(progress: EpochProgress) -> str:
    return f"  {progress.run}: {epoch_detail(progress)}"


def epoch_detail(progress: EpochProgress) -> str:
    """`phase 3 of 10, train, epoch 61 of 160 · ce 0.52, kd 1.20 · 745 images/s · 12 min left`."""
    place = f"phase {progress.phase + 1} of {progress.phases}, {progress.stage}"
    terms = ", ".join(f"{name} {value:.4g}" for name, value in progress.terms.items())
    speed = f"{progress.images_per_s:,.0f} images/s" if progress.images_per_s else ""
    left = f"{duration(progress.seconds_left)} left" if progress.seconds_left is not None else ""
    parts = (f"{place}, epoch {progress.epoch} of {progress.epochs}", terms, speed, left)
    return " · ".join(part for part in parts if part)


def phase_line(info: RunInfo, record: PhaseRecord) -> str:
    """`  icarl, seed 0: phase 3 of 10 done: seen 45.2 %, new 50.1 %, old 44.0 %`."""
    values = ", ".join(
        f"{word} {record.metrics[key]:.1f} %" for key, word in SHOWN.items() if key in record.metrics
    )
    done = f"  {_who(info)}: phase {record.phase + 1} of {len(info.phases)} done"
    return f"{done}: {values}" if values else done


def finish_line(info: RunInfo, final: dict[str, float]) -> str:
    """What the run ends with: the average over phases and the last phase's value."""
    average = final.get("final/avg_acc_total", final.get("final/avg_map"))
    last = final.get("final/last_acc_total", final.get("final/last_map"))
    shown = [
        f"average {average:.2f}" if average is not None else "",
        f"last {last:.2f}" if last is not None else "",
    ]
    values = ", ".join(value for value in shown if value)
    return f"{_who(info)} finished: {values}" if values else f"{_who(info)} finished"


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"


def _who(info: RunInfo) -> str:
    return f"{info.method}, seed {info.seed}"
