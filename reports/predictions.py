"""Test images of a stored run with its predictions: the images come from the cache, the scores from the store."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imbcil.harness.base.errors import BadInput
from imbcil.harness.base.randomness import numpy_generator
from imbcil.harness.figures.of_run import run_title
from imbcil.harness.figures.predictions import Judged, prediction_figure
from imbcil.harness.figures.style import checked_path, save_figure
from imbcil.harness.phases import arrival_targets
from imbcil.harness.request import RunRequest
from imbcil.harness.scenario_request import protocol_settings, resolve_recipe, resolved_root
from imbcil.harness.store.layout import Store
from imbcil.harness.store.run_folder import RunFolder
from imbcil.harness.store.run_info import RunInfo
from imbcil.protocols.scenario import Scenario, build_scenario


def multi_label_run(store: Store, key: str) -> RunFolder:
    """The run `key` of a store. Raises BadInput where there is none, or where its images have one label each."""
    folder = store.run(key)
    if Path(key).name != key or not (folder.path / "run.json").is_file():
        raise BadInput(f"There is no run {key} in {store.root}; `imbcil-bench status` lists them.")
    if folder.info().label_kind != "multi":
        raise BadInput(f"The images of run {key} have one label each; this figure is for several.")
    return folder


def plot_predictions(
    folder: RunFolder, request: RunRequest, phase: int | None, images: int, threshold: float, out: Path
) -> list[str]:
    """Draw `images` test images of a run to `out`; returns what is in the picture.

    request: what the run's stored config says. phase: after which one (None: the last finished one). The images are
    drawn at random, the same ones for every run on this scenario, from those with a label of the last phase's classes.
    Raises BadInput where the images at hand are not those of the run.
    """
    checked_path(out)
    info = folder.info()
    done = len(folder.records())
    phase = done - 1 if phase is None else phase
    if not 0 <= phase < done:
        raise BadInput(
            f"--phase {phase}: {done} phases of run {info.run_key} are finished; they count from 0."
        )
    scenario = _scenario_of(info, request)
    truth = arrival_targets(scenario, "test")
    stored = folder.load_scores(phase)
    name = next(name for name in stored if name.startswith("test/"))
    places = drawn_images(truth[stored["test_rows"]], info.digest, images)
    assert scenario.images is not None
    judged = [
        Judged(
            row := int(stored["test_rows"][place]),
            np.asarray(scenario.images.test[row]),
            1 / (1 + np.exp(-stored[name][place].astype(np.float64))),
            truth[row],
        )
        for place in places.tolist()
    ]
    title = f"{info.method}, after phase {phase + 1} of {len(info.phases)}\n{run_title(info)}"
    save_figure(prediction_figure(judged, info.class_names, threshold, title), out)
    return [f"{info.method}: run {info.run_key}, test images {', '.join(str(one.row) for one in judged)}"]


def drawn_images(truth: NDArray[np.uint8], digest: str, count: int) -> NDArray[np.int64]:
    """Places of at most `count` rows of truth [N, C] that have a label, drawn by the scenario's digest, ascending."""
    labelled = np.flatnonzero((truth == 1).any(axis=1))
    drawn = numpy_generator("shown images", digest).permutation(labelled)[:count]
    return np.sort(drawn)


def _scenario_of(info: RunInfo, request: RunRequest) -> Scenario:
    settings = protocol_settings(request, resolve_recipe(request)[0], info.seed)
    scenario = build_scenario(settings, data_root=resolved_root(request.data_root))
    if scenario.digest != info.digest:
        raise BadInput(
            f"The images of {info.dataset} at hand are not those of run {info.run_key} (digest {info.digest[:8]}); "
            "import the same ones again."
        )
    return scenario
