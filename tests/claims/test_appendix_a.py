"""Claims 7-16: EM and the spectral algorithm as the paper states them."""

from fractions import Fraction

import numpy as np
import pytest
import sympy

from gmm import (
    GaussianMixture,
    em_step,
    empirical_moments,
    parameter_distance,
    power_step,
    robust_tensor_power,
    spectral_from_moments,
)
from gmm.whitening import whiten
from tests.claims.evidence import Found
from tests.compare import gap


def mixture(rng, d, K):
    """Weights away from zero and means in general position."""
    means = rng.standard_normal((K, d)) * 2
    return GaussianMixture(rng.dirichlet(np.full(K, 5.0)), means)


def moments(truth):
    """m1, M2 and M3 of the mixture without its noise."""
    pi, mu = truth.weights, truth.means
    return (
        pi @ mu,
        np.einsum("k,ki,kj->ij", pi, mu, mu),
        np.einsum("k,ki,kj,km->ijm", pi, mu, mu, mu),
    )


def naive_em_step(X, weights, means, sign):
    """Algorithm A.1 with loops."""
    K, d = means.shape
    w = np.zeros((len(X), K))
    for i, x in enumerate(X):
        p = [pi * np.exp(sign * ((x - mu) ** 2).sum() / 2) for pi, mu in zip(weights, means, strict=True)]
        w[i] = np.array(p) / sum(p)
    means = np.array([sum(w[i, k] * X[i] for i in range(len(X))) / w[:, k].sum() for k in range(K)])
    return GaussianMixture(w.sum(axis=0) / len(X), means.reshape(K, d))


@pytest.mark.claim(7)
def test_em_is_posterior_and_weighted_average(claim):
    def check(sign):
        worst, falls = 0.0, 0.0
        for K in (2, 3):
            truth = mixture(claim.rng, 2, K)
            X, _ = truth.sample(40, claim.rng)
            current = GaussianMixture(np.full(K, 1 / K), X[:K])
            for _ in range(10):
                want = naive_em_step(X, current.weights, current.means, sign)
                after = em_step(X, current)
                worst = max(worst, gap(after.means, want.means), gap(after.weights, want.weights))
                falls = max(falls, current.log_likelihood(X) - after.log_likelihood(X))
                current = after
        return Found(max(worst, falls), 1e-10, 20)

    claim.holds(check, -1.0)
    claim.twin("posterior with the sign of the exponent turned", check, 1.0)


def expectation(polynomial, xs, pi, mu):
    """E of a polynomial in X over sum_k pi_k N(mu_k, I), by the moments of a Gaussian."""
    total = 0
    for powers, coefficient in sympy.Poly(polynomial, *xs).terms():
        for k, weight in enumerate(pi):
            term = weight * coefficient
            for i, power in enumerate(powers):
                m = mu[k][i]
                term *= [1, m, m**2 + 1, m**3 + 3 * m][power]
            total += term
    return sympy.expand(total)


def symbols(d, K):
    xs = sympy.symbols(f"x:{d}")
    first = sympy.symbols(f"p:{K - 1}")
    pi = [*first, 1 - sum(first)]  # the last weight is what the others leave
    return xs, pi, [sympy.symbols(f"m{k}_:{d}") for k in range(K)]


@pytest.mark.claim(8)
def test_the_second_moment(claim):
    """As polynomials in pi and mu, for d = 2 and K = 2."""
    xs, pi, mu = symbols(2, 2)

    def check(noise):
        off = 0
        for i in range(2):
            for j in range(2):
                got = expectation(xs[i] * xs[j] - noise * int(i == j), xs, pi, mu)
                want = sum(w * m[i] * m[j] for w, m in zip(pi, mu, strict=True))
                off += sympy.expand(got - want) != 0
        return Found(off, 0, 4)

    claim.holds(check, 1)
    claim.twin("noise not taken out", check, 0)


@pytest.mark.claim(9)
def test_the_third_moment(claim):
    """The corrections are E[X] x e_i x e_i in all three places."""
    xs, pi, mu = symbols(2, 2)
    mean = [sum(w * m[i] for w, m in zip(pi, mu, strict=True)) for i in range(2)]

    def check(places):
        off = 0
        for i, j, m in np.ndindex(2, 2, 2):
            got = expectation(xs[i] * xs[j] * xs[m], xs, pi, mu)
            parts = [mean[i] * int(j == m), mean[j] * int(i == m), mean[m] * int(i == j)]
            want = sum(w * a[i] * a[j] * a[m] for w, a in zip(pi, mu, strict=True))
            off += sympy.expand(got - sum(parts[:places]) - want) != 0
        return Found(off, 0, 8)

    claim.holds(check, 3)
    claim.twin("one of the three corrections left out", check, 2)


@pytest.mark.claim(10)
def test_whitening(claim):
    def check(power):
        worst = 0.0
        for d, K in ((2, 2), (5, 3), (6, 6)):
            _, m2, _ = moments(mixture(claim.rng, d, K))
            found = whiten(m2, K)
            W = found.W if power < 0 else found.B
            worst = max(worst, gap(W.T @ m2 @ W, np.eye(K)))
        return Found(worst, 1e-9, 3)

    claim.holds(check, -0.5)
    claim.twin("U D^(1/2) in its place", check, 0.5)


@pytest.mark.claim(11)
def test_the_whitened_tensor(claim):
    def check(power):
        worst = 0.0
        for d, K in ((3, 2), (5, 3), (4, 4)):
            truth = mixture(claim.rng, d, K)
            _, m2, m3 = moments(truth)
            W = whiten(m2, K).W
            got = np.einsum("ijm,ia,jb,mc->abc", m3, W, W, W)
            v = truth.weights[:, None] ** 0.5 * (truth.means @ W)
            want = np.einsum("k,ka,kb,kc->abc", truth.weights**power, v, v, v)
            worst = max(worst, gap(v @ v.T, np.eye(K)), gap(got, want), 1 - (truth.weights**-0.5).min())
        return Found(worst, 1e-9, 3)

    claim.holds(check, -0.5)
    claim.twin("lambda_k = pi_k^(1/2)", check, 0.5)


@pytest.mark.claim(12)
def test_recovery_from_moments(claim):
    """The population's moments give the mixture back."""

    def check(scale):
        worst = 0.0
        for d, K in ((5, 3), (4, 4), (6, 6)):
            truth = mixture(claim.rng, d, K)
            m1, m2, m3 = moments(truth)
            found = spectral_from_moments(scale * m1, m2, scale * m3, K, rng=claim.rng)
            worst = max(worst, parameter_distance(found.mixture(), truth))
        return Found(worst, 1e-6, 3)

    claim.holds(check, 1.0)
    claim.twin("third moment half as large", check, 0.5)


@pytest.mark.claim(13)
def test_how_many_components_can_be_recovered(claim):
    """Whether moments alone give the mixture, against the rule; K = d is decided by exact recovery."""

    def recovers(d, K):
        truth = mixture(np.random.default_rng([d, K]), d, K)
        try:
            found = spectral_from_moments(*moments(truth), K, rng=claim.rng)
        except ValueError:
            return False
        return parameter_distance(found.mixture(), truth) < 1e-6

    def check(rule):
        cases = [(d, K) for d in (2, 3, 4) for K in (2, 3, 4, 5)]
        return Found(sum(recovers(d, K) != rule(d, K) for d, K in cases), 0, len(cases))

    claim.holds(check, lambda d, K: d >= K)
    claim.printed("K < d (introduction)", check, lambda d, K: d > K)
    claim.twin("one more than d", check, lambda d, K: d + 1 >= K)


@pytest.mark.claim(14)
def test_svd_may_pick_a_negative_direction(claim):
    """One sample X = (5/4, 0) with K = 1: M2^ = diag(9/16, -1).  Its largest singular value is that of the
    eigenvalue -1, and W = U |D|^(-1/2) has W^T M2^ W = -1."""
    X = [Fraction(5, 4), Fraction(0)]
    m2 = [[X[i] * X[j] - (i == j) for j in range(2)] for i in range(2)]

    def check(size):
        place = max(range(2), key=lambda i: size(m2[i][i]))
        whitened = m2[place][place] / abs(m2[place][place])
        return Found(abs(whitened - 1), 0, 1)

    claim.holds(check, lambda eigenvalue: eigenvalue)
    claim.printed("largest singular value", check, abs)


@pytest.mark.claim(14)
def test_how_often_the_svd_picks_it(claim):
    """Share of samples (d = 8, K = 3, N = 24, means within 1) whose top-3 singular directions have a negative
    eigenvalue; eigendecomposition has none among those that have three positive ones."""

    def check(order):
        bad = 0
        for _ in range(100):
            truth = GaussianMixture(np.full(3, 1 / 3), claim.rng.uniform(-1, 1, (3, 8)))
            X, _ = truth.sample(24, claim.rng)
            values = np.linalg.eigvalsh(empirical_moments(X).m2)
            chosen = sorted(values, key=order, reverse=True)[:3]
            bad += min(chosen) < 0 < sorted(values)[-3]
        return Found(bad, 0, 100)

    claim.holds(check, lambda value: value)
    claim.printed("singular values of 100 samples", check, abs)


def orthogonal_tensor(rng, d, K):
    v = np.linalg.qr(rng.standard_normal((d, K)))[0].T
    values = rng.uniform(1, 3, K)
    return np.einsum("k,ki,kj,km->ijm", values, v, v, v), values, v


@pytest.mark.claim(15)
def test_deflation_is_needed(claim):
    """K calls with the best of 20 starts: how many of the K components are never found."""

    def check(deflate):
        missing = 0
        for K in (2, 3, 4):
            T, values, _ = orthogonal_tensor(claim.rng, 4, K)
            found = []
            for _ in range(K):
                (value,), (vector,) = robust_tensor_power(T, 1, n_restarts=20, n_iter=40, rng=claim.rng)
                found.append(value)
                if deflate:
                    T = T - value * np.einsum("i,j,m->ijm", vector, vector, vector)
            missing += sum(np.abs(value - np.array(found)).min() > 1e-6 for value in values)
        return Found(missing, 0, 9)

    claim.holds(check, True)
    claim.printed("the same tensor in every call", check, False)


@pytest.mark.claim(16)
def test_power_iteration_recovers_orthogonal_tensors(claim):
    def check(step):
        worst = 0.0
        for d, K in ((3, 3), (5, 3), (6, 6)):
            T, values, vectors = orthogonal_tensor(claim.rng, d, K)
            got, directions = robust_tensor_power(T, K, n_restarts=20, n_iter=40, rng=claim.rng)
            order = [np.abs(directions @ v).argmax() for v in vectors]
            worst = max(worst, gap(got[order], values), gap(directions[order], vectors))
            worst = max(
                worst, *(gap(step(T, v), value * v) for v, value in zip(vectors, values, strict=True))
            )
        return Found(worst, 1e-8, 3, confidence=0.999)

    claim.holds(check, power_step)
    claim.twin("a step that sums over one index only", check, lambda T, v: np.einsum("ijj,j->i", T, v))


@pytest.mark.claim(16)
def test_the_error_from_samples_falls_with_the_root_of_n(claim):
    """Slope of log median error against log N over 20 samples for each N, with a 99% bootstrap interval; the
    whole interval has to lie within 0.15 of the rate."""
    truth = GaussianMixture([0.3, 0.3, 0.4], 2 * np.eye(3, 4) + 0.5)
    sizes = np.array([1000, 4000, 16_000, 64_000])
    _, _, m3 = moments(truth)
    errors = np.array(
        [
            [np.linalg.norm(empirical_moments(truth.sample(N, claim.rng)[0]).m3 - m3) for _ in range(20)]
            for N in sizes
        ]
    )

    def slope(sample):
        return np.polyfit(np.log(sizes), np.log(np.median(sample, axis=1)), 1)[0]

    draws = [slope(errors[:, claim.rng.integers(20, size=20)]) for _ in range(500)]

    def check(rate):
        low, high = np.quantile(draws, (0.005, 0.995))
        return Found(max(abs(low - rate), abs(high - rate)), 0.15, 80, confidence=0.99)

    claim.rate(check, -0.5)
    claim.twin("rate 1/4", check, -0.25)
    claim.twin("rate 1", check, -1.0)
