"""What runs of the constructions mean, beside the classical algorithms.

`em_report`: the gap to EM, the bound on it, error and likelihood.  `SpectralReference`: how far each layer
of the spectral construction is from Algorithms A.2 and A.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from constructions.bounds import StepBound, em_step_bound, propagate
from constructions.construction import Estimate
from constructions.em import EMTransformer
from constructions.spectral import SpectralTransformer
from constructions.weights import Array
from gmm import (
    GaussianMixture,
    em_jacobian,
    em_step,
    empirical_moments,
    parameter_distance,
    power_step,
)

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
    leaves r_max or pi_min.  All of it is about the samples that the network reads (`EMTransformer.kept`).
    """
    reference = GaussianMixture(np.asarray(init.weights), np.asarray(init.means))
    X = X[: em.kept(len(X), reference.n_components)]
    state: Any = reference
    path, jacobians, steps = [reference], [], []
    levels = [em.levels(X, first=True), em.levels(X, first=False)]
    for number, estimate in enumerate(tqdm(estimates, desc="reference EM", disable=_quick(X))):
        jacobians.append(em_jacobian(X, path[-1]))
        path.append(em_step(X, path[-1]))
        if em.outside(state, X):
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


class Mark(NamedTuple):
    """What a layer leaves and how far that is from Algorithms A.2 and A.3, relative to its size.

    `what` names a subspace of the stream and what it holds.
    """

    layer: int
    stage: str
    component: int | None
    what: str
    error: float


class SpectralReference:
    """Algorithms A.2 and A.3 on samples X (n, d), at each point that a layer of the network reaches."""

    def __init__(self, net: SpectralTransformer, X: Array, K: int) -> None:
        self.net, self.read, self.K, self.d = net, net.reader, K, X.shape[1]
        moments = empirical_moments(X)
        sizes, U = np.linalg.eigh(moments.m2)
        sizes, U = sizes[::-1][:K], U[:, ::-1][:, :K]
        self.matrices = {
            "A": moments.m2,
            "P": U @ U.T,
            "Y": (U * sizes**0.5) @ U.T,
            "Z": (U / sizes**0.5) @ U.T,
            "G": (U / sizes) @ U.T,
        }
        self.whitened = X @ self.matrices["Z"]
        self.tensor = moments.m3
        for _ in range(3):  # contracts the first index and puts the new one last
            self.tensor = np.tensordot(self.tensor, self.matrices["Z"], axes=(0, 0))
        self.v = np.zeros((1, self.d))
        self.weights, self.means = np.zeros(K), np.zeros((K, self.d))

    def marks(self, number: int, tokens: Any) -> list[Mark]:
        """What layer `number` leaves in `tokens`, where the algorithms have something to compare with."""
        step = self.net.steps[number - 1]
        after = self.net.steps[number].stage if number < len(self.net.steps) else None
        if step.component is not None and step.component >= self.K:
            return []
        found = self._seen(step.stage, step.component, step.stage != after, number, tokens)
        return [Mark(number, step.stage, step.component, what, error) for what, error in found]

    def _seen(
        self, stage: str, k: int | None, last: bool, number: int, tokens: Any
    ) -> list[tuple[str, float]]:
        if stage in ("moments", "sign", "root", "whiten"):
            return self._matrices(stage, last, tokens)
        if k is not None:
            return self._component(stage, k, last, number, tokens)
        if stage == "slot":
            found = self.net.readout(tokens, self.d, self.K)
            weights = np.minimum(self.weights, 1) / np.minimum(self.weights, 1).sum()
            return [
                ("slot: means mu_k", _off(found.means, self.means)),
                ("pis: weights pi_k", _off(found.weights, weights)),
            ]
        return []

    def _matrices(self, stage: str, last: bool, tokens: Any) -> list[tuple[str, float]]:
        want = self.matrices
        if stage == "moments":
            return [("A: second moment M2", self._stored(tokens, "A", want["A"]))]
        if stage == "sign":
            S = 2 * want["P"] - np.eye(self.d)
            name, matrix = ("P: projector U U^T", want["P"]) if last else ("S: sign of M2 - tau", S)
            return [(name, self._stored(tokens, name[0], matrix))]
        if stage == "root":
            scale = 1.0 if last else self.net.limits.sigma_max**0.5
            return [("Z: W = U D^(-1/2) U^T", self._stored(tokens, "Z", scale * want["Z"]))]
        return [
            ("xt: whitened samples W X", _off(self.read.own(tokens, "xt")[:, : self.d], self.whitened)),
            ("G: W W^T", self._stored(tokens, "G", want["G"])),
        ]

    def _component(self, stage: str, k: int, last: bool, number: int, tokens: Any) -> list[tuple[str, float]]:
        restarts = range(len(self.v))
        if stage == "start":
            starts = self.net.starts[k][:, : self.d] @ self.matrices["P"]
            self.v = starts / np.linalg.norm(starts, axis=1, keepdims=True)
            return [("v: start P g", self._directions(tokens, range(len(self.v))))]
        if stage == "power":
            if self.read.replicated(tokens, "c0").any() or self.read.replicated(tokens, "f0").any():
                return []  # in the middle of a step
            self.v = power_step(self.tensor, self.v)
            self.v /= np.linalg.norm(self.v, axis=1, keepdims=True)
            return [("v: direction after a power step", self._directions(tokens, restarts))]
        if stage == "normalise":
            lengths = [np.linalg.norm(self.read.replicated(tokens, f"v{r}")) for r in restarts]
            return [("v: |v| = 1", float(np.abs(np.array(lengths) - 1).max()))]
        if stage in ("scores", "value") and last:
            t = np.einsum("rd,rd->r", power_step(self.tensor, self.v), self.v)
            got = np.array([self.read.replicated(tokens, f"t{r}")[0] for r in restarts])
            if stage == "scores":
                self.v = self.v[[int(t.argmax())]]
                return [("t: T(v, v, v) of every start", _off(got, t))]
            v = self.v[0]
            self.weights[k], self.means[k] = t[0] ** -2, t[0] * self.matrices["Y"] @ v
            self.tensor = self.tensor - t[0] * np.einsum("i,j,k->ijk", v, v, v)
            return [("t: eigenvalue lambda_k", _off(got, t))]
        if stage == "tournament" and last:
            return [("v: the best start", self._directions(tokens, restarts))]
        return []

    def _stored(self, tokens: Any, name: str, want: Array) -> float:
        return _off(self.read.stored(tokens, name)[: self.d, : self.d], want)

    def _directions(self, tokens: Any, restarts: range) -> float:
        got = np.array([self.read.replicated(tokens, f"v{r}")[: self.d] for r in restarts])
        return _off(got / np.linalg.norm(got, axis=1, keepdims=True), self.v)


def _off(got: Array, want: Array) -> float:
    """Largest difference of an entry, relative to the largest entry."""
    return float(np.abs(got - want).max() / np.abs(want).max())
