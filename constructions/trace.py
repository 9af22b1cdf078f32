"""Every activation of a run, by layer number and subspace name."""

from __future__ import annotations

from typing import Any

import numpy as np

from constructions.residual import Layout
from constructions.tokens import Tokens
from constructions.transformer import Stage, State
from constructions.weights import Array


class Trace:
    """`trace[3, "mu"]`: the subspace mu of all tokens after layer 3, (N, size), float64.

    Layer 0 is the input.  `trace.at(3, "mu", "attention")` is the state between the attention and
    the MLP of layer 3.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._states: dict[tuple[int, Stage], Any] = {}

    def append(self, state: State) -> None:
        """Record one state."""
        self._states[state.layer, state.stage] = state.tokens

    @property
    def n_layers(self) -> int:
        """The number of the last layer."""
        return max((layer for layer, _ in self._states), default=0)

    def state(self, layer: int, stage: Stage = "mlp") -> Array:
        """All of the stream at one point, (N, D)."""
        if (layer, stage) not in self._states:
            raise ValueError(
                f"no state after the {stage} of layer {layer}; the trace has layers 0 (the input) "
                f"to {self.n_layers}"
            )
        tokens = self._states[layer, stage]
        dense = tokens.dense() if isinstance(tokens, Tokens) else tokens
        return np.asarray(dense.double().cpu().numpy())

    def at(self, layer: int, name: str, stage: Stage = "mlp") -> Array:
        """One subspace at one point, (N, size)."""
        return np.asarray(self.layout.read(self.state(layer, stage), name))

    def __getitem__(self, key: tuple[int, str]) -> Array:
        layer, name = key
        return self.at(layer, name)
