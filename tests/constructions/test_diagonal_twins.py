"""The bound on one diagonal step: by hand, against adversaries, and against broken twins."""

from itertools import islice

import numpy as np
import pytest

from constructions.diagonal_bounds import DiagonalLevels, diagonal_step_bound
from gmm import GaussianMixture
from tests.compare import assert_bound, assert_exact
from tests.constructions.diagonal_checks import naive_clipped_step, network, quiet_run, steps
from tests.constructions.diagonal_twins import (
    ENCODING_MISTAKES,
    LOOP_MISTAKES,
    STEP_MISTAKES,
    broken,
    corrupt,
)
from tests.problems import diagonal_case_of

EXACT = DiagonalLevels(
    square=0.0, floor=0.0, precision=0.0, log_v=0.0, log_pi=0.0, log_w=0.0, log_A=600.0,
    r_max=100.0, pi_min=1e-3, scale_min=0.05, scale_max=20.0,
)  # fmt: skip


# ---- the bound


def test_step_bound_by_hand():
    """Two samples, one component: p = 1/2 each, |X - mean| = 1, v = 1 and (X - mean)^2 - v = 0."""
    X, state = np.array([[-1.0], [1.0]]), GaussianMixture([1.0], [[0.3]], [[2.0]])
    bound = diagonal_step_bound(X, state, EXACT._replace(log_w=0.1))
    assert bound.weights[0] == 0
    moved = np.exp(0.1) * np.expm1(0.1)
    assert_exact(bound.means, [[moved]], ulps=64)
    assert_exact(bound.scales, [[1 - np.sqrt(1 - moved**2)]], ulps=256)
    bound = diagonal_step_bound(X, state, EXACT._replace(square=0.2, floor=0.01))
    assert bound.means[0, 0] == 0
    grown, shrunk = np.sqrt(np.exp(0.2) + 0.01) - 1, 1 - np.sqrt(1 - np.expm1(0.2) - 0.01)
    assert grown < shrunk
    assert_exact(bound.scales, [[shrunk]], ulps=64)
    bound = diagonal_step_bound(X, state, EXACT._replace(log_A=-0.1))
    assert np.isinf(bound.means).all()
    assert np.isinf(bound.scales).all()


@pytest.mark.parametrize(
    "left",
    [{"r_max": 1.0}, {"pi_min": 0.9}],
    ids=lambda left: next(iter(left)),
)
def test_there_is_no_bound_outside_the_bounds(left):
    X, state = np.array([[-1.0], [1.0]]), GaussianMixture([0.5, 0.5], [[0.3], [0.5]], [[2.0], [1.0]])
    assert all(np.isfinite(part).all() for part in diagonal_step_bound(X, state, EXACT))
    assert all(np.isinf(part).all() for part in diagonal_step_bound(X, state, EXACT._replace(**left)))


def worst_of(X, state, levels, rng, trials=150):
    """The largest errors of steps whose logits, logs and squares err by their levels, signs searched."""
    weights, means, scales = naive_clipped_step(X, state.weights, state.means, state.scales, 1e-9, 1e9)
    w = state.responsibilities(X)
    Q = (((X[:, None] - state.means) / state.scales) ** 2).sum(axis=2)
    eta = levels.log_pi + np.expm1(levels.square + levels.precision) * Q / 2
    eta += np.exp(levels.precision) * (levels.floor / state.scales**2).sum(axis=1) / 2
    errors = [np.zeros_like(part) for part in (weights, means, scales)]
    for trial in range(trials):
        k, j = rng.integers(len(weights)), rng.integers(X.shape[1])
        gaps = X[:, j] - means[k, j]
        side = (np.sign(gaps), np.sign(gaps**2 - scales[k, j] ** 2), np.ones(len(X)))[trial % 3]
        side = side[:, None] * rng.choice([-1, 1])
        moved = w * np.exp(np.where(np.arange(len(weights)) == k, 1, -1) * side * eta)
        moved /= moved.sum(axis=1, keepdims=True)
        v = moved * np.exp(levels.log_w * side)
        floor = np.exp(-levels.log_A)
        v = np.where(moved < floor, np.where(side > 0, np.exp(levels.log_w) * floor, 0.0), v)
        p = v / v.sum(axis=0)
        new = p.T @ X
        squares = (X[:, None] - new) ** 2
        up = rng.choice([-1, 1])
        squares = squares * np.exp(up * levels.square) + (up > 0) * levels.floor
        found = moved.mean(axis=0), new, np.sqrt(np.einsum("ik,ikj->kj", p, squares))
        for error, got, want in zip(errors, found, (weights, means, scales), strict=True):
            np.maximum(error, np.abs(got - want), out=error)
    return errors


@pytest.mark.parametrize(
    "changes",
    [
        {"log_pi": 0.05},
        {"log_w": 0.05},
        {"square": 0.02, "precision": 0.01},
        {"square": 0.03, "floor": 0.02, "log_pi": 0.02, "log_w": 0.01, "precision": 0.02},
        {"log_A": 5.0, "log_w": 0.01, "log_pi": 0.01},
    ],
    ids=lambda changes: " ".join(changes),
)
def test_step_bound_holds_for_adversarial_perturbations(changes):
    """The proposition without a network; the largest share of it that was found shows it is not vacuous."""
    rng, shares = np.random.default_rng(51), []
    levels = EXACT._replace(**changes)
    for _ in range(6):
        X, _, init = diagonal_case_of(int(rng.integers(1, 4)), int(rng.integers(1, 4)), 60, rng)
        bound = diagonal_step_bound(X, init, levels)
        for error, limit in zip(worst_of(X, init, levels, rng), bound, strict=True):
            decided = np.isfinite(limit)
            assert_bound(error[decided], limit[decided] + 1e-12)
            shares.append((error[decided] / (limit[decided] + 1e-12)).max())
    assert max(shares) > 0.5


# ---- broken twins


def tasks(count):
    rng = np.random.default_rng(52)
    found = (diagonal_case_of(int(rng.integers(1, 4)), int(rng.integers(2, 4)), 151, rng) for _ in range(99))
    # enough overlap for every part of a step to matter
    overlapping = (case for case in found if case.init.responsibilities(case.X).min(axis=1).mean() > 0.05)
    return list(islice(overlapping, count))


EASY = tasks(3)


def excess(estimates_of, depth=1):
    """By what largest factor the bound on iteration `depth` is exceeded."""
    factors = []
    for case in EASY:
        *_, last = steps(small(), case.X, case.init, estimates_of(case)[:depth])
        factors.append(max(last.shares))
    return max(factors)


def runs_of(em, depth=2):
    return lambda case: quiet_run(em, case.X, case.init, depth)


def small():
    return network(1e-4, 3, 3)


def test_the_tasks_for_twins_are_enough():
    assert len(EASY) == 3
    assert excess(runs_of(small())) <= 1
    assert excess(runs_of(small()), depth=2) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("mistake", STEP_MISTAKES)
def test_twins_that_break_the_first_step(mistake):
    assert excess(runs_of(broken(small(), mistake), depth=1)) > 100


@pytest.mark.slow
@pytest.mark.parametrize("mistake", LOOP_MISTAKES)
def test_twins_that_break_the_loop(mistake):
    assert excess(runs_of(broken(small(), mistake)), depth=2) > 100


@pytest.mark.parametrize("mistake", ENCODING_MISTAKES)
def test_twins_that_break_the_encoding(mistake):
    em = small()

    def estimates_of(case):
        K, d = case.init.means.shape
        H = corrupt(em, mistake, em.encode(case.X, case.init), K)
        return [em.readout(em.transformer(1)(H, "structured"), d, K)]

    assert excess(estimates_of) > 100
