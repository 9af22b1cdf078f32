"""What a trained network makes of one sample: a pass, or the likeliest of several passes over its images.

Turning the coordinate axes around or renaming them changes nothing about a mixture, but a trained network is
only nearly invariant to it.  Passes over such images of the data (signed permutations of the coordinates)
miss a component independently enough that the likeliest of four almost never does.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from gmm import GaussianMixture
from trainable.network import Network

Array = NDArray[np.float64]


def estimate(
    network: Network, X: Array, K: int, rng: np.random.Generator, *, copies: int = 1
) -> GaussianMixture:
    """The likeliest, on X (n, d), of the network's estimates from `copies` images of X.

    The first image is X itself.  Units are the network's: noise of variance 1.  Of more samples than the
    network was trained on it reads a random choice; missing coordinates are filled with noise.
    """
    config = network.config
    if K == 1:
        return GaussianMixture(np.ones(1), X.mean(axis=0, keepdims=True))
    seen = X if len(X) <= config.max_samples else X[rng.choice(len(X), config.max_samples, replace=False)]
    n, d = seen.shape
    axes = np.array([np.arange(d), *(rng.permutation(d) for _ in range(copies - 1))])
    signs = np.array([np.ones(d), *rng.choice((-1.0, 1.0), size=(copies - 1, d))])
    images = signs[:, None, :] * seen[:, axes].transpose(1, 0, 2)
    if not config.any_dim:
        filling = rng.standard_normal((n, config.dim - d))
        images = np.concatenate([images, np.broadcast_to(filling, (copies, *filling.shape))], axis=2)
    with torch.no_grad():
        (found,) = network(torch.tensor(images, dtype=torch.float32), [(K, copies)])
    weights = found.weights.double().numpy()
    scales = None if found.scales is None else found.scales[:, :, :d].double().numpy()
    fits = []
    for c in range(copies):
        back = np.argsort(axes[c])
        means = (signs[c] * found.means[c, :, :d].double().numpy())[:, back]
        fits.append(
            GaussianMixture(
                weights[c] / weights[c].sum(), means, None if scales is None else scales[c][:, back]
            )
        )
    return max(fits, key=lambda fit: fit.log_likelihood(X)) if copies > 1 else fits[0]
