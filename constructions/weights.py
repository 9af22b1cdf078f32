"""Weights as data: heads, layers, the sizes of a network, and the readout's matrices.

All are numpy arrays that act on columns, as in the paper, without rows that are zero.
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
    """One attention head; the paper's Q, K, V are (D, D) with zeros in all rows that are left out here.

    Q, K: (r, D), the first r rows.  V: (w, D), the rows that write to the coordinates `writes` (w,);
    all D coordinates in order where that is None.
    """

    Q: Array
    K: Array
    V: Array
    writes: NDArray[np.int64] | None = None

    @property
    def targets(self) -> list[int]:
        """The coordinates that V writes to."""
        return list(range(len(self.V))) if self.writes is None else [int(c) for c in self.writes]


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
        if self.W1.ndim != 2 or self.W2.shape != self.W1.shape[::-1]:
            raise ValueError(
                f"W1 and W2 must be (D', D) and (D, D'), got {self.W1.shape} and {self.W2.shape}"
            )
        for m, head in enumerate(self.heads):
            self._check_head(m, head)
        for matrix in (self.W1, self.W2, *(matrix for head in self.heads for matrix in head[:3])):
            if not np.isfinite(matrix).all():
                raise ValueError("a layer's matrices must be finite")
            matrix.flags.writeable = False

    def _check_head(self, m: int, head: Head) -> None:
        D = self.width
        for name, matrix in zip("QKV", head[:3], strict=True):
            if matrix.ndim != 2 or matrix.shape[1] != D or len(matrix) > D:
                raise ValueError(f"{name} of head {m} must be (at most {D}, {D}), got {matrix.shape}")
        if head.Q.shape != head.K.shape:
            raise ValueError(
                f"Q and K of head {m} must have equal shapes, got {head.Q.shape} and {head.K.shape}"
            )
        targets = head.targets
        if len(targets) != len(head.V) or len(set(targets)) < len(targets):
            raise ValueError(f"writes of head {m} must name each row of V once, got {targets}")
        if head.writes is None and len(head.V) != D:
            raise ValueError(f"V of head {m} must be {(D, D)} or come with writes, got {head.V.shape}")
        if targets and not 0 <= min(targets) <= max(targets) < D:
            raise ValueError(f"writes of head {m} must lie in 0..{D - 1}, got {targets}")

    @property
    def width(self) -> int:
        """D."""
        return self.W1.shape[1]

    @classmethod
    def from_matrices(cls, matrices: Mapping[str, Any]) -> Layer:
        """The inverse of one entry of `Transformer.matrices`."""
        heads = []
        for Q, K, V in zip(matrices["Q"], matrices["K"], matrices["V"], strict=True):
            Q, K, V = (np.array(matrix, dtype=np.float64) for matrix in (Q, K, V))
            used = np.flatnonzero(Q.any(axis=1) | K.any(axis=1)) if Q.shape == K.shape else slice(None)
            writes = np.flatnonzero(V.any(axis=1))
            heads.append(Head(Q[used], K[used], V[writes], writes))
        W1, W2 = (np.array(matrices[name], dtype=np.float64) for name in ("W1", "W2"))
        return cls(matrices["activation"], tuple(heads), W1, W2)


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
