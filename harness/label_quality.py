"""How good labels are that a learner made itself: only the harness, which holds the truth, can tell.

Measured over hidden cells: those whose truth the learner was not given. A cell that it left unknown counts as not
claimed. All rates in percent, with their denominators beside them.
"""

import torch
from torch import Tensor

from imbcil.harness.batch import Phase
from imbcil.harness.contract import Learner
from imbcil.harness.images import ImageBank
from imbcil.harness.labels import CURRENT_MODEL, GIVEN, HIDDEN, PAST_MODEL, LabelFirewall
from imbcil.harness.memory import Memory
from imbcil.harness.network.runtime import evaluation_batch
from imbcil.harness.tools import evaluation_mode

WRITERS = {"past": PAST_MODEL, "current": CURRENT_MODEL}


def recovery(claimed: Tensor, truth: Tensor, hidden: Tensor) -> dict[str, float]:
    """precision, recall and fpr of claimed positives over hidden cells, all bool [N, K]; rates without a denominator
    are left out. `positives` and `negatives`: hidden cells of either kind, the denominators of recall and fpr."""
    hits, false = int((claimed & truth & hidden).sum()), int((claimed & ~truth & hidden).sum())
    positives, negatives = int((truth & hidden).sum()), int((~truth & hidden).sum())
    rates = {"precision": (hits, hits + false), "recall": (hits, positives), "fpr": (false, negatives)}
    found = {name: 100 * part / whole for name, (part, whole) in rates.items() if whole}
    return {**found, "positives": float(positives), "negatives": float(negatives)}


def memory_quality(firewall: LabelFirewall | None, memory: Memory) -> dict[str, float]:
    """`relabel_*` of the memory after a phase; empty where no cell was relabelled. `relabel_past_*` and
    `relabel_current_*`: of the cells alone that a past model filled, or the model of the column's own phase."""
    prov = memory.extras.get("prov")
    if firewall is None or prov is None or not bool((prov > GIVEN).any()):
        return {}
    truth, ignored = firewall.truth(memory.index)
    labels = memory.visible_targets()
    found = recovery((prov > GIVEN) & (labels >= 0.5), truth == 1, (prov != GIVEN) & ~ignored)
    for name, writer in WRITERS.items():
        of_it = recovery(labels >= 0.5, truth == 1, (prov == writer) & ~ignored)
        found |= {
            f"{name}_{rate}": of_it[rate] for rate in ("precision", "fpr", "negatives") if rate in of_it
        }
    shares = {"filled": prov > GIVEN, "unknown": prov == HIDDEN}
    found |= {name: 100 * float(cells.float().mean()) for name, cells in shares.items()}
    return {f"relabel_{name}": value for name, value in found.items()}


@torch.no_grad()
def pseudo_quality(
    firewall: LabelFirewall | None, learner: Learner, bank: ImageBank, phase: Phase
) -> dict[str, float]:
    """`pseudo_*`: the learner's pseudo-labels of the new images' old columns, in the test view; empty where there are
    none."""
    if firewall is None or not learner.tools.pseudo_labels or not phase.lo:
        return {}
    guesses = []
    with evaluation_mode(learner.net):
        for images, count in bank.evaluation_batches(phase.new.index, evaluation_batch(bank.size)):
            guesses.append(learner.pseudo_targets(images)[:count, : phase.lo].cpu())
    truth, ignored = firewall.truth(phase.new.index)
    claimed = torch.cat(guesses) >= 0.5
    old = slice(0, phase.lo)
    found = recovery(claimed, truth[:, old] == 1, ~ignored[:, old])
    return {f"pseudo_{name}": value for name, value in found.items()}
