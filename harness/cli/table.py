"""`imbcil-bench table`: results of finished runs beside what papers printed."""

from pathlib import Path

import click

FORMATS = ("terminal", "markdown", "latex", "html", "csv", "json")


@click.command(epilog="Example: imbcil-bench table --metric last_acc_total --format latex --out results.tex")
@click.argument("name", required=False)
@click.option("--store", help="Folder of the runs; default: IMBCIL_STORE, else ./imbcil-store.")
@click.option(
    "--format", "form", type=click.Choice(FORMATS), help="Default: as --out ends, else the terminal's."
)
@click.option(
    "--metric", "metrics", multiple=True, help="Such as last_acc_few; repeatable. Default: both averages."
)
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="A file instead of standard output."
)
@click.option(
    "--include-recalled", is_flag=True, help="Printed values that nobody could look up again, marked †."
)
@click.option(
    "--interval", is_flag=True, help="± half-width of the 95 % interval instead of the standard deviation."
)
@click.option(
    "--compare",
    metavar="LEARNER",
    help="Differences from this learner, or this row (such as 'rebll [exponent=0.0]'), paired over shared seeds and "
    "Holm-corrected.",
)
@click.option(
    "--measured",
    multiple=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file of `imbcil-bench export`, shown in rows of its own; repeatable.",
)
def command(
    name: str | None,
    store: str | None,
    form: str | None,
    metrics: tuple[str, ...],
    out: Path | None,
    include_recalled: bool,
    interval: bool,
    compare: str | None,
    measured: tuple[Path, ...],
) -> None:
    """Learners as rows, protocol × dataset as columns: mean ± std over seeds, beside published values.

    NAME is a layout with rows and columns of its own, such as `poster`; it also shows what the project measured.
    """
    from imbcil.harness.store.layout import Store, store_root
    from imbcil.reports.output import chosen_format, write_report
    from imbcil.reports.request import Wish, requested_report

    wish = Wish(name, metrics, include_recalled, interval, compare, measured)
    report = requested_report(Store(store_root(store)), wish)
    for sentence in report.warnings:
        click.echo(f"Warning: {sentence}", err=True)
    write_report(report, chosen_format(form, out), out)
