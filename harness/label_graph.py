"""Graphs over labels from co-occurrence, given and guessed: the pieces of AGCN's matrix (Du et al., ICME 2022, sec. 3)."""

import torch
from torch import Tensor


def conditional(positive: Tensor, known: Tensor) -> Tensor:
    """P(i | j) [k, k], zero for i = j: the share of images with label j that have label i, among those where i is known.
    positive, known: 0 or 1 [N, k]."""
    shares = positive.T @ positive / (known.T @ positive).clamp(min=1)
    return shares * (1 - torch.eye(len(shares), dtype=shares.dtype))


def across(soft: Tensor, positive: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """P(old i | new j) [K_old, k], the sum of soft labels q_i [N, K_old] over images with j by their number, and by Bayes
    P(new j | old i) [k, K_old], the same sum by that of all q_i where j is known."""
    joint = soft.T @ positive
    return joint / positive.sum(dim=0).clamp(min=1), (joint / (soft.T @ known).clamp(min=1e-12)).T


def linked(shares: Tensor, threshold: float, scale: float) -> Tensor:
    """Conditional probabilities from `threshold` on become links that share `scale` among a column's, the rest zero."""
    strong = (shares >= threshold).to(shares.dtype)
    return scale * strong / strong.sum(dim=0).clamp(min=1)


def normalised(graph: Tensor) -> Tensor:
    """D^-1/2 A^T D^-1/2, D the sums of A's rows (every row has a positive sum)."""
    root = graph.sum(dim=1).rsqrt()
    return root.unsqueeze(1) * graph.T * root
