"""Algorithm 1 on any device, a whole batch at a time and without waiting for the device.

The law is that of `gmm.TaskDistribution`: means uniform on [-5, 5]^d, redrawn until no two have a cosine
above 0.8; weights uniform on [0.2, 0.8], then divided by their sum.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

RANGE, MAX_COSINE, WEIGHTS = 5.0, 0.8, (0.2, 0.8)


class Group(NamedTuple):
    """Tasks with the same K: X (b, N, d), labels (b, N), weights (b, K), means and scales (b, K, d)."""

    X: Tensor
    labels: Tensor
    weights: Tensor
    means: Tensor
    scales: Tensor | None


@lru_cache
def acceptance(d: int, K: int) -> float:
    """Share of the sets of K means in dimension d that are kept, from 20000 draws with a fixed seed."""
    rng = np.random.default_rng(0)
    means = rng.uniform(-1, 1, (20_000, K, d))
    directions = means / np.linalg.norm(means, axis=2, keepdims=True)
    cosines = directions @ directions.transpose(0, 2, 1) - 2 * np.eye(K)
    return float((cosines.max(axis=(1, 2)) <= MAX_COSINE).mean())


def candidates(b: int, d: int, K: int) -> int:
    """Sets of means to draw so that b are kept, but for a chance of 1e-4: a normal bound on the count."""
    share = acceptance(d, K)
    if share == 0:
        raise ValueError(f"no {K} means in dimension {d} have pairwise cosines at most {MAX_COSINE}")
    return math.ceil(((3.8 + math.sqrt(14.5 + 4 * b)) / 2) ** 2 / share) + 4


def sample_means(b: int, d: int, K: int, generator: torch.Generator) -> Tensor:
    """b sets of means, (b, K, d).  Should fewer be kept, kept ones are used twice."""
    means = _uniform((candidates(b, d, K), K, d), -RANGE, RANGE, generator)
    directions = means / means.norm(dim=2, keepdim=True)
    cosines = directions @ directions.mT - 2 * torch.eye(K, device=means.device)
    kept = cosines.amax(dim=(1, 2)) <= MAX_COSINE
    order = torch.argsort(kept.logical_not().to(torch.uint8), stable=True)
    place = torch.arange(b, device=means.device) % kept.sum().clamp(min=1)
    return means[order[place]]


def sample_group(
    b: int, N: int, d: int, K: int, generator: torch.Generator, *, anisotropic: bool = False
) -> Group:
    """b tasks of N samples of K components in dimension d, on the generator's device."""
    means = sample_means(b, d, K, generator)
    weights = _uniform((b, K), *WEIGHTS, generator)
    weights = weights / weights.sum(dim=1, keepdim=True)
    labels = torch.multinomial(weights, N, replacement=True, generator=generator)
    own = labels[:, :, None].expand(-1, -1, d)
    noise = torch.randn((b, N, d), generator=generator, device=generator.device)
    scales = None
    if anisotropic:
        scales = torch.nn.functional.softplus(_uniform((b, K, d), -1, 1, generator))
        noise = noise * scales.gather(1, own)
    return Group(means.gather(1, own) + noise, labels, weights, means, scales)


def _uniform(shape: tuple[int, ...], low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator, device=generator.device)
