"""Which datasets share classes: whether weights trained on one have seen the classes of another."""

import re

from imbcil.protocols.catalogue import find_entry, split_name

# Named families of classes, and whose classes a model trained on them has seen.
FAMILIES = (
    (re.compile(r"(imagenet|in)-?_?(12|21|22)k.*"), "imagenet21k"),
    (re.compile(r"(imagenet|in)-?_?1k.*|imagenet.*"), "imagenet"),
    (re.compile(r"(ms-?_?)?coco.*"), "coco"),
    (re.compile(r"(pascal-?_?)?voc.*"), "voc"),
    (re.compile(r"places.*"), "places"),
    (re.compile(r"inat(uralist)?.*"), "inaturalist"),
)
SEEN = {"imagenet21k": {"imagenet21k", "imagenet"}, "coco": {"coco", "voc"}, "voc": {"voc", "coco"}}


def class_family(name: str) -> str:
    """`imagenet-subset-lt` -> imagenet, `voc2007` -> voc; what belongs to no family stands for itself."""
    entry = find_entry(name)
    base = (entry.images_of or entry.name) if entry is not None else split_name(name)[0]
    word = base.strip().lower()
    return next((family for pattern, family in FAMILIES if pattern.fullmatch(word)), word)


def has_seen(trained_on: str, dataset: str) -> bool:
    """Whether weights trained on `trained_on` saw classes of `dataset` (either with or without its -lt)."""
    family = class_family(trained_on)
    return class_family(dataset) in SEEN.get(family, {family})
