"""Hidden units of the spectral construction: clipping, the teeth of a square, and units shared out evenly."""

from __future__ import annotations

import numpy as np

from constructions.residual import Layout, Linear, Units


def balanced(units: Units) -> Units:
    """The same units with coefficients equally large in W1 and W2: relu(s x) = s relu(x)."""
    share = np.sqrt(np.linalg.norm(units.W2, axis=0) / np.linalg.norm(units.W1, axis=1))
    return Units(share[:, None] * units.W1, units.W2 / share)


def clipped(stream: Layout, x: Linear, write: str) -> Units:
    """write += min(max(x, 0), 1)."""
    (target,) = stream.indices(write)
    W1 = np.concatenate([x.matrix, x.matrix - stream["one"].matrix])
    W2 = np.zeros((stream.width, 2))
    W2[target] = 1.0, -1.0
    return Units(W1, W2)


def magnitude(stream: Layout, read: str, u: str, square: str, C: float) -> Units:
    """u += |read| / C and square += C |read|: the first term of C^2 (u - sum_s g_s(u) / 4^s)."""
    W1 = np.concatenate([stream[read].matrix, -stream[read].matrix]) / C
    W2 = np.zeros((stream.width, 2))
    W2[stream.indices(u)[0]] = 1.0
    W2[stream.indices(square)[0]] = C * C
    return Units(W1, W2)


def tooth(stream: Layout, u: str, square: str, factor: float) -> Units:
    """u <- g(u) = 2 relu(u) - 4 relu(u - 1/2) and square -= factor g(u)."""
    tent = stream[u].matrix
    W1 = np.concatenate([tent, tent - stream["one"].matrix / 2])
    W2 = np.zeros((stream.width, 2))
    W2[stream.indices(u)[0]] = 2.0 - 1.0, -4.0  # u >= 0, so -u is -relu(u)
    W2[stream.indices(square)[0]] = -2 * factor, 4 * factor
    return Units(W1, W2)
