"""Claims 49 and 50: the rate in N, and the constant of the statistical term."""

import math

import numpy as np
import pytest
from scipy.stats import beta, t

from gmm import converge, parameter_distance
from tests.claims.evidence import Found
from tests.claims.separated import separated
from tests.test_figures import figure

rate, COMMITTED = figure("rate_in_n")


@pytest.mark.slow
@pytest.mark.claim(49)
@pytest.mark.parametrize(("d", "K"), rate.SIZES)
def test_the_rate_in_n(claim, d, K):
    """Slope of the mean log D^TF over 10 tasks for each N up to 3*10^4: within 0.08 of -1/2, and 0 within the
    99.9% interval of its deviation (t-test on the 50 points)."""
    sizes = [300, 1000, 3000, 10_000, 30_000]
    found = np.log(rate.distances(d, K, sizes, 10, claim.rng))
    x = np.repeat(np.log(sizes) - np.mean(np.log(sizes)), 10)
    y = found.flatten()
    slope = x @ y / (x @ x)
    rest = y - y.mean() - slope * x
    error = math.sqrt(rest @ rest / (len(y) - 2) / (x @ x))
    width = max(0.08, t.ppf(0.9995, len(y) - 2) * error)

    def check(wanted):
        return Found(abs(slope - wanted), width, len(y), confidence=0.999)

    claim.holds(check, -0.5)
    claim.twin("slope -1/4", check, -0.25)
    claim.twin("slope -1", check, -1.0)


@pytest.mark.claim(49)
def test_iterations_for_n(claim):
    """a beta^L <= N^(-1/2), and L / log N stays bounded."""

    def check(share):
        worst = 0.0
        for N in (10, 10**3, 10**6, 10**9):
            for b in (0.1, 0.5, 0.9):
                L = math.ceil(share * math.log(0.75 * math.sqrt(N)) / math.log(1 / b))
                worst = max(worst, 0.75 * b**L * math.sqrt(N), L * math.log(1 / b) / math.log(10 * N))
        return Found(worst, 1 + 1e-12, 12, confidence=0.999)

    claim.holds(check, 1.0)
    claim.twin("half as many", check, 0.5)


def test_the_rate_to_a_million():
    """The committed run of the heavy command."""
    found = COMMITTED
    assert found["N"][-1] == 10**6
    for row in found["rows"]:
        assert abs(rate.slope(found["N"], np.array(row["distances"])) - row["slope"]) < 1e-9
        assert abs(row["slope"] + 0.5) < 0.08


@pytest.mark.heavy
@pytest.mark.slow
def test_the_rate_to_a_million_again():
    found = COMMITTED
    for row in found["rows"]:
        rng = np.random.default_rng(found["seed"])
        again = rate.distances(row["d"], row["K"], found["N"], 10, rng)
        assert np.allclose(again, row["distances"], rtol=1e-6)


@pytest.mark.claim(50)
def test_a_constant_for_the_statistical_term(claim):
    """c sqrt(K d log(K N / delta) / N) / pi_min bounds D of the sample's maximum with probability 0.9: upper
    end of a Clopper-Pearson interval of 99.9% for the share of 200 samples that exceed it."""
    d, K, N, delta = 2, 3, 400, 0.1
    truth = separated(d, K, 5.0)
    D = [
        parameter_distance(converge(truth.sample(N, claim.rng)[0], truth, tol=1e-9), truth)
        for _ in range(200)
    ]

    def check(c):
        bound = c * math.sqrt(K * d * math.log(K * N / delta) / N) * K
        exceeded = sum(x > bound for x in D)
        upper = beta.ppf(0.999, exceeded + 1, 200 - exceeded)
        return Found(upper, delta, 200, confidence=0.999)

    claim.rate(check, 1.0)
    claim.twin("a constant of 1/100", check, 0.01)
