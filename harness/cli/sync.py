"""`imbcil-bench sync`: bring MLflow up to what the run folders say."""

import click


@click.command(name="sync", epilog="Example: imbcil-bench sync --tracking-uri http://127.0.0.1:5000")
@click.option("--store", "store_path", help="The store; default: IMBCIL_STORE, else ./imbcil-store.")
@click.option("--tracking-uri", help="Default: MLFLOW_TRACKING_URI, else the store's own mlflow.db.")
def command(store_path: str | None, tracking_uri: str | None) -> None:
    """Deliver to MLflow what it lacks of the store's runs; doing it twice doubles nothing."""
    from imbcil.harness.base.errors import BadInput
    from imbcil.harness.store.layout import Store, store_root
    from imbcil.harness.tracking import resolve_tracking, sync_store

    store = Store(store_root(store_path))
    if not store.root.is_dir():
        raise BadInput(f"There is no store at {store.root}; name it with --store.")
    settings = resolve_tracking(store, tracking_uri)
    report = sync_store(store, settings, lambda sentence: click.echo(sentence, err=True))
    click.echo(f"{settings.shown}: {report}")
