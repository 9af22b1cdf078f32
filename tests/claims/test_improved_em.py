"""Improvements I1-I6 and I11: what the paper's bounds on EM can be sharpened to (docs/improved.md)."""

import math

import numpy as np
import pytest
from scipy.spatial.distance import pdist
from scipy.special import softmax

from constructions import EMTransformer, log_approximation, square_approximation
from constructions.bounds import Levels, em_step_bound
from constructions.piecewise import log_chord_gap, log_piece_length, log_pieces, square_pieces
from gmm import GaussianMixture, em_step
from tests.claims.em_problems import cases
from tests.claims.evidence import Found
from tests.claims.separated import separated
from tests.claims.test_perturbation import perturbed
from tests.compare import gap
from tests.constructions.test_piecewise import sup_error_to_log, sup_error_to_square


@pytest.mark.claim("I1")
def test_widths_of_logs(claim):
    """Certified error of the built function over delta, and its pieces over the least number."""

    def check(delta_of):
        worst = 0.0
        for A in (30.0, 1000.0):
            for delta in (0.3, 0.1, 0.03):
                f = log_approximation(A, delta_of(A, delta), width="minimax", upper=1.0, constant=False)
                fewest = math.ceil(math.log(A) / log_piece_length(2 * delta) - 1e-9)
                pieces = f.units if delta_of(A, delta) == delta else fewest
                worst = max(worst, float(sup_error_to_log(f)) / delta, pieces / fewest)
        return Found(worst, 1 + 1e-9, 6)

    def one_piece_fewer(A, delta):
        """The error that one piece fewer allows."""
        n = log_pieces(math.log(A), delta) - 1
        return log_chord_gap(math.log(A) / n) / 2

    claim.holds(check, lambda A, delta: delta)
    claim.twin("one piece fewer", check, one_piece_fewer)


@pytest.mark.claim("I1")
def test_no_line_is_closer_to_a_log(claim):
    """The best line on a piece of log-length h is parallel to the chord, by Chebyshev's alternation, and its
    error e(h)/2, so that no piece may be longer than h*."""

    def check(share):
        worst = 0.0
        for h in (0.01, 0.3, 2.0):
            x = np.exp(np.linspace(-h, 0, 20_001))
            slope = h / (1 - math.exp(-h))
            rest = np.log(x) - slope * x
            worst = max(worst, abs((rest.max() - rest.min()) / 2 / (share * log_chord_gap(h)) - 1))
        return Found(worst, 1e-3, 3)

    claim.holds(check, 0.5)
    claim.twin("e(h)/4", check, 0.25)


@pytest.mark.claim("I1")
def test_widths_of_squares(claim):
    def check(change):
        worst = 0.0
        for A in (1.0, 5.0):
            for delta in (0.1, 0.011):
                n = square_pieces(A, delta)
                least = math.ceil(A / math.sqrt(2 * delta) - 1e-9)
                allowed = delta if change == 0 else (A / (n - 1)) ** 2 / 2 * (1 + 1e-9)
                f = square_approximation(A, allowed, width="minimax")
                worst = max(worst, float(sup_error_to_square(f)) / delta, n / least)
        return Found(worst, 1 + 1e-9, 4)

    claim.holds(check, 0)
    claim.twin("one piece fewer", check, 1)


@pytest.mark.claim("I2")
def test_softmax_perturbation(claim):
    """Largest change over the bound, in both norms; two equal weights attain it."""

    def check(bound):
        worst, count = 0.0, 0
        for z, change, e in perturbed(claim.rng, 300):
            difference = np.abs(softmax(z + change) - softmax(z))
            worst = max(worst, difference.max() / bound(e), difference.sum() / 2 / bound(e))
            count += 2
        return Found(worst, 1 + 1e-9, count)

    claim.holds(check, lambda e: math.tanh(e / 2))
    claim.twin("99.9% of it", check, lambda e: 0.999 * math.tanh(e / 2))


@pytest.mark.claim("I3")
def test_weighted_averages(claim):
    """n = 2 to 2000 points in the plane; signs of the perturbation along a direction."""

    def check(factor):
        worst, count = 0.0, 0
        for n in (2, 2, 10, 100, 2000):
            for e in (1e-2, 0.5):
                for _ in range(20):
                    X = claim.rng.standard_normal((n, 2)) * claim.rng.choice([1.0, 5.0])
                    z = np.zeros(n) if n == 2 else claim.rng.standard_normal(n)
                    along = X @ claim.rng.standard_normal(2)
                    cut = np.quantile(along, 0.5)
                    p, q = softmax(z), softmax(z + np.where(along > cut, e, -e))
                    diameter = pdist(X).max()
                    worst = max(worst, np.linalg.norm((q - p) @ X) / diameter / (factor * math.tanh(e / 2)))
                    count += 1
        return Found(worst, 1 + 1e-9, count)

    claim.holds(check, 1.0)
    claim.twin("99% of it", check, 0.99)


def perturbed_step(case, eta, eps, rng):
    """An EM step with logits off by +-eta and log-weights by +-eps, signs against a random direction."""
    n, K = len(case.X), case.init.n_components
    along = np.sign(case.X @ rng.standard_normal(case.X.shape[1]))[:, None]
    signs = along * rng.choice([-1, 1], K)
    logits = np.log(case.init.responsibilities(case.X)) + eta * signs
    w = softmax(logits, axis=1)
    v = w * np.exp(eps * signs)
    return w.mean(axis=0), (v.T @ case.X) / v.sum(axis=0)[:, None], n


@pytest.mark.claim("I4")
def test_one_step(claim):
    """Relative weights and means, as shares of their bounds; 40 problems, four levels."""

    def check(share):
        worst, count = 0.0, 0
        for case in cases(claim.rng, 40):
            resp, after = case.init.responsibilities(case.X), em_step(case.X, case.init)
            for eta, eps in ((1e-3, 1e-3), (0.05, 0.1), (0.2, 0.05), (0.0, 0.3)):
                pi, mu, _ = perturbed_step(case, eta, eps, claim.rng)
                t = share * (2 * eta + eps)
                if eta:
                    off = np.abs(pi / after.weights - 1).max()
                    worst = max(worst, off / math.expm1(share * 2 * eta))
                for k in range(len(mu)):
                    p = resp[:, k] / resp[:, k].sum()
                    s = p @ np.linalg.norm(case.X - after.means[k], axis=1)
                    off = np.linalg.norm(mu[k] - after.means[k])
                    worst, count = max(worst, off / (math.exp(t) * math.expm1(t) * s)), count + 1
        return Found(worst, 1, count)

    claim.holds(check, 1.0)
    claim.twin("t / 4", check, 0.25)


@pytest.mark.filterwarnings("ignore:.*leaves the bound")
@pytest.mark.claim("I5")
def test_truncated_range(claim):
    """Clusters up to R = 120 apart, where responsibilities underflow to 0, log A from 6 to 20: the error of a
    step over its bound, with and without the truncation's term."""

    def check(truncated):
        worst, count = 0.0, 0
        for R in (2.0, 6.0, 30.0, 120.0):
            for log_A in (6.0, 10.0, 20.0):
                truth = GaussianMixture([0.3, 0.7], [[0.0, 0.0], [R, 0.0]])
                init = GaussianMixture([0.5, 0.5], truth.means + 0.5)
                X, _ = truth.sample(400, claim.rng)
                em = EMTransformer(2, 2, eps=1e-5, r_max=256, pi_min=0.05, log_A=log_A)
                (got,), want = em.run(X, init, 1), em_step(X, init)
                eta, eps, _, average = em.levels(X, first=True)
                levels = Levels(eta, eps, log_A if truncated else 200.0, average)
                bound = em_step_bound(X, init.responsibilities(X), levels)
                off = np.linalg.norm(got.means - want.means, axis=1) / bound.means
                worst, count = max(worst, float(off.max())), count + 1
        return Found(worst, 1, count)

    claim.holds(check, True)
    claim.twin("without its term", check, False)


@pytest.mark.claim("I6")
def test_errors_of_the_log_cancel(claim):
    """error(1) - error(w) on the last piece, s the chord's slope there: in [0, (s - 1)(1 - w)]."""

    def check(factor):
        worst = 0.0
        for delta in (1e-1, 1e-2, 1e-3):
            f = log_approximation(1e4, delta, width="minimax", upper=1.0, constant=False)
            h = math.log(1e4) / f.units
            s = h / (1 - math.exp(-h))
            w = np.linspace(math.exp(-h), 1, 500)[:-1]
            share = (f(np.ones(1))[0] - f(w) + np.log(w)) / ((s - 1) * (1 - w))
            worst = max(worst, float(share.max()) / factor, 1e9 * float(-share.min()))
        return Found(worst, 1 + 1e-6, 3)

    claim.holds(check, 1.0)
    claim.twin("half the bound", check, 0.5)


@pytest.mark.claim("I6")
def test_errors_are_exponentially_small(claim):
    """First step of the network over the bound with min(2 delta, (s - 1)(1 - w)), for separations 2 to 8."""

    def check(factor):
        worst = 0.0
        for C in (2.0, 4.0, 6.0, 8.0):
            truth = separated(2, 2, C)
            X, _ = truth.sample(300, claim.rng)
            em = EMTransformer(2, 2, eps=1e-2, r_max=16, pi_min=0.05, log_A=100.0)
            (got,), want = em.run(X, truth, 1), em_step(X, truth)
            f = em.approximations[0]
            h = em.range_log / f.units
            s = h / (1 - math.exp(-h))
            w = truth.responsibilities(X)
            size = np.minimum(2 * f.closed_form, (s - 1) * (1 - w))
            for k in range(2):
                lengths = np.linalg.norm(X - want.means[k], axis=1)
                bound = (
                    math.exp(2 * f.closed_form) * (w[:, k] * np.expm1(size[:, k])) @ lengths / w[:, k].sum()
                )
                off = np.linalg.norm(got.means[k] - want.means[k])
                worst = max(worst, off / (factor * bound + 1e-12))
        return Found(worst, 1, 8)

    claim.holds(check, 1.0)
    claim.twin("a hundredth of it", check, 0.01)


@pytest.mark.claim("I11")
def test_softmax_pooling(claim):
    """Weights off o_k: at most (n - n_k) / n_k e^(-kappa) for n_k tokens of component k among n."""

    def check(factor):
        worst, count = 0.0, 0
        for N, K in ((4, 4), (10, 4), (61, 3), (7, 5)):
            em = EMTransformer(2, 5, eps=1e-2, r_max=16, pi_min=0.01)
            weights = claim.rng.dirichlet(np.full(K, 5.0))
            start = GaussianMixture(weights, 3 * claim.rng.standard_normal((K, 2)))
            H = em.encode(claim.rng.standard_normal((N, 2)), start)
            em.layout.put(H, "pi", start.weights)
            counts = np.bincount(np.arange(N) % K)
            for kappa in (2.0, 5.0, 10.0):
                pooling = em.pooling(2, K, N)
                O = em.pool(H, pooling._replace(Qo=pooling.Qo / np.abs(pooling.Qo).max() * kappa))
                spread = np.linalg.norm(start.means[:, None] - start.means[None], axis=2).max()
                off = np.linalg.norm(O[K:].T - start.means, axis=1)
                bound = ((N - counts) / counts).max() * math.exp(-kappa) * spread
                worst, count = max(worst, off.max() / (factor * bound)), count + 1
            worst = max(worst, gap(em.readout(H, 2, K).means, start.means) / 1e-12)
        return Found(worst, 1, count)

    claim.holds(check, 1.0)
    claim.twin("a tenth of it", check, 0.1)
