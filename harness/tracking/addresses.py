"""`python -m imbcil.harness.tracking.addresses STORE BASE`: where the charts of a store's experiments are.

A process of its own because MLflow takes 200 MB that the dashboard's parent need not keep.
"""

import json
import sys
from pathlib import Path

from imbcil.harness.base.errors import ImbcilError
from imbcil.harness.store.layout import Store
from imbcil.harness.tracking.client import connect, explain, patient_and_quiet
from imbcil.harness.tracking.experiments import experiments_of
from imbcil.harness.tracking.settings import embedded_tracking
from imbcil.harness.tracking.sync import sync_store
from imbcil.harness.tracking.view import charts_url


def report(root: Path, base: str) -> dict[str, object]:
    """Bring the store's own database up to date; `charts` maps experiments to addresses, newest first."""
    store = Store(root)
    settings = embedded_tracking(store)
    warnings: list[str] = []
    try:
        sync_store(store, settings, warnings.append)
        with patient_and_quiet(remote=False):
            found = experiments_of(connect(store, settings))
    except ImbcilError as error:
        return {"refused": explain(error.__cause__ or error, settings), "warnings": [], "charts": {}}
    charts = {name: charts_url(base, experiment_id) for name, experiment_id in found.items()}
    return {"refused": "", "warnings": warnings, "charts": charts}


if __name__ == "__main__":
    print(json.dumps(report(Path(sys.argv[1]), sys.argv[2])))
