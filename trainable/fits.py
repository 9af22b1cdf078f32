"""Every way to fit a mixture that the tables compare, by name, and what is measured of a fit."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gmm import (
    GaussianMixture,
    clustering_accuracy,
    converge,
    fit_em,
    fit_spectral,
    l2_error,
    match_components,
    start_mixture,
)
from gmm.tasks import Task
from trainable.network import Network
from trainable.predict import estimate
from trainable.refine import refined

LABELS = {
    "oracle": "labels known",
    "em_normal": "EM, start N(0, I)",
    "em_one": "EM, one k-means++ start",
    "em_best": "EM, best of 10",
    "spectral": "spectral",
    "raw": "TGMM",
    "refined": "TGMM, then constructed EM",
}
"""Name of each fit, and how tables and pictures call it."""

TRAINED = ("raw", "refined")
"""Those that need a network."""


class Errors(NamedTuple):
    """Of one fit on one task: the paper's l2-error, the share of samples put to the right component, the
    mean log-density of the samples (nats), and whether some mean is off by more than one noise level in each
    coordinate (in the root mean square).  NaN where there is no fit."""

    l2: float
    accuracy: float
    log_likelihood: float
    missed: float


class Passes(NamedTuple):
    """How a network is used: images of the data whose likeliest estimate is refined, and EM iterations."""

    copies: int = 4
    refine: int = 5


DEFAULT = Passes()


def errors(fit: GaussianMixture, task: Task) -> Errors:
    """What is measured."""
    difference = fit.means[match_components(fit, task.mixture)] - task.mixture.means
    return Errors(
        l2_error(fit, task.mixture),
        clustering_accuracy(fit, task.X, task.labels),
        fit.log_likelihood(task.X),
        float((difference**2).mean(axis=1).max() > 1),
    )


NO_FIT = Errors(math.nan, math.nan, math.nan, 1.0)


def fit_task(
    name: str, task: Task, rng: np.random.Generator, network: Network | None = None, passes: Passes = DEFAULT
) -> GaussianMixture | None:
    """The fit of that name on a task; None where the method has none at all (spectral for K > d)."""
    X, K = task.X, task.mixture.n_components
    if name == "oracle":
        return oracle(task)
    if name.startswith("em_"):
        start, n_init = {"em_normal": ("normal", 1), "em_one": ("kmeans++", 1), "em_best": ("kmeans++", 10)}[
            name
        ]
        if task.mixture.scales is not None:
            return _em_with_scales(X, K, n_init, rng, start)
        return fit_em(X, K, n_init=n_init, rng=rng, start=start)  # type: ignore[arg-type]
    if name == "spectral":
        if X.shape[1] < K:
            return None
        return _spectral(X, K, rng)
    assert network is not None
    if name == "raw":
        return estimate(network, X, K, rng)
    found = estimate(network, X, K, rng, copies=passes.copies)
    return refined(X, found, passes.refine)


def oracle(task: Task) -> GaussianMixture:
    """Shares and averages (and deviations) of the labelled samples; a component without any is at 0."""
    X, labels, truth = task
    K = truth.n_components
    parts = [X[labels == k] for k in range(K)]
    means = np.array([part.mean(axis=0) if len(part) else np.zeros(X.shape[1]) for part in parts])
    scales = None
    if truth.scales is not None:
        deviations = [part.std(axis=0) if len(part) > 1 else np.ones(X.shape[1]) for part in parts]
        scales = np.maximum(deviations, 1e-6)
    return GaussianMixture(np.bincount(labels, minlength=K) / len(X), means, scales)


def _spectral(X: NDArray[np.float64], K: int, rng: np.random.Generator) -> GaussianMixture:
    """The algorithm's K components; where a sample's moments give only fewer, the data's mean for the others,
    with equal shares."""
    for found in range(K, 0, -1):
        with warnings.catch_warnings(), contextlib.suppress(ValueError):
            warnings.simplefilter("ignore")  # a best effort says that it is one
            fit = fit_spectral(X, found, rng=rng, best_effort=True)
            break
    else:
        found, fit = 0, GaussianMixture(np.ones(1), X.mean(axis=0, keepdims=True))
    rest = K - found
    if rest == 0:
        return fit
    weights = np.append(fit.weights[:found] * found / K, np.full(rest, 1 / K))
    means = np.append(fit.means[:found], np.tile(X.mean(axis=0), (rest, 1)), axis=0)
    return GaussianMixture(weights / weights.sum(), means)


def _em_with_scales(
    X: NDArray[np.float64], K: int, n_init: int, rng: np.random.Generator, start: str
) -> GaussianMixture:
    """The likeliest of the runs in which no component collapses; the last start if all do."""
    fits = []
    for _ in range(n_init):
        first = start_mixture(X, K, rng, start)  # type: ignore[arg-type]
        first = GaussianMixture(first.weights, first.means, np.ones_like(first.means))
        try:
            fits.append(converge(X, first, max_iter=500, tol=1e-8))
        except ValueError:
            continue
    return max(fits, key=lambda fit: fit.log_likelihood(X), default=first)


class Summary(NamedTuple):
    """Mean over tasks, and half the width of its 95% interval."""

    mean: float
    half_width: float


def summarise(values: Sequence[float]) -> Summary:
    """NaN in, NaN out."""
    array = np.asarray(values)
    return Summary(float(array.mean()), float(1.96 * array.std(ddof=1) / math.sqrt(len(array))))
