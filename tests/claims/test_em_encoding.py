"""Claims 21-27: the residual stream of equations (5) and (7), and the condition on the start."""

import math
from fractions import Fraction

import numpy as np
import pytest

from tests.claims.em_problems import cases, network, responsibilities, share_of_bound
from tests.claims.evidence import Found
from tests.compare import gap
from tests.constructions.twins import broken, corrupt

pytestmark = pytest.mark.filterwarnings("ignore:.*leaves the bound")  # twins and overlapping mixtures do

SIZES = [(1, 1), (2, 3), (4, 4), (8, 5)]
"""(d0, K0)."""


def paper(d0=4, K0=4, **options):
    """The encoding of equation (7), without the count."""
    from constructions import EMTransformer

    return EMTransformer(d0, K0, eps=0.1, r_max=4, pi_min=0.05, remainder="drop", **options)


@pytest.mark.claim(21)
def test_norms_of_heads_and_network(claim):
    """|||Theta||| = max over layers of (largest |Q|, |K|, |V|) + |W1| + |W2|, by numpy's SVD."""

    def norm(A):
        return np.linalg.norm(A, 2) if A.size else 0.0

    def check(total):
        worst = 0.0
        for d0, K0 in SIZES[:3]:
            net = paper(d0, K0).transformer(2)
            per_layer = []
            for one in net.matrices():
                heads = [norm(M) for name in "QKV" for M in one[name]]
                worst = max(worst, *(min(abs(size - 1), size) for size in heads))
                per_layer.append(total(max(heads), norm(one["W1"]), norm(one["W2"])))
            worst = max(worst, abs(max(per_layer) / net.sizes().norm - 1))
        return Found(worst, 1e-9, 3)

    claim.holds(check, lambda heads, W1, W2: heads + W1 + W2)
    claim.twin("without the second matrix of the MLP", check, lambda heads, W1, W2: heads + W1)


@pytest.mark.claim(22)
def test_size_of_theta(claim):
    def check(size):
        names = ("log_pi", "mu", "c", "w", "log_w", "pi")
        off = [sum(paper(*s).layout.sizes[name] for name in names) - size(*s) for s in SIZES]
        return Found(np.abs(off).max(), 0, len(SIZES))

    claim.holds(check, lambda d0, K0: d0 + 4 * K0 + 1)
    claim.twin("one block of K0 fewer", check, lambda d0, K0: d0 + 3 * K0 + 1)


@pytest.mark.claim(23)
def test_size_of_the_rest(claim):
    """What is left of the stream beside x and theta: 1 and e_i, at the smallest width."""

    def check(size):
        off = []
        for d0, K0 in SIZES:
            layout = paper(d0, K0).layout
            off.append(layout.sizes["one"] + layout.sizes["e"] - size(d0, K0, layout.width))
        return Found(np.abs(off).max(), 0, len(SIZES))

    claim.holds(check, lambda d0, K0, D: D - (2 * d0 + 4 * K0 + 1))
    claim.printed("D - (2 d0 + 3 K0 + 1)", check, lambda d0, K0, D: D - (2 * d0 + 3 * K0 + 1))


@pytest.mark.claim(24)
def test_smallest_width(claim):
    def check(width):
        off = [paper(*s).layout.width - width(*s) for s in SIZES]
        return Found(np.abs(off).max(), 0, len(SIZES))

    claim.holds(check, lambda d0, K0: 2 * d0 + 5 * K0 + 2)
    claim.twin("without room for w_log", check, lambda d0, K0: 2 * d0 + 4 * K0 + 2)


@pytest.mark.claim(25)
def test_components_of_tokens(claim):
    """One iteration on the encoding, as a share of its bound."""

    def check(mistake):
        em, worst = network(), 0.0
        for case in cases(claim.rng, 5):
            H = em.encode(case.X, case.init)
            if mistake:
                H = corrupt(em, "index from K instead of 1", H, case.init.n_components)
            worst = max(worst, share_of_bound(em, case, 1, H))
        return Found(worst, 1, 5)

    claim.holds(check, False)
    claim.printed("i % K, which is 0 for i = K", check, True)


@pytest.mark.claim(26)
def test_counts_make_the_e_step_exact(claim):
    def check(em):
        problems = cases(claim.rng, 6, divides=False)
        worst = max(gap(responsibilities(em, c), c.init.responsibilities(c.X)) for c in problems)
        return Found(worst, 1e-11, 6)

    claim.holds(check, network())
    claim.twin("no count", check, broken(network(), "no count correction"))


@pytest.mark.claim(26)
def test_what_the_count_is_worth(claim):
    """The error without it as a share of the bound; floor(N/K) as small as 1."""
    em = broken(network(), "no count correction")

    def check(bound):
        worst = 0.0
        for K in (2, 3, 4):
            for times in (1, 2, 5, 20):
                (case,) = cases(claim.rng, 1, K=K, divides=True)
                for rest in range(1, K):
                    part = case._replace(X=case.X[: times * K + rest])
                    error = gap(responsibilities(em, part), part.init.responsibilities(part.X))
                    worst = max(worst, error / bound(times))
        return Found(worst, 1 + 1e-9, 24)

    claim.holds(check, lambda times: math.tanh(math.log(1 + 1 / times) / 4))
    claim.twin("half the bound", check, lambda times: math.tanh(math.log(1 + 1 / times) / 4) / 2)


@pytest.mark.claim(27)
def test_the_condition_on_the_start(claim):
    """Largest |pi - pi*| / pi* that the condition allows, over fractions; pi = 2/3, pi* = 1/3 has 1."""

    def check(right_side):
        grid = [Fraction(n, 24) for n in range(1, 24)]
        allowed = [
            abs(pi - true) / true
            for pi in grid
            for true in grid
            if abs(pi - true) <= right_side(pi, true) / 2
        ]
        return Found(max(allowed), 0.5, len(allowed))

    claim.holds(check, lambda pi, true: true)
    claim.printed("pi_i^(0) / 2", check, lambda pi, true: pi)
