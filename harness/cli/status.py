"""`imbcil-bench status`: the runs of a store and how far they are."""

import click


@click.command(epilog="Example: imbcil-bench status --json")
@click.option("--store", help="Folder of the runs; default: IMBCIL_STORE, else ./imbcil-store.")
@click.option("--json", "as_json", is_flag=True, help="A list of objects, one per run.")
def command(store: str | None, as_json: bool) -> None:
    """List runs: finished, running, stopped (the same command continues them) or failed, and why."""
    from imbcil.harness.store.layout import Store, store_root
    from imbcil.reports.collect import read_runs
    from imbcil.reports.progress import print_progress, progress_record
    from imbcil.reports.request import require_store

    opened = Store(store_root(store))
    require_store(opened)
    runs, warnings = read_runs(opened)
    for sentence in warnings:
        click.echo(f"Warning: {sentence}", err=True)
    if as_json:
        import json

        click.echo(json.dumps([progress_record(run) for run in runs], indent=1))
        return
    print_progress(runs, opened.root)
