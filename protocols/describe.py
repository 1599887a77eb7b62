"""A scenario in words and in JSON: what `show protocol` prints and what a run folder keeps as `scenario.json`."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from imbcil.protocols.groups import GROUPS, count_groups
from imbcil.protocols.scenario import Scenario


def scenario_record(scenario: Scenario) -> dict[str, Any]:
    """The scenario as plain values, ready for JSON. Sizes only, no row numbers: the digest covers those."""
    settings = scenario.settings
    return {
        "protocol": settings.protocol,
        "column": scenario.column,
        "dataset": scenario.dataset,
        "embedded": scenario.embedded,
        "label_kind": scenario.label_kind,
        "order": settings.order,
        "imbalance": scenario.imbalance_text,
        "data": settings.data.model_dump(mode="json"),
        **scenario.switches,
        "vary": list(settings.vary),
        "seed": settings.seed,
        "digest": scenario.digest,
        "family": scenario.family,
        "n_classes": len(scenario.order),
        "class_order": list(scenario.order),
        "class_names": list(scenario.class_names),
        "class_counts": scenario.raw_counts.tolist(),
        "phases": [
            {
                "phase": phase.index,
                "classes": list(phase.classes),
                "train_before_holdout": len(phase.train_before_holdout),
                "train": len(phase.train),
                "holdout": len(phase.holdout),
                "test": len(phase.test),
            }
            for phase in scenario.phases
        ],
        "totals": {
            "train_before_holdout": sum(len(phase.train_before_holdout) for phase in scenario.phases),
            "train": sum(len(phase.train) for phase in scenario.phases),
            "holdout": sum(len(phase.holdout) for phase in scenario.phases),
            "test": sum(len(phase.test) for phase in scenario.phases),
        },
        **(_several_labels(scenario) or _groups(scenario)),
    }


def _groups(scenario: Scenario) -> dict[str, Any]:
    """How many classes are many, medium and few."""
    found = count_groups(scenario.raw_counts.tolist())
    return {"groups": {name: found.count(name) for name in GROUPS}}


def _several_labels(scenario: Scenario) -> dict[str, Any]:
    """What several labels an image add: phases share images, so sums over phases count some of them twice."""
    if scenario.label_kind != "multi":
        return {}
    train, test = ([getattr(phase, name) for phase in scenario.phases] for name in ("train", "test"))
    return {
        "test_seen": [len(np.unique(np.concatenate(test[: last + 1]))) for last in range(len(test))],
        "train_images": len(np.unique(np.concatenate(train))),
        "positives_per_image": [
            round(int(scenario.raw_counts[phase.lo : phase.hi].sum()) / len(phase.train_before_holdout), 4)
            for phase in scenario.phases
        ],
        **_classes_without_images(scenario),
    }


def _classes_without_images(scenario: Scenario) -> dict[str, list[str]]:
    """Names of the classes that no training image shows and, where targets are at hand, no test image."""
    without = {"train": scenario.raw_counts == 0}
    if scenario.images is not None and scenario.images.test_targets is not None:
        without["test"] = ~(scenario.images.test_targets == 1).any(axis=0)[list(scenario.order)]
    return {
        f"classes_without_{split}": [scenario.class_names[place] for place in np.flatnonzero(missing)]
        for split, missing in without.items()
    }


def scenario_lines(scenario: Scenario) -> list[str]:
    """The scenario as a short report: a head, one line a phase, totals."""
    record = scenario_record(scenario)
    held_out = scenario.settings.data.holdout > 0
    phases = "phase" if len(record["phases"]) == 1 else "phases"
    lines = [
        f"{record['column']} on {record['dataset']}, order {record['order']}, "
        + (switches_text(scenario) or f"imbalance {record['imbalance']}"),
        f"{record['n_classes']} classes in {len(record['phases'])} {phases}, "
        + (f"hold-out {scenario.settings.data.holdout:g} of each class" if held_out else "no hold-out"),
        "",
        f"{'phase':>5}  {'classes':>7}  {'train':>7}  {'held out':>8}  {'test':>6}  original labels",
    ]
    for phase in record["phases"]:
        lines.append(
            f"{phase['phase']:>5}  {len(phase['classes']):>7}  {phase['train']:>7}  {phase['holdout']:>8}  "
            f"{phase['test']:>6}  {_short(phase['classes'])}"
        )
    totals = record["totals"]
    lines.append(
        f"{'all':>5}  {record['n_classes']:>7}  {totals['train']:>7}  {totals['holdout']:>8}  {totals['test']:>6}"
    )
    largest, smallest = int(scenario.raw_counts.max()), int(scenario.raw_counts.min())
    lines += _shared_images(record) if "test_seen" in record else []
    lines += ["", f"training images of a class before the hold-out: {largest} to {smallest}"]
    if scenario.digest is None:
        lines.append(
            "digest: none, the images are not decoded here; sizes are counted from what is known of the dataset"
        )
    else:
        lines.append(f"digest: {scenario.digest}")
        if scenario.family != scenario.digest:
            lines.append(f"family: {scenario.family}")
    return lines


def switches_text(scenario: Scenario) -> str:
    """The switches of several labels an image, `difficult negative, crowd include`; empty for one label."""
    return ", ".join(f"{name} {value}" for name, value in scenario.switches.items())


def _shared_images(record: dict[str, Any]) -> list[str]:
    """Lines on images that more than one phase has, and on the test images seen so far."""
    return [
        "",
        f"several labels an image: a phase has every image with one of its classes; {record['train_images']} different "
        "training images in all",
        f"test images with a class seen so far: {_short(record['test_seen'], 20)}",
        f"positives of its own classes per training image: {_short(record['positives_per_image'], 20)}",
        *(
            f"classes without a {said} image: {', '.join(record[key])}"
            for key, said in (("classes_without_train", "training"), ("classes_without_test", "test"))
            if record.get(key)
        ),
    ]


def _short(labels: Sequence[float], most: int = 10) -> str:
    shown = " ".join(str(label) for label in labels[:most])
    return f"{shown} ..." if len(labels) > most else shown
