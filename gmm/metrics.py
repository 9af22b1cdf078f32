"""How far an estimate is from the truth, up to the order of its components."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment

from gmm.em import Init, as_mixture
from gmm.mixture import GaussianMixture


def _pair(estimate: Init, truth: Init) -> tuple[GaussianMixture, GaussianMixture]:
    found, wanted = as_mixture(estimate), as_mixture(truth)
    if found.means.shape != wanted.means.shape:
        raise ValueError(f"estimate has means of shape {found.means.shape}, the truth {wanted.means.shape}")
    return found, wanted


def match_components(estimate: Init, truth: Init) -> NDArray[np.intp]:
    """Permutation p such that `estimate.means[p]` is in the truth's order.

    It minimises sum_k |estimate.means[p[k]] - truth.means[k]|^2 by linear assignment (section 3.1).
    """
    found, wanted = _pair(estimate, truth)
    difference = wanted.means[:, None, :] - found.means[None, :, :]
    _, permutation = linear_sum_assignment((difference**2).sum(axis=2))
    return np.asarray(permutation)


def _aligned(estimate: Init, truth: Init) -> tuple[GaussianMixture, GaussianMixture]:
    found, wanted = _pair(estimate, truth)
    return found.permuted(match_components(found, wanted)), wanted


def l2_error(estimate: Init, truth: Init) -> float:
    """The paper's l2-error (section 3.1): mean over k of |d mu_k|^2 / d + (d pi_k)^2.

    Where both have scales, + |d sigma_k|^2 / d (Appendix E.1).
    """
    found, wanted = _aligned(estimate, truth)
    error = ((found.means - wanted.means) ** 2).mean(axis=1) + (found.weights - wanted.weights) ** 2
    if found.scales is not None and wanted.scales is not None:
        error = error + ((found.scales - wanted.scales) ** 2).mean(axis=1)
    return float(error.mean())


def parameter_distance(estimate: Init, truth: Init) -> float:
    """The D of Theorem C.1: max over k of |d mu_k| and |d pi_k| / pi*_k."""
    found, wanted = _aligned(estimate, truth)
    if wanted.weights.min() == 0:
        raise ValueError("parameter_distance needs a truth with positive weights, got a weight of 0")
    means = np.linalg.norm(found.means - wanted.means, axis=1)
    weights = np.abs(found.weights - wanted.weights) / wanted.weights
    return float(max(means.max(), weights.max()))


def clustering_accuracy(estimate: Init, X: ArrayLike, labels: ArrayLike) -> float:
    """Share of samples whose most likely component carries their label, labels matched to
    components one to one in the best way."""
    mixture = as_mixture(estimate)
    predicted = mixture.responsibilities(X).argmax(axis=1)
    truth = np.asarray(labels)
    if truth.shape != predicted.shape:
        raise ValueError(f"labels must have shape {predicted.shape}, got {truth.shape}")
    names, truth = np.unique(truth, return_inverse=True)
    counts = np.zeros((mixture.n_components, len(names)))
    np.add.at(counts, (predicted, truth), 1)
    return float(counts[linear_sum_assignment(-counts)].sum() / len(truth))
