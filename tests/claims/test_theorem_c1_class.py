"""Claims 45 and 46: the class F of Theorem C.1, read off the matrices, and one backbone for all d and K."""

import math

import numpy as np
import pytest

from constructions import EMTransformer
from gmm import GaussianMixture
from tests.claims.em_problems import network, share_of_bound
from tests.claims.evidence import Found
from tests.claims.separated import separated
from tests.constructions.twins import broken
from tests.problems import Case


def class_of(em, n_iter):
    """L, D, D', M and log |||Theta||| from the (D, D), (D', D) and (D, D') matrices, by numpy's SVD."""
    layers, norms = em.transformer(n_iter).matrices(), []
    for one in layers:
        heads = max(np.linalg.norm(M, 2) for name in "QKV" for M in one[name])
        norms.append(heads + np.linalg.norm(one["W1"], 2) + np.linalg.norm(one["W2"], 2))
    (width,) = {matrix.shape[0] for one in layers for matrix in (one["W2"], *one["Q"], *one["K"], *one["V"])}
    hidden, heads = (max(len(one[name]) for one in layers) for name in ("W1", "Q"))
    return len(layers), width, hidden, heads, math.log(max(norms))


@pytest.mark.claim(45)
def test_the_class_of_the_network(claim):
    """Largest of the class's five numbers over its bound: 2(L+1) layers, D <= 6 (d0 + K0), M <= 2,
    D' <= 4 K0 Rmax (Rmax + d0) / eps, log B_Theta <= K0 Rmax (Rmax + d0); measured, not proved."""
    L, sizes = 2, ((1, 2), (4, 3), (8, 5))

    def check(build):
        worst = 0.0
        for d0, K0 in sizes:
            for R, eps in ((4.0, 1e-1), (16.0, 1e-2)):
                reach = K0 * R * (R + d0)
                bounds = (2 * (L + 1), 6 * (d0 + K0), 4 * reach / eps, 2, reach)
                found = class_of(build(d0, K0, eps=eps, r_max=R, pi_min=1e-2), L + 1)
                worst = max(worst, *(one / bound for one, bound in zip(found, bounds, strict=True)))
        return Found(worst, 1, 2 * len(sizes))

    def with_prologue(*sizes, **options):
        em = EMTransformer(*sizes, **options)
        program = em.program
        return em.with_program(type(program)(program.final, program.body, program.final))

    claim.holds(check, EMTransformer)
    claim.holds(check, lambda *sizes, **options: EMTransformer(*sizes, remainder="drop", **options))
    claim.twin("log A = 600", check, lambda *s, **options: EMTransformer(*s, log_A=600, **options))
    claim.twin("one iteration more", check, with_prologue)


@pytest.mark.claim(46)
def test_every_dimension_and_number_of_components(claim):
    """d = 1..4 and K = 1..4 on the network for d0 = K0 = 4: two steps, as a share of their bounds."""

    def check(em):
        worst = 0.0
        for d in range(1, 5):
            for K in range(1, 5):
                truth = separated(d, K, 3.0)
                start = GaussianMixture(truth.weights, truth.means + 0.3 * claim.rng.standard_normal((K, d)))
                case = Case(truth.sample(97, claim.rng)[0], truth, start)
                worst = max(worst, share_of_bound(em, case, 2))
        return Found(worst, 1, 16)

    claim.holds(check, network())
    claim.twin("c with a tenth too much", check, broken(network(), "c with a tenth too much"))
