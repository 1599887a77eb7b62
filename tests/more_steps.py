"""Networks and runs that MORE has split, for its tests."""

from pathlib import Path
from typing import Any

import torch
from steps import batch_of, begun
from torch import nn

from imbcil.harness.network.network import ModuleSpec, NetSpec, Network
from imbcil.harness.network.runtime import Runtime
from imbcil.harness.runner import Runner
from imbcil.harness.stages import Stage
from imbcil.methods.plugins._split import split_modules
from imbcil.methods.plugins.more import MORE, MOREConfig

IMAGES = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(1))
ZERO_TERM = '''
from imbcil.methods.plugins.more import MORE as _MORE

class Zero(_MORE):
    """The whole machinery, its term times zero."""

    def extra_loss(self, batch, out, learner):
        terms = super().extra_loss(batch, out, learner)
        return {name: 0.0 * term for name, term in terms.items()}
'''


def network(kind: str = "tiny") -> Network:
    torch.manual_seed(0)
    net = Network(NetSpec(backbones=(ModuleSpec(kind=kind),), head=ModuleSpec(kind="linear")), Runtime())
    net.grow(3)
    return net


def wrapped(**settings: Any) -> tuple[MORE, Network]:
    """A network whose convolutions are split; the tails are drawn at random, not zero."""
    plugin, net = MORE(MOREConfig(**settings), "more"), network()
    net.wraps["more"] = plugin.wrap(net)
    for seed, module in enumerate(split_modules(net).values()):
        for value in module.tail.parameters():
            nn.init.normal_(value, std=0.1, generator=torch.Generator().manual_seed(seed))
    return plugin, net


def opened(method: str, store: Path, phase: int = 1, **options: Any) -> tuple[Runner, Stage]:
    """A run inside the first stage of a phase: wrapped, nothing trained."""
    runner, _ = begun(method, store, phase, **options)
    return runner, open_stage(runner)


def open_stage(runner: Runner) -> Stage:
    """Open the first stage of the phase that was begun."""
    view = runner._phase_view()
    for plugin in runner.plugins.items:
        plugin.begin_phase(view, runner.learner)
    stage = runner.plugins.stages(view, runner.learner)[0]
    runner._allow_gradients(stage)
    runner.plugins.wrap(runner.learner.net, stage)
    for plugin in runner.plugins.items:
        plugin.begin_stage(stage, runner.learner)
    return stage


def assert_no_discrepancy(runner: Runner) -> None:
    """Right after the split the tails are zero: so are the term and its gradients, in evaluation mode."""
    net = runner.learner.net.eval()
    batch = batch_of(runner, runner._phase_view().new)
    loss = runner.plugins.items[0].extra_loss(batch, net(batch.images), runner.learner)["more"]
    loss.backward()
    assert loss.item() == 0.0
    for module in split_modules(net).values():
        assert all(float(value.grad.abs().max()) == 0.0 for value in module.tail.parameters())
