"""`imbcil-bench export`: finished runs of a store as one small CSV file."""

from pathlib import Path

import click


@click.command(epilog="Example: imbcil-bench export --layout poster --out poster.csv")
@click.option("--store", help="Folder of the runs; default: IMBCIL_STORE, else ./imbcil-store.")
@click.option("--layout", help="Only runs that belong into this table, such as poster.")
@click.option("--method", "methods", multiple=True, help="Only runs of this learner; repeatable.")
@click.option("--dataset", "datasets", multiple=True, help="Only runs on this dataset; repeatable.")
@click.option("--recipe", "recipes", multiple=True, help="Only runs of this recipe; repeatable.")
@click.option("--hardware", default="", help="For runs that do not say what they were computed on.")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="A file instead of standard output."
)
def command(
    store: str | None,
    layout: str | None,
    methods: tuple[str, ...],
    datasets: tuple[str, ...],
    recipes: tuple[str, ...],
    hardware: str,
    out: Path | None,
) -> None:
    """Write every phase of finished runs to a CSV file that `table --measured FILE` reads on any machine."""
    from imbcil.harness.store.layout import Store, store_root
    from imbcil.reports.output import write_text
    from imbcil.reports.request import Choice, exported

    choice = Choice(layout=layout, methods=methods, datasets=datasets, recipes=recipes)
    text, runs, warnings = exported(Store(store_root(store)), choice, hardware)
    for sentence in warnings:
        click.echo(f"Warning: {sentence}", err=True)
    write_text(text, out)
    if out is not None:
        click.echo(f"{runs} run{'' if runs == 1 else 's'} written to {out}.", err=True)
