"""Experience replay: cross-entropy over all seen classes on new data and exemplars, shuffled together.

The contract's defaults are exactly this learner; it has nothing to add. With several labels an image it is binary
cross-entropy over the visible cells of each row (label policy mask_current, memory capture_only).
"""

from imbcil.harness.contract import Learner, Needs


class Replay(Learner):
    """New data and memory in one pool, one loss."""

    title = "Replay"
    needs = Needs(labels=frozenset({"single", "multi"}))
