"""Networks and data sets for tests of the spectral construction, and its broken twins."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import numpy as np

from constructions.construction import Program
from constructions.spectral import SpectralTransformer
from gmm import GaussianMixture, spectral_from_data
from tests.compare import gap
from tests.gmm.spectral_cases import conditioned_mixture, exact_samples


@cache
def network(d0=8, K0=3, *, seed=0, **options):
    """A network for the mixtures below, whose sigma_K is 1.5 and sigma_1 at most 15, but for sampling."""
    numbers = {
        "tau": 0.7, "gap": 0.4, "sigma_min": 1.1, "sigma_max": 60.0, "c_max": 512.0, "pi_min": 0.05,
        "n_power": 12,
    }  # fmt: skip
    return SpectralTransformer(d0, K0, **(numbers | options), rng=np.random.default_rng(seed))


def mixture(d, K, rng):
    """K means in R^d with sigma_K = 1.5."""
    found = conditioned_mixture(d, K, rng)
    return GaussianMixture(found.weights, math.sqrt(1.5) * found.means)


def samples(d, K, N, rng):
    """N samples of such a mixture."""
    return mixture(d, K, rng).sample(N, rng)[0]


def exact(d, K, repeats, rng):
    """Tokens with the exact moments of a mixture, and the mixture."""
    counts = rng.integers(1, 4, K)
    found = mixture(d, K, rng)
    # the second moment stays what it was
    means = found.means * np.sqrt(found.weights * counts.sum() / counts)[:, None]
    return exact_samples(counts, means, repeats=repeats)


def reference(net, X, K):
    """Algorithms A.2 and A.3 from the network's own starts: weights and means."""
    found = spectral_from_data(
        X, K, starts=net.starts[:K, :, : X.shape[1]], n_iter=net.limits.n_power, n_polish=net.limits.n_polish
    ).mixture()
    return found.weights, found.means


def distance(estimate, want):
    """Largest difference in a weight or in an entry of a mean, in order, without matching."""
    return max(gap(estimate.weights, want[0]), gap(estimate.means, want[1]))


def unwatched(net, X, K, H=None):
    """The readout of a plain forward pass: no assumption is checked."""
    H = net.encode(X) if H is None else H
    return net.readout(net.transformer()(net.as_tokens(H), "structured"), X.shape[1], K)


def broken(net, mistake):
    """The network with one mistake in its weights."""

    def change(layer, stage):
        heads = []
        for head in layer.heads:
            reads, asks, keys = (
                {name for name in net.layout.names if matrix[:, net.layout.slice(name)].any()}
                for matrix in (head.V, head.Q, head.K)
            )
            if mistake == "no tournament" and stage == "tournament":
                continue
            if mistake == "no deflation" and reads & {"V0", "V1"}:
                continue
            if mistake == "no mean in the third moment" and reads == {"mt"}:
                continue
            if mistake == "one of a sign pair" and stage == "project" and head.Q.sum() < 0:
                continue
            if mistake == "whitened with a factor d0 wrong" and stage == "whiten" and asks == {"x"}:
                head = head._replace(Q=head.Q / net.d0)
            if mistake == "means recovered with a factor d0 wrong" and stage == "recover" and keys == {"Y"}:
                head = head._replace(Q=head.Q / net.d0)
            if mistake == "half the noise in the third moment" and "gv0" in reads and "mvf0" in asks:
                head = head._replace(V=head.V / 2)
            heads.append(head)
        W2 = layer.W2
        if mistake == "identity not taken off" and stage == "moments":
            W2 = W2.copy()
            W2[net.layout.slice("A")] = 0
        return replace(layer, heads=tuple(heads), W2=W2)

    made = {}
    for step in net.steps:
        made.setdefault(id(step.layer), change(step.layer, step.stage))
    layers = tuple(made[id(step.layer)] for step in net.steps)
    return net.with_program(Program((), layers, layers))


MISTAKES = [
    "no deflation", "no mean in the third moment", "one of a sign pair",
    "whitened with a factor d0 wrong", "means recovered with a factor d0 wrong",
    "half the noise in the third moment", "identity not taken off",
]  # fmt: skip


def corrupt(net, mistake, H):
    """Tokens with a mistake in the encoding."""
    H = H.copy()
    if mistake == "no token code":
        net.layout.put(H, "code", 0.0)
    elif mistake == "frame 1% off":
        H[:, net.layout.slice("p").start] *= 1.01
    elif mistake == "wrong N":
        net.layout.put(H, "count", len(H) + 10.0)
    return H


ENCODING_MISTAKES = ["no token code", "frame 1% off", "wrong N"]
