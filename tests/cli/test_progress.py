"""Progress: plain lines that are few and whole, a live display on a terminal, and silence when nobody reads."""

import io
from dataclasses import replace

import pytest

from imbcil.harness.cli.progress import LiveView, PlainView
from imbcil.harness.run_lines import duration, epoch_detail
from imbcil.harness.store.run_folder import PhaseRecord
from imbcil.harness.store.run_info import PhaseInfo, RunInfo
from imbcil.harness.view import EpochProgress, RunView, SweepProgress

PHASES = tuple(
    PhaseInfo(lo=i, hi=i + 1, classes=(i,), train_before_holdout=9, train=9, test=5) for i in range(10)
)
INFO = RunInfo(
    run_key="1f3a", version="0.1.0", method="icarl", learner="icarl", seed=2, protocol="lfs", column="lfs-10",
    dataset="cifar100-lt", order="shuffled", imbalance="exp rho 100", recipe="paper", preset="released",
    memory="20/class", precision="fp32", device="cpu", compiled=False, digest="d", family="f", class_names=("a",),
    raw_counts=(9,), phases=PHASES,
)  # fmt: skip


def progress(epoch: int, epochs: int = 160) -> EpochProgress:
    return EpochProgress(
        run="icarl, seed 2", phase=2, phases=10, stage="train", epoch=epoch, epochs=epochs,
        terms={"ce": 0.5234, "kd": 1.2}, images_per_s=1745.2, seconds_left=725.0, fraction=0.25,
    )  # fmt: skip


def walk_through(view: RunView) -> None:
    """A short run as the engine tells it."""
    view.message("imported data use quick [recipe]")
    view.run_started(INFO, "")
    for epoch in range(1, 161):
        view.epoch(progress(epoch))
    view.phase_finished(
        INFO, PhaseRecord(phase=2, time_ms=1, metrics={"phase/acc_total": 45.234, "phase/acc_new": 50})
    )
    view.run_finished(INFO, {"final/avg_acc_total": 51.5, "final/last_acc_total": 40.0})


def test_an_epoch_is_told_with_place_terms_speed_and_time_left():
    said = epoch_detail(progress(61))
    assert said == "phase 3 of 10, train, epoch 61 of 160 · ce 0.5234, kd 1.2 · 1,745 images/s · 12 min left"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (89, "89 s"), (90, "2 min"), (725, "12 min"), (3600, "1 h 00 min"), (11100, "3 h 05 min")],
)
def test_durations_are_told_in_the_unit_a_person_would_use(seconds: float, text: str):
    assert duration(seconds) == text


def test_plain_lines_show_few_epochs_but_always_the_last_one():
    stream, now = io.StringIO(), [0.0]

    def clock() -> float:
        now[0] += 1.0  # each epoch takes a second
        return now[0]

    walk_through(PlainView(stream, clock))
    lines = stream.getvalue().splitlines()
    epochs = [line for line in lines if ", epoch " in line]
    assert len(epochs) == 1 + 159 // 20 + 1
    assert "epoch 160 of 160" in epochs[-1]
    assert lines[0] == "imported data use quick [recipe]"
    assert lines[1] == "icarl, seed 2 on lfs-10 of cifar100-lt (run 1f3a) starts"
    assert lines[-2] == "  icarl, seed 2: phase 3 of 10 done: seen 45.2 %, new 50.0 %"
    assert lines[-1] == "icarl, seed 2 finished: average 51.50, last 40.00"


def test_a_resumed_run_says_where_it_continues():
    stream = io.StringIO()
    PlainView(stream).run_started(INFO, "phase 4 of 10, epoch 61")
    assert stream.getvalue().endswith("continues from phase 4 of 10, epoch 61\n")


def test_a_closed_pipe_does_not_end_the_training():
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    walk_through(PlainView(Closed()))


def test_the_live_display_prints_brackets_as_they_are_and_ends_clean():
    stream = io.StringIO()
    with LiveView.shown(stream) as view:
        walk_through(view)
    assert "imported data use quick [recipe]" in stream.getvalue()
    assert "finished: average 51.50" in stream.getvalue()


def test_a_sweep_says_its_cells_and_the_time_left_once_a_cell_has_ended():
    stream = io.StringIO()
    view = PlainView(stream)
    for finished, failed, left in [(11, 0, 9000.0), (11, 0, 8900.0), (12, 0, 8000.0), (12, 1, None)]:
        view.sweep(SweepProgress(cells=48, finished=finished, failed=failed, seconds_left=left))
    assert stream.getvalue().splitlines() == [
        "11 of 48 cells finished · 2 h 30 min left",
        "12 of 48 cells finished · 2 h 13 min left",
        "12 of 48 cells finished, 1 failed",
    ]


def test_runs_side_by_side_have_a_bar_each_until_they_end():
    stream = io.StringIO()
    with LiveView.shown(stream) as view:
        for key in ("one", "two"):
            view.run_started(INFO.model_copy(update={"run_key": key}), "")
            view.epoch(replace(progress(3), run_key=key))
        view.sweep(SweepProgress(cells=4, finished=0, failed=0, running=("one", "two")))
        assert [task.description for task in view._progress.tasks] == ["icarl lfs-10 seed 2"] * 2 + ["sweep"]
        assert [task.completed for task in view._progress.tasks] == [0.25, 0.25, 0]
        view.sweep(SweepProgress(cells=4, finished=0, failed=1, running=("two",)))
        assert [task.completed for task in view._progress.tasks] == [0.25, 1]
