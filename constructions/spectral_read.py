"""What the tokens of the spectral construction hold: own, replicated and stored (see `spectral_layers`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from constructions.residual import Layout
from constructions.tokens import Tokens
from constructions.weights import Array


@dataclass(frozen=True)
class Reader:
    """Reads tokens (N, D), a tensor or `Tokens`, of a stream with markers of dimension d0."""

    layout: Layout
    d0: int

    def own(self, tokens: Any, name: str) -> Array:
        """A subspace of every token, (N, size)."""
        columns = list(self.layout.indices(name))
        if isinstance(tokens, Tokens):
            return np.asarray(tokens.columns(columns, slice(None)).T.double().cpu().numpy())
        return np.asarray(tokens[:, columns].double().cpu().numpy())

    def replicated(self, tokens: Any, name: str) -> Array:
        """A subspace that all tokens hold alike, (size,): that of the first token."""
        columns = list(self.layout.indices(name))
        if isinstance(tokens, Tokens):
            return np.array([float(tokens.groups[0, c]) for c in columns])
        return np.asarray(tokens[0, columns].double().cpu().numpy())

    def stored(self, tokens: Any, name: str) -> Array:
        """A matrix M (d0, d0) of which token i holds M p_i: by (F), M = (d0 / N) sum_i (M p_i) p_i^T."""
        columns, p = self.own(tokens, name), self.own(tokens, "p")
        return np.asarray(self.d0 / len(p) * columns.T @ p)
