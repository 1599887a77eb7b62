"""Growing networks: one more backbone a phase, and an auxiliary head that makes it tell new from old (DER, MEMO)."""

import torch.nn.functional as F
from torch import Tensor

from imbcil.harness.batch import Batch, Outputs, Phase
from imbcil.harness.network.network import Network


def expand(net: Network, phase: Phase) -> None:
    """From the second phase on, append a copy of the newest backbone with an auxiliary head of K_new + 1 outputs;
    the head's old rows keep their old columns. Then grow by the phase's classes."""
    classes = phase.hi - phase.lo
    if phase.index:
        net.add_backbone(aux=classes + 1)
    net.grow(classes)


def old_or_new(batch: Batch, out: Outputs) -> dict[str, Tensor]:
    """{"aux": cross-entropy of the auxiliary head}: output 0 is any old class, 1 + i the i-th new one; empty in the
    first phase. Yan et al. 2021, sec. 3.3."""
    if "aux" not in out.extras:
        return {}
    scores = out.extras["aux"]
    n_old = out.logits.shape[1] - (scores.shape[1] - 1)
    return {"aux": F.cross_entropy(scores, (batch.targets - n_old + 1).clamp(min=0))}
