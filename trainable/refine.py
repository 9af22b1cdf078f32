"""EM layers after a trained network: the weights of Theorem C.1 appended to learned ones.

The network's readout is the start that the encoding (7) puts into the tokens, and what follows are the
layers of `constructions.EMTransformer`: the whole is one transformer, of which the first layers are learned
and the last ones written down.
"""

from __future__ import annotations

import math
import warnings
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from constructions import EMTransformer
from gmm import GaussianMixture

EPS, PI_MIN = 1e-3, 1e-3


@lru_cache(maxsize=16)
def em_layers(d0: int, K0: int, r_max: float) -> EMTransformer:
    """The construction, built once for each size."""
    return EMTransformer(d0, K0, eps=EPS, r_max=r_max, pi_min=PI_MIN)


def refined(X: NDArray[np.float64], start: GaussianMixture, n_iter: int) -> GaussianMixture:
    """The estimate after `n_iter` EM iterations of the construction on X (n, d); the start for n_iter = 0.

    Weights below 1e-3 are raised to it first, as the construction holds no smaller ones.
    """
    if n_iter == 0:
        return start
    reach = max(np.linalg.norm(X, axis=1).max(), np.linalg.norm(start.means, axis=1).max(), 1.0)
    weights = np.maximum(start.weights, 2 * PI_MIN)
    network = em_layers(X.shape[1], start.n_components, 2.0 ** math.ceil(math.log2(reach)))
    with warnings.catch_warnings():
        # A component that dies out leaves pi_min; EM itself goes there too.
        warnings.filterwarnings("ignore", message=".*leaves the bound pi_min.*")
        last = network.run(X, GaussianMixture(weights / weights.sum(), start.means), n_iter)[-1]
    return GaussianMixture(last.weights / last.weights.sum(), last.means)
