"""`imbcil-bench ui`: MLflow's dashboard on a store."""

import click


@click.command(name="ui", epilog="Example: imbcil-bench ui --store results --port 5001")
@click.option("--store", "store_path", help="The store; default: IMBCIL_STORE, else ./imbcil-store.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=5000, show_default=True, help="0: any free one."
)
@click.option("--browser/--no-browser", default=False, help="Open the first address; default: only print it.")
def command(store_path: str | None, port: int, browser: bool) -> None:
    """Show the store's runs in a browser on this machine until Ctrl-C."""
    from imbcil.harness.store.layout import Store, store_root
    from imbcil.harness.tracking.dashboard import serve

    serve(Store(store_root(store_path)), port, click.echo, browser=browser)
