"""Problems and networks that the claims about the EM construction share."""

import numpy as np

from constructions import EMTransformer
from gmm import GaussianMixture
from tests.constructions.test_em import step_errors
from tests.problems import Case


def network(**options):
    """A small network; `remainder="drop"` is the paper's encoding, without the count."""
    return EMTransformer(4, 4, **{"eps": 1e-3, "r_max": 16, "pi_min": 1e-2} | options)


def cases(rng, count, *, K=None, divides=None):
    """Overlapping mixtures with unequal weights, d 1..4, K 2..4; K divides N, does not, or either."""
    found = []
    for _ in range(count):
        d, k = int(rng.integers(1, 5)), int(rng.integers(2, 5)) if K is None else K
        truth = GaussianMixture(rng.dirichlet(np.full(k, 8.0)), 1.5 * rng.standard_normal((k, d)))
        N = k * int(rng.integers(20, 40))
        N += 0 if divides else int(rng.integers(1, k))
        init = GaussianMixture(
            rng.dirichlet(np.full(k, 8.0)), truth.means + 0.5 * rng.standard_normal((k, d))
        )
        found.append(Case(truth.sample(N, rng)[0], truth, init))
    return found


def responsibilities(em, case):
    """w after the attention of the first E-layer, (N, K)."""
    trace = em.run(case.X, case.init, 1, mode="dense", trace=True).trace
    return trace.at(1, "w", "attention")[:, : case.init.n_components]


def share_of_bound(em, case, n_iter, H=None):
    """Largest error of a step of the network as a share of its bound, step by step from its own states."""
    H = em.encode(case.X, case.init) if H is None else H
    d, K = case.X.shape[1], case.init.n_components
    states = [em.readout(em.transformer(n)(H, "structured"), d, K) for n in range(1, n_iter + 1)]
    return max(
        float(max((error.means / bound.means).max(), (error.weights / bound.weights).max()))
        for _, error, bound in step_errors(em, case, states)
    )
