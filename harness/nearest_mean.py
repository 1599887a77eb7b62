"""Nearest mean of exemplars: what iCaRL classifies by, and LUCIR and PODNet besides (Rebuffi et al. 2017, sec. 2.1)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from imbcil.harness.batch import Outputs, Phase
from imbcil.harness.contract import Learner


def class_means(views: list[Tensor], classes: Tensor, n_classes: int) -> Tensor:
    """Normalised mean of each class's normalised features [n_classes, D], over all views [N, D] of rows whose class
    is `classes` [N]; zero for a class without a row."""
    total = torch.zeros(n_classes, views[0].shape[1])
    for features in views:
        total.index_add_(0, classes, F.normalize(features, dim=1))
    return F.normalize(total, dim=1)


def keep_with_means(learner: Learner, phase: Phase, flip: bool = False) -> None:
    """Choose exemplars and keep their class means in `state["means"]` (none without a memory); `flip`: over
    mirrored images too."""
    kept = learner.keep_exemplars(phase)
    if len(kept.pool):
        views = [kept.features]
        if flip:
            views.append(learner.tools.sweep(kept.pool, flip=True).features)
        device = learner.net.head.weight.device
        learner.state["means"] = class_means(views, kept.pool.quota, phase.hi).to(device)


def nearest_mean(learner: Learner, out: Outputs) -> dict[str, Tensor]:
    """{"nme": minus the squared distance of normalised features to the class means [B, K]}; empty without means."""
    if "means" not in learner.state:
        return {}
    features = F.normalize(learner.embed(out), dim=1)
    return {"nme": -torch.cdist(features, learner.state["means"]).square()}
