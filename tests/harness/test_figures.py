"""Figures of runs: what is drawn is what the tables say, whatever the run looks like."""

import math
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from fake_runs import add_run, make_store
from pytest import approx
from scipy.stats import spearmanr

from imbcil.harness.base.errors import BadInput
from imbcil.harness.figures.forgetting import forgetting_figure
from imbcil.harness.figures.gains import GainCell, gain_figure
from imbcil.harness.figures.of_run import draw_run_figures, run_title
from imbcil.harness.figures.per_class import read_per_class
from imbcil.harness.figures.style import NEW, OLD, save_figure
from imbcil.harness.figures.values import class_value_figure
from imbcil.harness.figures.weight_norms import weight_norm_figure

HEADER = "phase,class_id,label,name,arrival_phase,train_count,group,accuracy,weight_norm"
ROWS = (
    "0,0,7,a,0,300,many,80.0,2.0",
    "0,1,3,b,0,5,few,40.0,0.5",
    "1,0,7,a,0,300,many,90.0,2.5",
    "1,1,3,b,0,5,few,10.0,0.6",
    "1,2,9,c,1,50,medium,70.0,1.5",
    "2,0,7,a,0,300,many,50.0,2.6",
    "2,1,3,b,0,5,few,15.0,0.7",
    "2,2,9,c,1,50,medium,,1.6",  # no test image
    "2,3,4,d,2,20,medium,99.0,3.0",
)


@pytest.fixture
def run(tmp_path):
    folder = add_run(make_store(tmp_path / "store"), "icarl", [30.0, 20.0, 10.0])
    write(folder, ROWS)
    return folder


def write(folder, rows, header=HEADER):
    (folder.path / "per_class.csv").write_text("\n".join((header, *rows)) + "\n", encoding="utf-8")


def test_forgetting_is_the_best_earlier_value_minus_the_last_of_classes_of_earlier_phases(run):
    found = read_per_class(run)
    old, lost = found.forgetting()
    assert old.tolist() == [True, True, False, False]  # c has no value, d came last
    assert lost.tolist() == [40.0, 25.0]


def test_the_correlation_is_spearmans(run):
    draw = np.random.default_rng(0)
    accuracy, counts = draw.integers(0, 100, (2, 30)), draw.integers(5, 300, 30)
    rows = [f"{p},{c},{c},x,0,{counts[c]},few,{accuracy[p, c]},1.0" for p in range(2) for c in range(30)]
    write(run, [*rows, "1,30,30,y,1,9,few,50,1.0"])
    lost = accuracy[0] - accuracy[1]
    assert read_per_class(run).forgetting_correlation() == approx(spearmanr(lost, counts).statistic)


def test_a_constant_count_has_no_correlation_and_still_a_figure(run):
    write(run, [row.replace(",300,", ",5,") for row in ROWS])
    found = read_per_class(run)
    assert math.isnan(found.forgetting_correlation())
    assert "ρ undefined" in forgetting_figure({"icarl": found}, "t").axes[0].get_title(loc="left")


def test_norms_after_the_last_phase_stand_over_counts_old_and_new_in_their_colours(run):
    figure = weight_norm_figure({"icarl": read_per_class(run)}, "t")
    by_count, by_phase = figure.axes
    old, new = by_count.collections[:2]
    assert old.get_offsets().data.tolist() == [[300, 2.6], [5, 0.7], [50, 1.6]]
    assert new.get_offsets().data.tolist() == [[20, 3.0]]
    lines = [line.get_ydata().tolist() for line in by_phase.get_lines()]
    assert [approx([1.55, (2.6 + 0.7 + 1.6) / 3]), approx([1.25, 1.5, 3.0])] == lines
    assert [line.get_color() for line in by_phase.get_lines()] == [OLD, NEW]


def test_learners_stand_side_by_side_on_the_same_axes(run):
    found = read_per_class(run)
    figure = forgetting_figure({"icarl": found, "replay": found, "wa": found}, "t")
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles[:3] == [f"{name}\nmean 32.5, ρ +1.00" for name in ("icarl", "replay", "wa")]
    assert len({axes.get_ylim() for axes in figure.axes[:3]}) == 1
    assert figure.get_figwidth() * 2.54 == approx(8.5)


def test_each_class_has_its_value_of_the_last_phase_in_order_of_arrival(run):
    found = read_per_class(run)
    figure = class_value_figure({"icarl": found, "replay": found}, "t")
    (axes,) = figure.axes
    icarl, replay = axes.collections[:2]
    points = icarl.get_offsets()
    assert points.compressed().tolist() == [50, 0, 15, 1, 99, 3]  # c has no value
    assert (icarl.get_facecolor() != replay.get_facecolor()).any()
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["a (300)", "b (5)", "c (50)", "d (20)"]
    assert axes.get_ylim() == (3.5, -0.5)  # the first on top
    assert [(text.get_text(), text.get_position()) for text in axes.texts] == [("-", (0, 2))]
    assert [line.get_ydata()[0] for line in axes.get_lines()] == [1.5, 2.5]  # borders of phases
    assert icarl.get_label() == "icarl, mean 54.7"
    assert axes.get_xlabel() == "accuracy after the last phase (%)"


def test_more_classes_than_can_be_named_still_make_a_figure(run):
    write(run, [f"0,{c},{c},x,0,{c},few,50,1.0" for c in range(1000)])
    figure = class_value_figure({"icarl": read_per_class(run)}, "t")
    assert figure.get_figheight() < 16 and not figure.axes[0].get_yticklabels()


@pytest.mark.parametrize("ending", ["png", "pdf", "svg"])
def test_figures_are_saved_alike_each_time(run, tmp_path, ending):
    for name in ("a", "b"):
        save_figure(weight_norm_figure({"x<&$": read_per_class(run)}, "t"), tmp_path / f"{name}.{ending}")
    first, second = ((tmp_path / f"{name}.{ending}").read_bytes() for name in ("a", "b"))
    assert first == second and len(first) > 3000
    if ending == "svg":
        ElementTree.fromstring(first)


def test_other_endings_and_missing_folders_are_refused(run, tmp_path):
    figure = weight_norm_figure({"x": read_per_class(run)}, "t")
    with pytest.raises(BadInput, match=r"has to end in \.png"):
        save_figure(figure, tmp_path / "a.jpg")
    with pytest.raises(BadInput, match="cannot be written"):
        save_figure(figure, tmp_path / "no" / "a.png")


def test_a_run_gets_both_figures_and_one_of_a_single_phase_its_norms_alone(run):
    draw_run_figures(run, run.info())
    assert {path.name for path in run.figures.iterdir()} == {"weight_norms.png", "forgetting.png"}
    for path in run.figures.iterdir():
        path.unlink()
    write(run, ROWS[:2])
    draw_run_figures(run, run.info())
    assert {path.name for path in run.figures.iterdir()} == {"weight_norms.png"}


def test_several_labels_an_image_are_measured_by_average_precision(run):
    write(
        run,
        [row.replace("many", "head").replace("few", "tail") for row in ROWS],
        HEADER.replace("accuracy", "ap"),
    )
    found = read_per_class(run)
    assert found.measure == "AP" and found.forgetting()[1].tolist() == [40.0, 25.0]


@pytest.mark.parametrize(
    "damage",
    [
        lambda rows: [],
        lambda rows: [rows[0].replace("300", "many")],
        lambda rows: ["999999999,0,7,a,0,300,many,80.0,2.0"],
        lambda rows: ["-2,0,7,a,0,300,many,80.0,2.0"],
        lambda rows: [*rows, "2"],
    ],
    ids=["empty", "word for number", "sizes of no run", "negative", "cut short"],
)
def test_a_damaged_table_is_named_and_costs_a_finished_run_nothing(run, damage):
    write(run, damage(list(ROWS)))
    with pytest.raises(BadInput, match=r"per_class\.csv is damaged"):
        read_per_class(run)
    draw_run_figures(run, run.info())
    assert list(run.figures.iterdir()) == []


def test_the_title_calls_embedded_and_reduced_by_name(tmp_path):
    info = add_run(make_store(tmp_path / "store"), "icarl", embedded=True, reduced=True, seed=4).info()
    assert run_title(info) == (
        "lfs-10 of cifar100-lt (embedded data), seed 4\n"
        "recipe paper (reduced), preset released, memory 20/class"
    )


def test_a_heat_map_has_numbers_stars_hatches_and_gaps():
    cells = {
        ("icarl", "more"): GainCell(2.04, significant=True),
        ("icarl", "lws"): GainCell(-0.04),
        ("podnet", "more"): GainCell(state="not run"),
        ("podnet", "lws"): GainCell(state="not defined"),
    }
    figure = gain_figure({"lfs-10": cells, "lfh-5": {}}, ["icarl", "podnet"], ["more", "lws"], "t")
    first, second = figure.axes[:2]
    assert [text.get_text() for text in first.texts] == ["+2.0*", "+0.0"]
    assert [patch.get_xy() for patch in first.patches] == [(0.5, 0.5)]
    assert first.images[0].get_clim() == second.images[0].get_clim() == (-2.04, 2.04)
    assert not second.texts
