"""A last batch of one image, where batch norm has but one value a channel."""

from pathlib import Path

import pytest
import torch
from tiny import tiny_runner
from torch import nn

from imbcil.harness.loop import refuses_one_row
from imbcil.harness.network.network import Network, starting_spec
from imbcil.harness.network.runtime import Runtime


class Bank:
    """As much of an image bank as is looked at."""

    device = torch.device("cpu")

    def __init__(self, size: int) -> None:
        self.size = size


def network(backbone: str) -> Network:
    torch.manual_seed(0)
    net = Network(starting_spec(backbone, {}), Runtime())
    net.grow(3)
    return net


@pytest.mark.parametrize(
    ("backbone", "size"), [("resnet8", 8), ("resnet8", 16), ("resnet32_conv", 8), ("resnet18", 32)]
)
def test_one_row_is_refused_exactly_where_training_on_it_breaks(backbone: str, size: int) -> None:
    net = network(backbone).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    refused = refuses_one_row(net, Bank(size))  # type: ignore[arg-type]
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(module.training for module in net.modules())
    try:
        net(torch.zeros(1, 3, size, size))
        broke = False
    except ValueError:
        broke = True
    assert refused == broke


def test_a_one_dimensional_norm_refuses_one_row_at_any_size() -> None:
    net = network("resnet8")
    net.aux = nn.BatchNorm1d(4)  # type: ignore[assignment]
    assert refuses_one_row(net, Bank(32))  # type: ignore[arg-type]


@pytest.mark.parametrize("batch", [20, 15, 12])  # leaves one row over in phase 1, 2 or 3
def test_a_run_on_images_of_eight_pixels_does_not_break_at_a_row_left_over(
    tmp_path: Path, batch: int
) -> None:
    recipe = {"backbone": {"name": "resnet8"}, "train": {"batch": batch, "epochs": 1}}
    assert len(tiny_runner("replay", tmp_path, recipe=recipe).run()) == 3
