"""Which weights have seen which dataset's classes."""

import pytest

from imbcil.protocols.seen_classes import has_seen


@pytest.mark.parametrize(
    ("trained_on", "dataset"),
    [("imagenet", "imagenet-subset"), ("imagenet", "imagenet-subset-lt"), ("imagenet21k", "imagenet"), ("ImageNet-1K", "imagenet"),
     ("in21k", "imagenet-subset-lt"), ("coco", "voc2007"), ("voc2012", "coco2014"), ("coco2017", "coco2014"),
     ("cifar100", "cifar100-lt"), ("food101", "food101-tailtest-lt"), ("places365", "places-lt"), ("inaturalist2021", "inaturalist2018")],
)  # fmt: skip
def test_weights_have_seen_the_classes_of_their_own_family(trained_on: str, dataset: str) -> None:
    assert has_seen(trained_on, dataset)


@pytest.mark.parametrize(
    ("trained_on", "dataset"),
    [("imagenet", "cifar100-lt"), ("imagenet21k", "voc2007"), ("imagenet", "coco2014"), ("cifar10", "cifar100"), ("coco", "imagenet-subset"),
     ("laion2b", "imagenet"), ("imagenet", "places-lt")],
)  # fmt: skip
def test_and_not_of_others(trained_on: str, dataset: str) -> None:
    assert not has_seen(trained_on, dataset)
