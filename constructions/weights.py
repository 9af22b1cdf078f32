"""Weights as data: heads, layers, the sizes of a network, and the readout's matrices.

All are numpy arrays in the paper's shapes, acting on columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Activation = Literal["softmax", "relu"]


class Head(NamedTuple):
    """One attention head: Q, K, V of shape (D, D)."""

    Q: Array
    K: Array
    V: Array


@dataclass(frozen=True, eq=False)
class Layer:
    """The weights of one layer, as arrays that cannot be written to.

    heads: any number, also none.  W1: (D', D), W2: (D, D'); D' = 0 for a layer without an MLP.
    ValueError when shapes disagree or an entry is not finite.
    """

    activation: Activation
    heads: tuple[Head, ...]
    W1: Array
    W2: Array

    def __post_init__(self) -> None:
        if self.activation not in ("softmax", "relu"):
            raise ValueError(f'activation must be "softmax" or "relu", got {self.activation!r}')
        width = self.W1.shape[-1]
        if self.W1.ndim != 2 or self.W2.shape != self.W1.shape[::-1]:
            raise ValueError(
                f"W1 and W2 must be (D', D) and (D, D'), got {self.W1.shape} and {self.W2.shape}"
            )
        for m, head in enumerate(self.heads):
            for name, matrix in zip("QKV", head, strict=True):
                if matrix.shape != (width, width):
                    raise ValueError(f"{name} of head {m} must be {(width, width)}, got {matrix.shape}")
        for matrix in (self.W1, self.W2, *(matrix for head in self.heads for matrix in head)):
            if not np.isfinite(matrix).all():
                raise ValueError("a layer's matrices must be finite")
            matrix.flags.writeable = False

    @property
    def width(self) -> int:
        """D."""
        return self.W1.shape[1]

    @classmethod
    def from_matrices(cls, matrices: Mapping[str, Any]) -> Layer:
        """The inverse of one entry of `Transformer.matrices`."""
        Q, K, V = ([np.array(m, dtype=np.float64) for m in matrices[name]] for name in ("Q", "K", "V"))
        return cls(
            matrices["activation"],
            tuple(Head(*head) for head in zip(Q, K, V, strict=True)),
            np.array(matrices["W1"], dtype=np.float64),
            np.array(matrices["W2"], dtype=np.float64),
        )


class Sizes(NamedTuple):
    """The parameters of the class F(L, D, D', M, B) of Appendix C, read off the matrices."""

    layers: int
    heads: int
    width: int
    hidden_width: int
    norm: float
    heads_per_layer: tuple[int, ...]
    hidden_per_layer: tuple[int, ...]

    def within(self, layers: int, width: int, hidden_width: int, heads: int, norm: float) -> bool:
        """Membership in F(L, D, D', M, B)."""
        return (
            self.layers == layers
            and self.width == width
            and self.hidden_width <= hidden_width
            and self.heads <= heads
            and self.norm <= norm
        )


class Pooling(NamedTuple):
    """Attentive pooling (section 2.2, Remark C.3): O = (Vo H) f((Ko H)^T Qo), (rows of Vo, K).

    Qo: (r, K), Ko: (r, D), Vo: (s, D); f is the softmax over tokens, or 1/N for "linear".
    """

    activation: Literal["softmax", "linear"]
    Qo: Array
    Ko: Array
    Vo: Array
