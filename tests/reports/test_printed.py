"""The printed values that are shipped, spot-checked against the poster itself."""

from imbcil.reports.grouping import ColumnKey
from imbcil.reports.printed import published_rows, published_tables, published_values


def column(name, dataset="cifar100-lt", imbalance="exp rho 100"):
    return ColumnKey(name, dataset, "shuffled", imbalance, "f" * 16)


COLUMNS = tuple(
    column(name, dataset)
    for dataset in ("cifar100-lt", "imagenet-subset-lt", "food101-lt")
    for name in ("lfs-10", "lfs-20", "lfh-5", "lfh-10")
)


def test_the_poster_has_twelve_methods_on_twelve_columns():
    values = published_values("gradient_reweighting_poster.csv")
    assert len(values) == 144
    assert {value.status for value in values} == {"primary"}
    rows = published_rows(COLUMNS, "20/class")
    assert len(rows) == 12
    assert {len(row.values) for row in rows} == {12}


def test_rows_of_the_poster_carry_its_numbers():
    rows = {row.printed_as: row for row in published_rows(COLUMNS, "20/class")}
    numbers = {
        name: [row.values[key, "final/avg_acc_task_mean"] for key in COLUMNS] for name, row in rows.items()
    }
    assert numbers["DGR"] == [
        35.66,
        34.35,
        40.18,
        39.11,
        45.12,
        40.79,
        50.57,
        49.13,
        29.05,
        26.42,
        36.84,
        36.19,
    ]
    assert numbers["FOSTER-2stage"][:4] == [31.27, 30.68, 40.26, 39.43]
    assert numbers["iCaRL"][-1] == 21.31
    assert rows["DGR"].method == "gradient_reweighting"
    assert rows["EEIL-2stage"].method == "eeil+two_stage"


def test_every_table_of_the_index_finds_its_file_methods_and_metrics():
    for name, table in published_tables().items():
        values = [v for v in published_values(table.file) if v.table == (table.values or name)]
        assert table.methods.keys() <= {value.method for value in values}
        assert table.metrics.keys() <= {value.metric for value in values}


def test_recalled_values_are_left_out_unless_asked_for():
    balanced = (column("lfs-10", "cifar100", "none"),)
    statuses = {row.status for row in published_rows(balanced, "2000")}
    assert "recalled" not in statuses and "secondary" in statuses
    assert "recalled" in {row.status for row in published_rows(balanced, "2000", include_recalled=True)}


def test_embedded_data_have_no_printed_values_whatever_they_are_called():
    embedded = ColumnKey("lfs-10", "cifar100-lt", "shuffled", "exp rho 100", "f" * 16, embedded=True)
    assert published_rows((embedded,), "20/class") == []
