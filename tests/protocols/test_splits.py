"""How classes are dealt out to phases."""

import pytest

from imbcil.harness.base.errors import BadInput, UnknownName
from imbcil.protocols.settings import ProtocolSettings
from imbcil.protocols.splits import column_name, phase_sizes, protocol_names


def sizes(n_classes: int, **settings: object) -> tuple[int, ...]:
    return phase_sizes(ProtocolSettings(**{"protocol": "lfs", "dataset": "any", **settings}), n_classes)


def test_lfs_gives_equal_phases_and_the_remainder_to_the_earliest() -> None:
    assert sizes(100, n_tasks=10) == (10,) * 10
    assert sizes(101, n_tasks=10) == (11,) + (10,) * 9
    assert sizes(101, n_tasks=20) == (6,) + (5,) * 19
    assert sizes(7, n_tasks=3) == (3, 2, 2)


def test_lfh_takes_half_of_the_classes_rounded_up_and_then_equal_phases() -> None:
    assert sizes(100, protocol="lfh", n_tasks=5) == (50,) + (10,) * 5
    assert sizes(101, protocol="lfh", n_tasks=5) == (51,) + (10,) * 5
    assert sizes(101, protocol="lfh", n_tasks=10) == (51,) + (5,) * 10
    assert sizes(6, protocol="lfh", n_tasks=2) == (3, 2, 1)


def test_a_base_takes_phases_after_it_by_number_or_by_step() -> None:
    assert sizes(100, base=50, n_tasks=5) == (50,) + (10,) * 5
    assert sizes(20, base=10, step=2) == (10, 2, 2, 2, 2, 2)
    assert sizes(20, base=0, step=6) == (6, 6, 6, 2)
    assert sizes(20, base=0, n_tasks=4) == (5, 5, 5, 5)
    assert sizes(20, base=20) == (20,)


def test_written_out_sizes_are_taken_as_they_are() -> None:
    assert sizes(101, sizes=(50, 11, 10, 10, 10, 10)) == (50, 11, 10, 10, 10, 10)


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"n_tasks": 0}, "n_tasks = 0"),
        ({"n_tasks": -3}, "n_tasks = -3"),
        ({"n_tasks": 11}, "only 10 classes"),
        ({"protocol": "lfh", "n_tasks": 6}, "only 5 classes"),
        ({"base": 11, "n_tasks": 1}, "base = 11"),
        ({"base": -1, "n_tasks": 1}, "base = -1"),
        ({"base": 10, "n_tasks": 2}, "only 0 classes"),
        ({"base": 5, "step": 6}, "step = 6"),
        ({"step": 0}, "step = 0"),
        ({"step": 2, "n_tasks": 5}, "step and n_tasks"),
        ({"sizes": (5, 4)}, "sum to 9, the dataset has 10"),
        ({"sizes": (11,)}, "sum to 11"),
        ({"sizes": (5, 0, 5)}, "at least one class"),
        ({"sizes": (-5, 15)}, "at least one class"),
        ({"sizes": ()}, "at least one class"),
        ({"sizes": (10,), "n_tasks": 1}, "sizes and n_tasks"),
    ],
)
def test_impossible_splits_are_refused_in_a_sentence_that_names_key_and_value(
    settings: dict, part: str
) -> None:
    with pytest.raises(BadInput, match=part):
        sizes(10, **settings)


def test_an_unknown_protocol_says_did_you_mean() -> None:
    with pytest.raises(UnknownName, match="did you mean lf"):
        sizes(10, protocol="lfss")
    assert {"lfs", "lfh"} <= set(protocol_names())


def test_columns_are_named_by_protocol_and_phases_or_by_the_sizes_of_a_free_split() -> None:
    def column(n_classes: int, **settings: object) -> str:
        asked = ProtocolSettings(**{"protocol": "lfs", "dataset": "any", **settings})
        return column_name(asked, phase_sizes(asked, n_classes))

    assert column(100, n_tasks=10) == "lfs-10"
    assert column(100) == "lfs-10"
    assert column(100, protocol="lfh", n_tasks=5) == "lfh-5"
    assert column(100, base=50, step=10) == "sizes-50-5x10"
    assert column(101, sizes=(50, 11, 10, 10, 10, 10)) == "sizes-50-11-4x10"
