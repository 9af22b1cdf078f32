"""Claims 48 and 50: the eps-term of Theorem C.1 against N, and the theorem from its conditions to (6)."""

import math

import numpy as np
import pytest
from scipy.stats import beta

from constructions import EMTransformer
from constructions.bounds import em_step_bound
from gmm import GaussianMixture, em_step, parameter_distance
from tests.claims.evidence import Found
from tests.claims.separated import separated, smallest_distance, starts
from tests.constructions.twins import broken


def network(N, exponent=-0.5):
    return EMTransformer(2, 3, eps=N**exponent, r_max=16, pi_min=0.02)


@pytest.mark.claim(48)
def test_the_eps_terms_against_n(claim):
    """Slope of the term in N: of the step's proved bound on real samples, and of what (C.1) prints."""
    truth, sizes = separated(2, 3, 3.0), (3000, 30_000, 300_000)
    d, R = 2, 2 * np.linalg.norm(truth.means, axis=1).max()
    data = [truth.sample(N, claim.rng)[0] for N in sizes]
    start = next(starts(truth, 0.5, 0.3, claim.rng))

    def proved(N, X, exponent):
        levels = network(N, exponent).levels(X, first=False)
        return em_step_bound(X, start.responsibilities(X), levels).means.max()

    def printed(N, X, exponent):
        return (1 / 0.02 + N * (R + d + math.sqrt(2 * d * math.log(40 * N)))) * N**exponent * d**-0.5

    def check(subject):
        term, exponent = subject
        values = [term(N, X, exponent) for N, X in zip(sizes, data, strict=True)]
        return Found(abs(np.polyfit(np.log(sizes), np.log(values), 1)[0] + 0.5), 0.05, len(sizes))

    claim.holds(check, (proved, -0.5))
    claim.holds(check, (printed, -1.5))
    claim.twin("the printed term with eps = N^(-1/2)", check, (printed, -0.5))
    claim.twin("eps = N^(-1/4)", check, (proved, -0.25))


@pytest.mark.claim(48)
def test_the_gap_to_em_with_eps_of_order_root_n(claim):
    """eps = N^(-1/2): the second step's distance from EM, over 4.2 sqrt(d / N)."""
    truth = separated(2, 3, 3.0)
    truth = GaussianMixture(truth.weights, truth.means + 2)  # off the centre: norms that differ

    def check(change):
        worst = 0.0
        for N in (300, 3000, 30_000):
            X, _ = truth.sample(N, claim.rng)
            start = next(starts(truth, 0.5, 0.3, claim.rng))
            first, second = change(network(N)).run(X, start, 2, mode="structured")
            gap = np.linalg.norm(second.means - em_step(X, first).means, axis=1).max()
            worst = max(worst, gap / (4.2 * math.sqrt(2 / N)))
        return Found(worst, 1, 3)

    claim.holds(check, lambda em: em)
    claim.twin("c with a tenth too much", check, lambda em: broken(em, "c with a tenth too much"))


@pytest.mark.slow
@pytest.mark.claim(50)
def test_theorem_c1_from_its_conditions(claim):
    """C = 6, a = 3/4, beta = 1/2, delta = 0.1: with c1 = 0.01, c3 = 0.05 and both eps-terms 4.2 sqrt(d) eps
    the two conditions hold, and from the boundary of (A1) so does (6) for L = 0..5 and after the warm-up
    D <= a, with probability 1 - delta: 100 tasks, Clopper-Pearson's upper end (99.9%) of the failures."""
    d, K, N, a, b, delta, tasks = 2, 3, 2000, 0.75, 0.5, 0.1, 100
    truth, eps = separated(d, K, 6.0), 5e-3
    truth = GaussianMixture(truth.weights, truth.means + 2)  # off the centre: norms that differ
    R_min = smallest_distance(truth)  # of an equilateral triangle
    R_max = max(R_min, np.linalg.norm(truth.means, axis=1).max())
    spread = (1 - a) * truth.weights.min()
    log_c = math.log(288 * K**2 * (math.sqrt(d) + 2 * R_max + 1 / (1 - a)) ** 2 * N / delta)
    boundary = list(starts(truth, R_min / 16, 0.5, claim.rng))
    em = EMTransformer(d, K, eps=eps, r_max=16, pi_min=0.02)

    def check(subject):
        net, c1, c3 = subject
        term = 4.2 * math.sqrt(d) * eps
        first = c1 / spread * math.sqrt(R_max * max(R_max, d) * math.log(24 * K / delta) / N) + term
        floor = c3 / spread * math.sqrt(K * d * log_c / N) + term
        failures = tasks
        if first < (a - 1 / 2) / 2 and floor < a * (1 - b):
            failures = 0
            for task in range(tasks):
                X, _ = truth.sample(N, claim.rng)
                path = net.run(X, boundary[task % len(boundary)], 6, mode="structured")
                found = [GaussianMixture(state.weights / state.weights.sum(), state.means) for state in path]
                D = [parameter_distance(state, truth) for state in found]
                failures += D[0] > a or any(D[L] > a * b**L + floor / (1 - b) for L in range(6))
        upper = 1.0 if failures == tasks else beta.ppf(0.999, failures + 1, tasks - failures)
        return Found(upper, delta, tasks, confidence=0.999)

    claim.rate(check, (em, 0.01, 0.05))
    claim.twin("no statistical term", check, (em, 0.0, 0.0))
    claim.twin("constants that break the conditions", check, (em, 0.1, 0.5))
    claim.twin("the printed sign of c", check, (broken(em, "printed E-step sign"), 0.01, 0.05))
    claim.twin("means weighted by exp w", check, (broken(em, "mean head weighs by w"), 0.01, 0.05))
