"""What re-balancing losses share: class weights and weighted means, as pure functions of tensors."""

import torch
from torch import Tensor


def effective_number_weights(counts: Tensor, beta: float) -> Tensor:
    """w_c = (1 - beta) / (1 - beta^n_c) from rows per class [K], scaled so that the weights of the classes with a row
    sum to their number; a class without one keeps 1. Cui et al. 2019."""
    there = counts > 0
    power = torch.pow(torch.full_like(counts, beta, dtype=torch.float64), counts.clamp(min=1).double())
    weights = torch.where(there, (1 - beta) / (1 - power), 0.0)
    scaled = weights * there.sum() / weights.sum().clamp(min=1e-12)
    return torch.where(there, scaled, 1.0).to(counts.dtype)


def weighted(losses: Tensor, weights: Tensor, targets: Tensor) -> Tensor:
    """Losses times class weights [K]. [B] with labels 0..K-1: divided by the batch mean of the weights, so that the
    mean is torch's weighted one; [B, K] with several labels an image: each column times its weight."""
    if losses.ndim == 2:
        return losses * weights
    own = weights[targets]
    return losses * own / own.mean()


def focal(losses: Tensor, gamma: float) -> Tensor:
    """(1 - p)^gamma times losses -log p, element by element. Lin et al. 2017."""
    missing: Tensor = (1 - torch.exp(-losses)).clamp(min=1e-12)
    return missing.pow(gamma) * losses


def prior(counts: Tensor) -> Tensor:
    """Shares of the classes [K] among the rows; a class without a row competes as if it had one."""
    filled = counts.clamp(min=1)
    return filled / filled.sum()
