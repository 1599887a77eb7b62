"""Every form of a table, with names that each of them could take for its own markup."""

import csv
import io
import json
import re
from html.parser import HTMLParser

import pytest
from fake_runs import add_run, make_store
from rich.console import Console

from imbcil.reports import summary_table
from imbcil.reports.collect import collect
from imbcil.reports.output import chosen_format, write_report
from imbcil.reports.render import TEXT_FORMATS, as_text
from imbcil.reports.render.terminal import TerminalReport
from imbcil.reports.tables import build_report

NASTY = "my_[bold]x[/]|<b>&%$#{}~^\\`*"


@pytest.fixture
def store(tmp_path):
    store = make_store(tmp_path / "store")
    for seed in range(3):
        for method, accuracy in ((NASTY, 20), ("icarl", 30), ("gradient_reweighting", 35.5)):
            add_run(store, method, accuracy + seed / 10, seed=seed, learner="x")
    return store


@pytest.fixture
def report(store):
    return build_report(collect(store))


def on_terminal(report, width, **options):
    console = Console(width=width, highlight=False, file=io.StringIO(), **options)
    console.print(TerminalReport(report))
    return console.file.getvalue()


def test_the_terminal_shows_names_as_they_are_and_marks_by_style(report):
    text = on_terminal(report, 160, force_terminal=True, color_system="standard")
    assert NASTY in text
    assert re.search(r"\x1b\[1m *35\.60 ± 0\.10 \(3\)", text)
    assert re.search(r"\x1b\[4m *30\.10 ± 0\.10 \(3\)", text)


@pytest.mark.parametrize("width", [40, 60, 80, 120, 160])
def test_no_line_is_wider_than_the_terminal_and_no_number_is_cut(store, width):
    for column in ("lfs-20", "lfh-5", "lfh-10"):
        add_run(store, "icarl", 40, column=column)
    text = on_terminal(build_report(collect(store)), width)
    assert max(map(len, text.splitlines())) <= width
    for number in ("30.10 ± 0.10 (3)", "40.00 (1)", "35.66"):
        assert number in text


def test_a_sentence_that_holds_for_several_tables_is_said_once_on_the_terminal(store):
    add_run(store, "icarl", 30, recipe="paper-quarter", reduced=True)
    text = " ".join(on_terminal(build_report(collect(store)), 100).split())
    assert text.count("mean over all phases, the first included. avg_acc_total") == 1


def test_markdown_rows_all_have_the_same_number_of_cells(report):
    lines = [line for line in as_text(report, "markdown").splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {4}
    assert any(line.startswith(r"| my\_\[bold\]x\[/\]\|\<b\>&amp;%\$\#\{\}\~^\\\`\*") for line in lines)
    assert "**35.60 ± 0.10 (3)**" in lines[2] + lines[3] + lines[4]


def test_latex_has_balanced_braces_and_escapes_what_would_break_it(report):
    text = as_text(report, "latex")
    assert r"my\_{[}bold{]}x{[}/{]}\textbar{}\textless{}b\textgreater{}\&\%\$\#\{\}" in text
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")
    rows = [line for line in text.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {2}
    assert r"\textbf{35.60 $\pm$ 0.10 (3)}" in text and r"\underline{30.10 $\pm$ 0.10 (3)}" in text


def test_html_is_well_formed_and_every_row_is_as_wide_as_the_head(report):
    page = _Page()
    page.feed(as_text(report, "html"))
    assert page.open == []
    assert NASTY in page.text
    assert {cells for cells in page.rows if cells} == {3, 2}  # the first head spans two rows
    assert "<strong>35.60 ± 0.10 (3)</strong>" in as_text(report, "html")


class _Page(HTMLParser):
    """Open tags, text, and the width of each table row."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.rows = [], "", []

    def handle_starttag(self, tag, attributes):
        if tag == "meta":
            return
        self.open.append(tag)
        if tag == "tr":
            self.rows.append(0)
        if tag in ("td", "th"):
            self.rows[-1] += int(dict(attributes).get("colspan", 1))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_csv_has_one_line_a_cell_with_the_numbers_unrounded(report):
    lines = list(csv.DictReader(io.StringIO(as_text(report, "csv"))))
    (cell,) = [
        line
        for line in lines
        if line["label"] == "DGR" and line["kind"] == "measured" and line["metric"].endswith("task_mean")
    ]
    assert float(cell["mean"]) == pytest.approx(35.6)
    assert (cell["n"], cell["seeds"], cell["mark"], cell["recipe"]) == ("3", "0 1 2", "best", "paper")
    (printed,) = [line for line in lines if line["label"] == "DGR" and line["kind"] == "published"]
    assert (printed["published"], printed["status"], printed["verdict"]) == ("35.66", "primary", "verified")
    assert (printed["mean"], printed["n"]) == ("", "")


def test_json_carries_captions_and_cells(report):
    content = json.loads(as_text(report, "json"))
    (table,) = content["tables"]
    assert table["recipe"] == "paper" and table["caption"]
    assert {cell["label"] for cell in table["cells"]} >= {NASTY, "icarl", "DGR", "iCaRL"}


@pytest.mark.parametrize("form", TEXT_FORMATS)
def test_every_form_can_hold_no_table_at_all(form, tmp_path):
    empty = build_report(collect(make_store(tmp_path / "empty")))
    assert as_text(empty, form).endswith("\n")


def test_the_summary_of_a_run_has_its_own_runs_alone(store):
    key = add_run(store, "replay", 44).path.name
    console = Console(width=120, file=io.StringIO())
    console.print(summary_table(store, [key]))
    assert "44.00 (1)" in console.file.getvalue()
    assert "35.60" not in console.file.getvalue()


@pytest.mark.parametrize(
    ("given", "out", "form"),
    [(None, None, "terminal"), (None, "a.tex", "latex"), (None, "a.MD", "markdown"), ("csv", "a.tex", "csv"),
     (None, "a", "terminal")],
)  # fmt: skip
def test_the_form_follows_the_files_ending_unless_named(given, out, form, tmp_path):
    assert chosen_format(given, out and tmp_path / out) == form


def test_a_terminal_table_in_a_file_is_plain_text(report, tmp_path):
    write_report(report, "terminal", tmp_path / "table.txt")
    text = (tmp_path / "table.txt").read_text()
    assert "35.60" in text and "\x1b" not in text
