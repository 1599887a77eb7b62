"""PODNet: distilled pooled maps and a classifier of several proxies a class (Douillard et al., ECCV 2020)."""

import math
from functools import partial
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from imbcil.harness.balanced import exemplars_to_be
from imbcil.harness.clustering import kmeans
from imbcil.harness.contract import (
    Batch,
    Group,
    Learner,
    LearnerConfig,
    Needs,
    NetSpec,
    Outputs,
    Phase,
    Stage,
)
from imbcil.harness.losses import cosine_distance, nca, pod_spatial
from imbcil.harness.nearest_mean import keep_with_means, nearest_mean


class PODNetConfig(LearnerConfig):
    """`spatial`, `flat`: weights of the two distillations, times sqrt(K / K_new). `similarity`: "distance" is 2 cos - 2
    (the authors' code), "cosine" Long-Tailed-CIL's. `nca`: "paper" has margin and hinge (eq. 7); "released" is what
    the authors' code computes, where the margin cancels and the positive leaves an exp(0) behind; "ce" plain
    cross-entropy on the scaled similarities. `levels`: "split" adds the map before the last block. `pad_shortcuts`:
    resnet32 with padded instead of convolved shortcuts. `post_add_relu`: leave the ReLU behind each addition, as weights
    from elsewhere expect. `clamp`: element-wise bound on gradients. `imprint`: new proxies from k-means.
    `finetune_share`: epochs of the last stage, which trains the proxies alone on the coming exemplars at `finetune_lr`, as
    a share of the recipe's; 0 leaves it out. `summed`, with several labels an image: classification is the sum over visible
    cells, not their mean; KRT's weights 5 and 180 stand beside such a sum."""

    unwritten: ClassVar = frozenset({"summed", "post_add_relu"})
    spatial: float = Field(default=3.0, ge=0)
    flat: float = Field(default=1.0, ge=0)
    proxies: int = Field(default=10, ge=1)
    similarity: Literal["distance", "cosine"] = "distance"
    nca: Literal["ce", "released", "paper"] = "released"
    margin: float = 0.6
    levels: Literal["split", "stages"] = "split"
    zero_init: bool = True
    pad_shortcuts: bool = False
    post_add_relu: bool = False
    clamp: float | None = Field(default=5.0, gt=0)
    imprint: bool = True
    finetune_share: float = Field(default=0.125, ge=0)
    finetune_lr: float = Field(default=0.05, gt=0)
    summed: bool = False


class PODNet(Learner):
    """Predictors: "fc", the proxies; "nme", nearest mean of exemplars (the paper's first number). The network has no
    ReLU after an addition, so that features are signed; old proxies rest in the main stage. With several labels an
    image (mask_current, capture_only): a linear head with binary cross-entropy over visible cells and the same two
    distillations, "fc" alone. KRT's code weighs them 5 and 180, sums where others take means (`summed`), uses asymmetric
    loss, trains old rows on, and leaves the backbone as all learners have it, with the maps of its four stages: weights,
    sum and backbone are so in the recipes `krt` and `quick-ml`.

    The poster's row is `podnet+two_stage` with `released` (Long-Tailed-CIL's port); the authors' balanced numbers
    are `sound`. Differences: docs/poster.md.
    """

    title = "PODNet"
    version = 2  # its last stage takes herded rows and leaves the scale alone
    Config = PODNetConfig
    needs = Needs(
        labels=frozenset({"single", "multi"}), head=frozenset({"proxy"}), criterion="NCA on proxies", teacher=True,
        multi_head=frozenset({"linear"}),
    )  # fmt: skip
    presets = {"sound": {}, "released": {
        "similarity": "cosine", "nca": "ce", "levels": "stages", "zero_init": False, "pad_shortcuts": True,
        "clamp": None, "imprint": False, "finetune_share": 0.0,
    }}  # fmt: skip
    cfg: PODNetConfig

    def design(self, spec: NetSpec) -> NetSpec:
        cfg = self.cfg
        if not self.multi:
            spec = spec.with_head("proxy", proxies=cfg.proxies, distance=cfg.similarity == "distance")
        spec = spec.with_backbones(
            post_add_relu=cfg.post_add_relu, zero_init=cfg.zero_init, split_last=cfg.levels == "split"
        )
        parts = [part.model_copy(update={"kind": self.backbone_kind(part.kind)}) for part in spec.backbones]
        return spec.model_copy(update={"backbones": tuple(parts)})

    def backbone_kind(self, kind: str) -> str:
        return kind.replace("resnet32_conv", "resnet32_pad") if self.cfg.pad_shortcuts else kind

    def begin_phase(self, phase: Phase) -> None:
        super().begin_phase(phase)
        if phase.index and self.cfg.imprint and not self.multi:
            self.net.head.imprint(self.new_proxies(phase))

    def new_proxies(self, phase: Phase) -> Tensor:
        """Centres of each new class's normalised features [K_new * proxies, D]; zero for a class without a row."""
        features = F.normalize(self.tools.sweep(phase.new).features, dim=1)
        proxies = torch.zeros(phase.hi - phase.lo, self.cfg.proxies, features.shape[1])
        for label, rows in phase.new.rows_by_class().items():
            generator = self.tools.gen("proxies", phase.index, label)
            proxies[label - phase.lo] = kmeans(features[rows], self.cfg.proxies, generator)
        return proxies.flatten(0, 1)

    def stages(self, phase: Phase) -> list[Stage]:
        pool, optim = phase.memory + phase.new, self.cfg.train
        if self.cfg.clamp is not None:
            optim = optim.model_copy(update={"clamp": self.cfg.clamp})
        stages = [Stage("train", pool, optim, (Group("all", "-head.old"),))]
        if phase.index and self.cfg.finetune_share:
            few, rate = partial(exemplars_to_be, self, phase), self.cfg.finetune_lr
            tuned = optim.shortened(self.cfg.finetune_share, lr=rate, schedule="constant", milestones=())
            proxies = Group("head") if self.multi else Group("head", "-head.scale")
            stages.append(Stage("classifier", few, tuned, (proxies,), loss=self.classification))
        return stages

    def classification(self, batch: Batch, out: Outputs) -> dict[str, Tensor]:
        if self.cfg.nca == "ce" or self.multi:
            loss = self.classification_loss(batch, out.logits)
            return {"nca": loss * batch.mask.sum() if self.cfg.summed and batch.mask is not None else loss}
        head_scale: Tensor = self.net.head.scale  # type: ignore[assignment]
        margin = head_scale * self.cfg.margin if self.cfg.nca == "paper" else None
        return {"nca": nca(out.logits, batch.targets, margin)}

    def loss(self, batch: Batch, out: Outputs) -> dict[str, Tensor]:
        terms = self.classification(batch, out)
        teacher = self.teacher_outputs(batch)
        if teacher is None:
            return terms
        growth = math.sqrt(self.net.n_classes / self.net.head.splits[-1])
        flat = self.cfg.flat * growth * cosine_distance(out.features, teacher.features)
        spatial = self.cfg.spatial * growth * pod_spatial(out.maps, teacher.maps)
        return {**terms, "pod_flat": flat, "pod_spatial": spatial}

    def end_phase(self, phase: Phase) -> None:
        if self.multi:
            self.keep_exemplars(phase)
        else:
            keep_with_means(self, phase)
        self.freeze_teacher()

    def scores(self, images: Tensor) -> dict[str, Tensor]:
        out = self.net(images)
        return {"fc": self.net.calibrated(out, "test"), **nearest_mean(self, out)}
