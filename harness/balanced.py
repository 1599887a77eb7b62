"""The balanced set on which a classifier is tuned once its network has learned (PODNet, LUCIR)."""

from imbcil.harness.batch import Phase
from imbcil.harness.contract import Learner
from imbcil.harness.pools import Pool


def exemplars_to_be(learner: Learner, phase: Phase) -> Pool:
    """The rows that the memory would keep if the phase ended now, chosen with the network as it is: give it to a stage
    as a callable. Empty without a memory. The sets of the released codes of Hou et al. 2019 (class-balanced
    fine-tuning) and Douillard et al. 2020 (undersampling), which herd before they tune."""
    if learner.memory.settings.empty:
        return Pool.empty()
    sweep = learner.tools.sweep(phase.memory + phase.new)
    generator = learner.tools.gen("exemplars", phase.index)
    return sweep.pool[learner.memory.choose(sweep.pool, sweep.features, phase.hi, generator)]
