"""k-means on a few hundred features of one class, drawn from a keyed generator."""

import torch
from torch import Tensor


def kmeans(points: Tensor, k: int, generator: torch.Generator, rounds: int = 30) -> Tensor:
    """k centres [k, D] of points [n, D], n >= 1: k-means++ seeding, then Lloyd's rounds until nothing moves. CPU.

    With fewer points than centres the points are repeated with 1 % noise, so that no two centres are equal and
    later learn alike.
    """
    if len(points) < k:
        repeated = points.repeat(-(-k // len(points)), 1)[:k]
        noise = torch.randn(repeated.shape, generator=generator, dtype=points.dtype)
        noise[: len(points)] = 0
        jittered: Tensor = repeated + 0.01 * points.norm(dim=1).mean() / points.shape[1] ** 0.5 * noise
        return jittered
    centres = _seeds(points, k, generator)
    for _ in range(rounds):
        owner = torch.cdist(points, centres).argmin(dim=1)
        sizes = torch.bincount(owner, minlength=k).unsqueeze(1)
        sums = torch.zeros_like(centres).index_add_(0, owner, points)
        moved = torch.where(sizes > 0, sums / sizes.clamp(min=1), centres)
        if torch.equal(moved, centres):
            break
        centres = moved
    return centres


def _seeds(points: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Each next seed with probability proportional to its squared distance from the nearest seed so far."""
    chosen = [int(torch.randint(len(points), (1,), generator=generator))]
    gap = torch.full((len(points),), torch.inf, dtype=points.dtype)
    for _ in range(k - 1):
        gap = torch.minimum(gap, (points - points[chosen[-1]]).square().sum(dim=1))
        weight = gap if bool(gap.any()) else torch.ones_like(gap)  # all points are seeds or equal to one
        chosen.append(int(torch.multinomial(weight, 1, generator=generator)))
    return points[chosen].clone()
