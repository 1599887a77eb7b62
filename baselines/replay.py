"""Experience replay: cross-entropy over all seen classes on new data and exemplars, shuffled together.

The contract's defaults are exactly this learner; it has nothing to add.
"""

from imbcil.harness.contract import Learner


class Replay(Learner):
    """New data and memory in one pool, one loss."""

    title = "Replay"
