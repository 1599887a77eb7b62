"""What decides a scenario: the protocol's own choices and a recipe's `data` section."""

from typing import ClassVar, Literal

from pydantic import Field

from imbcil.harness.base.config import Frozen

Profile = Literal["exp", "step", "few-shot", "none"]
Axis = Literal["model", "order", "sample"]
Difficult = Literal["negative", "ignore", "positive"]
Crowd = Literal["include", "exclude"]


class DataSettings(Frozen):
    """A recipe's `data` section: what is held out, which images are drawn, at which size they are stored.

    Images that are not yet `resize` pixels on their short side are resized to that (antialiased bilinear,
    as torchvision's Resize does on PIL images) and stored as the central square, once. A centre crop at
    test time is therefore exactly the released one; a random resized crop in training draws from the
    central square and never sees the two strips outside it. Images with several labels are resized to the
    square as a whole instead (KRT, CSC, L3A), since a crop would cut labelled objects away.
    """

    unwritten: ClassVar = frozenset({"difficult", "crowd"})
    holdout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of each class that is moved to the hold-out (0.1 in the recipe `paper`)."""
    holdout_quirk: bool = False
    """LT-CIL takes image 0 of the phase where a class's share rounds to none (datasets read as arrays)."""
    sampling_seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of numpy's legacy generator that draws the images of a long tail."""
    size: int | None = Field(default=None, ge=4, le=1024)
    """Side in pixels of what the network sees. None: the dataset's own."""
    resize: int | None = Field(default=None, ge=4, le=1024)
    """Short side in pixels at which images are stored. None: the dataset's own, at least `size`."""
    difficult: Difficult | None = None
    """Multi-label (VOC): what a class counts as in an image where all its objects are marked difficult.
    `ignore`: the cell is scored and trained on by nobody, as in VOC's own evaluation. None: the dataset's own."""
    crowd: Crowd | None = None
    """Multi-label (COCO): whether annotations of a crowd count as a label. None: the dataset's own."""


class ProtocolSettings(Frozen):
    """Everything that decides which classes and images a learner meets, and when."""

    protocol: str
    dataset: str
    n_tasks: int | None = None
    """Number of equal phases; with a base, the number of phases after it."""
    base: int | None = None
    """Classes of the first phase; None: what the protocol says, 0: as many as in the others."""
    step: int | None = None
    """Classes of each phase after the base, instead of `n_tasks`."""
    sizes: tuple[int, ...] | None = None
    """Classes of each phase, written out, instead of all of the above."""
    order: str = "shuffled"
    """`shuffled`, `ordered`, `random:SEED`, or the path of a file with one label or class name a line."""
    imbalance: Profile | None = None
    """None: `exp` for a dataset called NAME-lt, else `none`."""
    rho: float | None = None
    """Largest class over smallest class; None: 100."""
    data: DataSettings = DataSettings()
    vary: tuple[Axis, ...] = ("model",)
    """What the run's seed changes. `order`: class order; `sample`: which images a long tail keeps."""
    seed: int = Field(default=0, ge=0)
    """The run's seed; it matters here only if `vary` has `order` or `sample`. Seed 0 is the published split."""

    @property
    def order_shift(self) -> int:
        """What is added to the seed of the class order."""
        return self.seed if "order" in self.vary else 0

    @property
    def sample_shift(self) -> int:
        """What is added to the seed that draws the images of a long tail."""
        return self.seed if "sample" in self.vary else 0
