"""The saved view that an experiment opens with: charts, seeds averaged, accuracies first.

It is MLflow 3.17's own format, kept in an experiment tag. A version that reads it otherwise shows its usual
page: nothing but looks is lost.
"""

import base64
import json
import zlib

VIEW = "imbcil-by-method"
_SECTIONS = ("phase", "final", "cost")
_LINES = (
    "phase/acc_total",
    "phase/acc_task_mean",
    "phase/map",
    "phase/acc_new",
    "phase/acc_old",
    "phase/forgetting",
    "phase/acc_many",
    "phase/acc_medium",
    "phase/acc_few",
)
_BARS = (
    "final/avg_acc_total",
    "final/avg_acc_task_mean",
    "final/last_acc_total",
    "final/avg_map",
    "final/last_map",
)


def charts_url(base: str, experiment_id: str) -> str:
    """The full address that opens an experiment's charts in MLflow's model-training mode."""
    query = f"workflowType=machine_learning&compareRunsMode=CHART&viewStateShareKey={VIEW}"
    return f"{base}/#/experiments/{experiment_id}/runs?{query}"


def saved_view(time_ms: int) -> str:
    """The tag's value."""
    state = {
        "searchFilter": "",
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "compareRunsMode": "CHART",
        "groupBy": {"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": "row"}]},
        "compareRunSections": [_section(name) for name in _SECTIONS],
        "compareRunCharts": [_line(key) for key in _LINES] + [_chart(key, "BAR") for key in _BARS],
        "isAccordionReordered": True,  # else sections are sorted by name, and cost comes first
    }
    packed = "deflate;" + base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    view = {"name": "by method, seeds averaged", "createdAt": time_ms, "updatedAt": time_ms, "state": packed}
    return json.dumps(view)


def _section(name: str) -> dict[str, object]:
    shown = {"uuid": f"imbcil-{name}", "name": name, "display": True}
    return shown | {"isReordered": True, "deleted": False, "isGenerated": True}


def _chart(key: str, kind: str) -> dict[str, object]:
    section, _, title = key.partition("/")
    place = {"uuid": f"imbcil-{key}", "metricSectionId": f"imbcil-{section}", "displayName": title}
    return place | {
        "type": kind,
        "metricKey": key,
        "runsCountToCompare": 10,
        "deleted": False,
        "isGenerated": True,
    }


def _line(key: str) -> dict[str, object]:
    axes = {
        "xAxisKey": "step",
        "xAxisScaleType": "linear",
        "scaleType": "linear",
        "range": {},
        "yAxisKey": "metric",
    }
    look = {
        "lineSmoothness": 0,
        "selectedXAxisMetricKey": "",
        "yAxisExpressions": [],
        "ignoreOutliers": False,
    }
    return _chart(key, "LINE") | axes | look | {"useGlobalXaxisKey": True, "useGlobalLineSmoothing": True}
