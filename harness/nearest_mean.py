"""Nearest-mean classification (Rebuffi et al. 2017, alg. 1): class means of exemplars and distances to them."""

import torch
import torch.nn.functional as F
from torch import Tensor

from imbcil.harness.batch import Sweep


def class_means(views: list[Tensor], kept: Sweep, n_classes: int) -> Tensor:
    """Normalised mean of each class's normalised features [n_classes, D], over all views [N, D] of the kept rows;
    zero for a class without a row."""
    total = torch.zeros(n_classes, views[0].shape[1])
    for features in views:
        total.index_add_(0, kept.pool.quota, F.normalize(features, dim=1))
    return F.normalize(total, dim=1)


def nearest_mean_scores(features: Tensor, means: Tensor) -> Tensor:
    """Minus the squared distance [B, K] of normalised features [B, D] to the class means [K, D]."""
    return -torch.cdist(F.normalize(features, dim=1), means).square()
