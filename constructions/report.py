"""What a run of the EM construction means: its gap to EM, the bound on it, error and likelihood."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from constructions.bounds import StepBound, em_step_bound, propagate
from constructions.construction import Estimate
from constructions.em import EMTransformer
from constructions.weights import Array
from gmm import GaussianMixture, em_jacobian, em_step, parameter_distance

_FLOOR_STEPS = 1000


class Iteration(NamedTuple):
    """One line of a report.

    em_gap: largest |d mu_k| or |d pi_k| between the construction and EM from the same start.
    bound: first-order bound on it (`bounds.propagate`), inf where there is none.
    error, em_error: Theorem C.1's distance of either to the truth, nan without a truth.
    log_likelihood: of the construction's estimate, mean per sample, nats.
    """

    iteration: int
    em_gap: float
    bound: float
    error: float
    em_error: float
    log_likelihood: float


def em_gap(estimate: Estimate, mixture: GaussianMixture) -> float:
    """Largest |d mu_k| or |d pi_k|, component by component."""
    means = np.linalg.norm(estimate.means - mixture.means, axis=1)
    return float(max(means.max(), np.abs(estimate.weights - mixture.weights).max()))


def em_report(
    em: EMTransformer,
    X: Array,
    init: Any,
    estimates: Sequence[Estimate],
    truth: GaussianMixture | None = None,
) -> list[Iteration]:
    """Hold the estimates of `em.run(X, init, len(estimates))` against EM itself.

    Each iteration's bound is taken at the network's own state (`bounds.em_step_bound`) and carried
    on by the derivative of EM along EM's own path.  There is none from the first state on that
    leaves r_max or pi_min.
    """
    reference = GaussianMixture(np.asarray(init.weights), np.asarray(init.means))
    state: Any = reference
    path, jacobians, steps = [reference], [], []
    levels = [em.levels(X, first=True), em.levels(X, first=False)]
    for number, estimate in enumerate(tqdm(estimates, desc="reference EM", disable=_quick(X))):
        jacobians.append(em_jacobian(X, path[-1]))
        path.append(em_step(X, path[-1]))
        if em.outside(state):
            steps.append(StepBound.none(reference.n_components))
        else:
            resp = GaussianMixture(_normalised(state.weights), state.means).responsibilities(X)
            steps.append(em_step_bound(X, resp, levels[min(number, 1)]))
        state = estimate
    bounds = propagate(jacobians, steps)
    return [
        _line(number, estimate, mixture, bound, X, truth)
        for number, (estimate, mixture, bound) in enumerate(
            zip(estimates, path[1:], bounds, strict=True), start=1
        )
    ]


def _line(
    number: int,
    estimate: Estimate,
    mixture: GaussianMixture,
    bound: StepBound,
    X: Array,
    truth: GaussianMixture | None,
) -> Iteration:
    found = GaussianMixture(_normalised(estimate.weights), estimate.means)
    error = em_error = np.nan
    if truth is not None:
        error, em_error = parameter_distance(found, truth), parameter_distance(mixture, truth)
    likelihood = found.log_likelihood(X)
    return Iteration(number, em_gap(estimate, mixture), bound.largest, error, em_error, likelihood)


def statistical_floor(X: Array, truth: GaussianMixture) -> float:
    """Distance to the truth of the likelihood's maximum that EM reaches from the truth itself."""
    current, before = truth, -np.inf
    for _ in tqdm(range(_FLOOR_STEPS), desc="statistical floor", disable=_quick(X), leave=False):
        score = current.log_likelihood(X)
        if score - before < 1e-10:
            break
        before, current = score, em_step(X, current)
    return parameter_distance(current, truth)


def _normalised(weights: Array) -> Array:
    return weights / weights.sum()


def _quick(X: Array) -> bool | None:
    """Whether reference EM is too quick for a progress bar (None: show one on a terminal)."""
    return True if X.size < 10**6 else None
