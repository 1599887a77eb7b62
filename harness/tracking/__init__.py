"""MLflow as a view of the run folders: what is logged there can be rebuilt from them at any time.

Nothing here imports mlflow at import time; the functions that talk to it do.
"""

from imbcil.harness.tracking.settings import TrackingSettings, resolve_tracking
from imbcil.harness.tracking.sync import SyncReport, sync_store
from imbcil.harness.tracking.tracker import Tracker

__all__ = ["SyncReport", "Tracker", "TrackingSettings", "resolve_tracking", "sync_store"]
