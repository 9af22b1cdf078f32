"""The training objective: squared error on the means, cross-entropy on the weights, after matching.

Components have no order, so an estimate is compared with the truth under the permutation that fits its
means best, found among all K! by one gather.  `sorted` is the paper's way: components in the order of
their true weights, which nearly equal weights leave to chance.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import permutations
from typing import Literal

import torch
from torch import Tensor

from trainable.network import Estimates
from trainable.sampler import Group

Labels = Literal["matched", "sorted"]


@lru_cache
def _permutations(K: int, device: torch.device) -> Tensor:
    return torch.tensor(list(permutations(range(K))), device=device)


def match(means: Tensor, truth: Tensor) -> Tensor:
    """For each task the permutation p (b, K) that minimises sum_k |means[p[k]] - truth[k]|^2."""
    with torch.no_grad():
        cost = torch.cdist(truth.float(), means.float()) ** 2
        ways = _permutations(truth.shape[1], truth.device)
        places = torch.arange(truth.shape[1], device=truth.device)
        return ways[cost[:, places, ways].sum(dim=2).argmin(dim=1)]


def reorder(values: Tensor, order: Tensor) -> Tensor:
    """values[b, order[b, k]] for (b, K) or (b, K, d)."""
    index = order if values.ndim == 2 else order[:, :, None].expand(-1, -1, values.shape[2])
    return values.gather(1, index)


def estimate_loss(found: Estimates, truth: Group, labels: Labels = "matched") -> Tensor:
    """Mean over tasks of sum_k |d mu_k|^2 / (K d) + KL(pi, pi^), and the scales' squared error."""
    # The truth is put in the estimate's order: a sum over components is the same in any.
    matched = labels == "matched"
    order = match(truth.means, found.means) if matched else truth.weights.argsort(dim=1)
    weights = reorder(truth.weights, order)
    loss = ((found.means - reorder(truth.means, order)) ** 2).mean()
    loss = loss + (weights * (weights.log() - found.log_weights)).sum(dim=1).mean()
    if found.scales is not None and truth.scales is not None:
        loss = loss + ((found.scales - reorder(truth.scales, order)) ** 2).mean()
    return loss


def own_mean_loss(predicted: Tensor, truth: Group) -> Tensor:
    """Squared error of each sample's prediction (b, N, d) of the mean of its own component."""
    own = truth.means.gather(1, truth.labels[:, :, None].expand(-1, -1, truth.means.shape[2]))
    return ((predicted - own) ** 2).mean()


def l2_errors(found: Estimates, truth: Group) -> Tensor:
    """The paper's l2-error of each task (b,), mean over k of |d mu_k|^2 / d + (d pi_k)^2 after matching."""
    order = match(found.means, truth.means)
    means = ((reorder(found.means, order) - truth.means) ** 2).mean(dim=2)
    weights = (reorder(found.weights, order) - truth.weights) ** 2
    return (means + weights).mean(dim=1)


def oracle_errors(truth: Group) -> Tensor:
    """The same error of averages over the true labels (b,); a component without samples gets the mean 0."""
    one_hot = torch.nn.functional.one_hot(truth.labels, truth.weights.shape[1]).to(truth.X.dtype)
    counts = one_hot.sum(dim=1)
    means = one_hot.mT @ truth.X / counts.clamp(min=1)[:, :, None]
    weights = counts / truth.X.shape[1]
    return (((means - truth.means) ** 2).mean(dim=2) + (weights - truth.weights) ** 2).mean(dim=1)
