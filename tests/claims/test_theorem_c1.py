"""Claims 41-48, 51, 52: constants, sizes and conditions of Theorem C.1."""

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from constructions import EMTransformer
from gmm import em_step
from tests.claims.em_problems import cases, network, share_of_bound
from tests.claims.evidence import Found
from tests.claims.separated import separated, starts

pytestmark = pytest.mark.filterwarnings("ignore:.*leaves the bound")


@pytest.mark.claim(41)
def test_constants_double(claim):
    """c_n K / delta with delta / 2 in place of delta is c_{n+1} K / delta."""

    def check(halves):
        chains = [(6, 12, 24), (36, 72, 144, 288)]
        links = [(one, other) for chain in chains for one, other in pairwise(chain)]
        off = [Fraction(one) / Fraction(1, halves) != other for one, other in links]
        return Found(sum(off), 0, len(off))

    claim.holds(check, 2)
    claim.twin("a union over three events", check, 3)


@pytest.mark.claim(42)
def test_warm_up_and_contractions(claim):
    """Number of layers, and D after the first step from (A1)'s boundary at C = 8 with N = 3000."""

    def check(layers):
        L, worst = 5, 0.0
        for d, K in ((2, 2), (2, 3)):
            truth = separated(d, K, 8.0)
            em = EMTransformer(d, K, eps=1e-2, r_max=16, pi_min=0.05)
            worst = max(worst, abs(em.sizes(L + 1).layers - layers(L)))
            X, _ = truth.sample(3000, claim.rng)
            for start in starts(truth, 8.0 * np.sqrt(np.log(K)) / 16, 0.5, claim.rng):
                (first,) = em.run(X, start, 1)
                off = np.abs(first.weights / truth.weights - 1).max()
                worst = max(worst, off, np.linalg.norm(first.means - truth.means, axis=1).max())
        return Found(worst, 0.75, 40)

    claim.holds(check, lambda L: 2 * (L + 1))
    claim.twin("2L layers", check, lambda L: 2 * L)


@pytest.mark.claim(43)
def test_the_geometric_series(claim):
    """Over fractions, with equality in every step."""

    def check(floor):
        worst = Fraction(-1)
        for a in (Fraction(3, 4), Fraction(9, 10)):
            for beta in (Fraction(1, 10), Fraction(1, 2), Fraction(9, 10)):
                eps, D = a * (1 - beta) / 2, a
                for l in range(1, 20):
                    D = beta * D + eps
                    worst = max(worst, D - a * beta**l - floor(eps, beta), D - a)
        return Found(float(worst), 0, 114)

    claim.holds(check, lambda eps, beta: eps / (1 - beta))
    claim.twin("eps for eps/(1 - beta)", check, lambda eps, beta: eps)


@pytest.mark.claim(43)
def test_the_transformers_distance_obeys_it(claim):
    """C = 6, a = 0.75, beta = 1/2, eps = N^(-1/2): D^TF after l = 0..8 steps from the boundary of D_a, with
    0.5 sqrt(K d log N / N) / pi_min for eps(N, ...)."""

    def check(constant):
        worst = -np.inf
        for d, K in ((2, 2), (2, 3)):
            truth = separated(d, K, 6.0)
            for N in (500, 5000):
                em = EMTransformer(d, K, eps=N**-0.5, r_max=16, pi_min=0.02)
                X, _ = truth.sample(N, claim.rng)
                floor = constant * K * math.sqrt(K * d * math.log(N) / N)
                for start in list(starts(truth, 0.75, 0.75, claim.rng))[::5]:
                    path = [start, *em.run(X, start, 8)]
                    for l, state in enumerate(path):
                        D = np.linalg.norm(state.means - truth.means, axis=1).max()
                        D = max(D, np.abs(state.weights / truth.weights - 1).max())
                        worst = max(worst, D - 0.75 * 0.5**l - floor / 0.5)
        return Found(worst, 1e-12, 144)

    claim.holds(check, 0.5)
    claim.twin("no statistical term", check, 0.0)


def built_widths(d0, K0, R, eps):
    return EMTransformer(d0, K0, eps=eps, r_max=R, pi_min=1e-2).hidden_widths()


def printed_widths(d0, K0, R, eps):
    """C.6 and C.7: log A = K0 R (R + d0) in the E-MLP; A = (R + a)^2 and delta = eps / K in the M-MLP."""
    log_A, A = K0 * R * (R + d0), (R + 0.75) ** 2
    return K0 * (2 * log_A / eps + 1), d0 * (2 * A**2 * K0 / eps + 1)


@pytest.mark.claim(44)
def test_hidden_widths(claim):
    """Largest D' / (K0 R (R + d0) / eps)."""

    def check(widths):
        ratios = [
            max(widths(d0, K0, R, eps)) / (K0 * R * (R + d0) / eps)
            for d0, K0 in ((2, 2), (8, 4), (8, 16))
            for R in (10.0, 100.0, 1000.0)
            for eps in (1e-1, 1e-2, 1e-3)
        ]
        return Found(max(ratios), 4, len(ratios))

    claim.holds(check, built_widths)
    claim.printed("the M-MLP of C.7", check, printed_widths)
    claim.printed("the E-MLP of C.6", check, lambda *sizes: printed_widths(*sizes)[:1])


@pytest.mark.claim(45)
def test_norms(claim):
    """log |||Theta||| of networks that are built, as a share of the bound."""

    def check(bound):
        ratios = []
        for d0, K0 in ((1, 2), (4, 3), (8, 5)):
            for R in (4.0, 16.0):
                for eps in (1e-1, 1e-3):
                    em = EMTransformer(d0, K0, eps=eps, r_max=R, pi_min=1e-2)
                    ratios.append(math.log(em.sizes(2).norm) / bound(d0, K0, R))
        return Found(max(ratios), 1, len(ratios))

    claim.holds(check, lambda d0, K0, R: K0 * R * (R + d0))
    claim.twin("log R", check, lambda d0, K0, R: math.log(R))


@pytest.mark.claim(46)
def test_one_set_of_weights(claim):
    """Every task on the same network within its bound; a network of which one matrix depends on K is not."""
    em = network()

    def check(build):
        problems, used, worst = cases(claim.rng, 8), set(), 0.0
        for case in problems:
            one = build(case.init.n_components)
            used.add(sum(float(np.abs(layer.W2).sum()) for layer in one.program.unique()))
            worst = max(worst, share_of_bound(one, case, 1))
        return Found(max(worst, len(used)), 1, len(problems))

    claim.holds(check, lambda K: em)
    claim.twin("a network for each K", check, lambda K: network(pi_min=1e-2 / K))


@pytest.mark.claim(47)
def test_a_fixed_network_serves_every_n(claim):
    """eps = 1e-3 and N = 100 to 10^5: the error of a step stays under the bound, and the bound under 0.1."""
    em = EMTransformer(2, 3, eps=1e-3, r_max=16, pi_min=0.02)
    truth = separated(2, 3, 3.0)

    def check(bound):
        worst = 0.0
        for N in (100, 1000, 10_000, 100_000):
            X, _ = truth.sample(N, claim.rng)
            for start in list(starts(truth, 0.5, 0.3, claim.rng))[::7]:
                (got,), want = em.run(X, start, 1), em_step(X, start)
                error = np.linalg.norm(got.means - want.means, axis=1).max()
                limit = bound(N)
                worst = max(worst, limit if error <= limit else np.inf)
        return Found(worst, 0.1, 12)

    eps, d, R = 1e-3, 2, 6.0
    claim.holds(check, lambda N: 4.2 * math.sqrt(d) * eps)
    claim.printed("4 N (Rmax + d + sqrt(2 d log(4 N/delta))) eps", check,
                  lambda N: 4 * N * (R + d + math.sqrt(2 * d * math.log(40 * N))) * eps)  # fmt: skip


@pytest.mark.claim(48)
def test_what_eps_has_to_be(claim):
    """Slope of the eps-term in N, up to logarithms, for eps = N^p: N^(1 + p) printed, N^p without the N."""

    def check(subject):
        exponent, with_n = subject
        N = np.array([1e3, 1e4, 1e5])
        term = (N if with_n else 1.0) * N**exponent
        return Found(abs(np.polyfit(np.log(N), np.log(term), 1)[0] + 0.5), 1e-9, 3)

    claim.holds(check, (-1.5, True))
    claim.holds(check, (-0.5, False))
    claim.twin("N^(-1/2) with the printed term", check, (-0.5, True))


@pytest.mark.claim(51)
def test_how_small_eps_has_to_be(claim):
    def check(limits):
        ratios = [
            math.expm1(c * e) / (2 * c * e)
            for c, limit in zip((2, 3), limits, strict=True)
            for e in np.linspace(limit / 200, limit, 200)
        ]
        return Found(max(ratios), 1, len(ratios))

    claim.holds(check, (0.01, 0.01))
    claim.holds(check, (0.628, 0.418))
    claim.twin("a tenth more", check, (0.69, 0.46))


@pytest.mark.claim(52)
def test_the_first_condition(claim):
    """After the warm-up D <= 1/2 + x; largest excess over a."""

    def check(x):
        grid = [Fraction(n, 100) for n in range(51, 100)]
        return Found(float(max(Fraction(1, 2) + x(a) - a for a in grid)), 0, len(grid))

    claim.holds(check, lambda a: (a - Fraction(1, 2)) / 2)
    claim.holds(check, lambda a: a - Fraction(1, 2))
    claim.twin("twice that", check, lambda a: 2 * a - 1)
