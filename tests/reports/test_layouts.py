"""The layouts of multi-label and of one-phase tables: printed rows with their status, measured ones beside."""

import csv
from importlib.resources import files

import pytest
from fake_runs import add_run, make_store

from imbcil.reports.collect import collect
from imbcil.reports.plan import Request, layout_names, load_gain_layout, load_layout
from imbcil.reports.printed import published_tables
from imbcil.reports.tables import build_report

MULTI = {
    "protocol": "mlcil", "order": "ordered", "imbalance": "none", "label_kind": "multi", "recipe": "krt",
    "preset": "sound",
}  # fmt: skip
STATIC = {"protocol": "static", "column": "static-1", "recipe": "bot", "preset": "sound", "memory": "0"}


@pytest.fixture
def store(tmp_path):
    return make_store(tmp_path / "store")


def tables(store, layout, **request):
    found = build_report(collect(store), Request(layout=load_layout(layout), **request)).tables
    return {(table.conditions.recipe, table.conditions.memory): table for table in found}


def cells(table, heading, metric):
    (row,) = [row for row in table.rows if row.heading == heading]
    return {
        (slot.column.dataset, slot.column.column, slot.column.imbalance): cell.text
        for slot, cell in zip(table.slots, row.cells, strict=True)
        if slot.metric == f"final/{metric}" and cell.text
    }


def multi(store, method, **fields):
    metrics = [{"phase/map": 80.0, "phase/cf1_mean_t0.8": 60.0, "phase/of1_t0.8": 61.0}] * 2
    add_run(store, method, metrics=metrics, **{**MULTI, **fields})


def test_every_layout_stands_on_a_machine_that_has_run_nothing(store):
    for name in layout_names():
        if load_gain_layout(name):
            continue
        found = tables(store, name)
        assert found and all(table.slots and table.rows for table in found.values())


def test_coco_has_a_table_for_each_memory_and_no_value_of_another_one(store):
    found = tables(store, "mlcil-coco")
    assert [memory for _, memory in found] == ["0", "5/class", "20/class", "1000"]
    place = ("coco2014", "mlcil-B0-C10", "none")
    for memory, value in (("0", "78.30"), ("20/class", "78.90"), ("1000", "78.50")):
        assert cells(found["krt", memory], "RebLL (published by KAR, secondary)", "avg_map")[place] == value
    assert not [row for row in found["krt", "20/class"].rows if row.label in ("KRT", "CSC", "AGCN")]


def test_threshold_and_definition_of_f1_stand_in_the_heads_and_in_the_caption(store):
    table = tables(store, "mlcil-coco")["krt", "0"]
    assert {slot.metric_name for slot in table.slots} == {
        *("avg_map", "last_map", "last_cf1_mean_t0.8", "last_of1_t0.8")
    }
    assert any("mean over classes of each class's F1, labels above 0.8" in said for said in table.caption)


def test_printed_f1_of_unknown_definition_is_said_to_be_so(store):
    caption = " ".join(tables(store, "mlcil-coco")["krt", "0"].caption)
    assert (
        "at which threshold and by which definition its CF1 and OF1 were computed is not said there"
        in caption
    )


def test_recalled_values_need_to_be_asked_for_and_carry_a_dagger(store):
    assert not [
        row for table in tables(store, "mlcil-voc").values() for row in table.rows if "†" in row.label
    ]
    table = tables(store, "mlcil-voc", include_recalled=True)["krt", "2/class"]
    place = ("voc2007", "mlcil-B10-C2", "none")
    assert place in cells(table, "ER† (published by KRT, recalled)", "last_map")
    joint = cells(table, "Joint† (published by KRT, recalled)", "last_map")
    assert joint[("voc2007", "mlcil-B0-C4", "none")] == "93.60"  # all data: whatever the memory


def test_measured_rows_stand_above_the_printed_ones_of_their_learner(store):
    for seed in range(3):
        multi(store, "rebll", column="mlcil-B0-C10", dataset="coco2014", memory="20/class", seed=seed)
    table = tables(store, "mlcil-coco")["krt", "20/class"]
    assert [row.label for row in table.rows][:2] == ["rebll", "RebLL"]
    printed = cells(table, "RebLL (published by KAR, secondary)", "avg_map")
    assert printed[("coco2014", "mlcil-B0-C10", "none")] == "78.90 (+1.10, not judged)"
    assert [row.label for row in table.rows if row.kind == "measured"] == ["rebll"]  # no empty rows of ours


def test_a_run_with_cocos_constants_stands_in_the_table_of_its_recipe(store):
    multi(
        store, "krt", column="mlcil-B0-C10", dataset="coco2014", memory="20/class", recipe="krt-coco",
    )  # fmt: skip
    found = tables(store, "mlcil-coco")
    assert {recipe for recipe, _ in found} == {"krt"}
    assert "krt" in [row.label for row in found["krt", "20/class"].rows if row.kind == "measured"]


def test_what_difficult_objects_count_as_keeps_no_run_out_of_its_column(store):
    for switches in ("difficult negative, crowd include", "difficult ignore, crowd include"):
        multi(
            store, "rebll", column="mlcil-B10-C2", dataset="voc2007", memory="2/class", switches=switches,
            family=switches[:12],
        )  # fmt: skip
    table = tables(store, "mlcil-voc")["krt", "2/class"]
    (row,) = [row for row in table.rows if row.label == "rebll"]
    assert [cell.text for cell in row.cells if cell.text].count("80.00 (1)") == 4  # two columns, two metrics
    assert any("difficult ignore" in said for said in table.caption)


def test_runs_of_another_recipe_have_a_table_of_their_own_and_no_verdict(store):
    multi(store, "rebll", column="mlcil-B10-C2", dataset="voc2007", memory="2/class", recipe="quick")
    found = tables(store, "mlcil-voc", include_recalled=True)
    assert ("quick", "2/class") in found and ("krt", "2/class") in found
    assert not any(cell.verdict for row in found["quick", "2/class"].rows for cell in row.cells)


def test_families_of_augmentation_never_share_a_table(store):
    found = tables(store, "more-static")
    labels = {recipe: {row.label for row in table.rows} for (recipe, _), table in found.items()}
    assert "cRT" in labels["bot"] and "cRT" not in labels["strong"] | labels["more-weak"]
    assert "PaCo" in labels["strong"]
    assert "PaCo" not in labels["bot"] | labels["more-weak"] | labels["more-strong"]
    assert "LA+MORE" in labels["more-weak"] & labels["more-strong"]


def test_a_table_of_printed_rows_has_no_empty_columns(store):
    add_run(store, "finetune", 37.32, **STATIC)
    for table in tables(store, "more-static").values():
        for place, slot in enumerate(table.slots):
            assert any(row.cells[place].text for row in table.rows), (table.title, slot)


def test_the_images_of_miml_are_nowhere_and_its_row_says_so(store):
    table = tables(store, "more-multi", images_at_hand=lambda dataset: dataset != "miml")["krt", "20/class"]
    said = cells(table, "finetune+more", "last_map")
    assert said["miml", "static-1", "none"] == "no images here"
    assert ("voc-mlt", "static-1", "none") not in said
    printed = cells(table, "BCE+MORE (published by MORE, secondary)", "last_map")
    assert printed["miml", "static-1", "none"] == "84.60"


def test_the_ladder_stands_under_its_own_imbalance(store):
    table = tables(store, "more-static")["bot", "0"]
    found = cells(table, "Balanced Softmax (published by BoT, primary)", "last_acc_total")
    assert found == {
        ("cifar100-lt", "static-1", "exp rho 50"): "46.55",
        ("cifar100-lt", "static-1", "exp rho 100"): "42.99",
    }


def test_a_measured_ladder_row_is_judged_and_other_data_are_not(store):
    for seed in range(3):
        add_run(store, "finetune+balanced_softmax", 41.99, seed=seed, **STATIC)  # acc_total is one more
        add_run(store, "finetune", 37.32, seed=seed, **STATIC)
    table = tables(store, "more-static")["bot", "0"]
    place = ("cifar100-lt", "static-1", "exp rho 100")
    found = cells(table, "Balanced Softmax (published by BoT, primary)", "last_acc_total")
    assert found[place] == "42.99 (+0.00, verified)"
    assert (
        cells(table, "ERM (published by GLA, primary)", "last_acc_total")[place]
        == "39.87 (-1.55, not judged)"
    )


def test_printed_names_of_the_index_are_in_the_files_and_shown_once():
    for name, table in published_tables().items():
        text = files("imbcil.reports.published").joinpath(table.file).read_text(encoding="utf-8")
        printed = {
            row["method"]
            for row in csv.DictReader(text.splitlines())
            if row["table"] == (table.values or name)
        }
        assert set(table.others) <= printed and not set(table.others) & table.methods.keys()
