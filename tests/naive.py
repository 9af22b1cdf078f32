"""Definitions 1-5 with loops over tokens, in numpy and the paper's columns: oracle of the runner."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def forward(matrices: list[dict[str, Any]], H: Array) -> Array:
    """The output tokens (N, D) of the layers in `matrices` for the input tokens (N, D)."""
    tokens = [np.array(row, dtype=np.float64) for row in H]
    for layer in matrices:
        tokens = [mlp(layer, h) for h in attention(layer, tokens)]
    return np.array(tokens)


def attention(layer: dict[str, Any], tokens: list[Array]) -> list[Array]:
    """Definition 1 or 4."""
    out = []
    heads = list(zip(layer["Q"], layer["K"], layer["V"], strict=True))
    for h in tokens:
        total = h.copy()
        for Q, K, V in heads:
            scores = np.array([(Q @ h) @ (K @ other) for other in tokens])
            if layer["activation"] == "softmax":
                powers = np.exp(scores - scores.max())
                weights = powers / powers.sum()
            else:
                weights = np.maximum(scores, 0) / len(tokens)
            for weight, other in zip(weights, tokens, strict=True):
                total += weight * (V @ other)
        out.append(total)
    return out


def mlp(layer: dict[str, Any], h: Array) -> Array:
    """Definition 2."""
    return np.asarray(h + layer["W2"] @ np.maximum(layer["W1"] @ h, 0))
