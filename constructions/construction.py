"""What a construction is: a layout, weights for any number of iterations, a way in and a way out.

`run`, `trace`, `sizes`, saving and loading are written once, here and in `files`, against this
interface; nothing asks which construction it has.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from constructions.residual import Layout
from constructions.tokens import Tokens
from constructions.trace import Trace
from constructions.transformer import Mode, State, Transformer, pool
from constructions.weights import Array, Layer, Pooling, Sizes

LARGEST = 1e150
"""Squares of larger samples leave float64."""

DTYPES = {"float64": torch.float64, "float32": torch.float32}


R = TypeVar("R")


class Estimate(NamedTuple):
    """What runs and readouts return: float64 numpy arrays (K,), (K, d) and None or (K, d)."""

    weights: Array
    means: Array
    scales: Array | None = None


@dataclass(frozen=True, eq=False)
class Program:
    """The layers of a construction: `prologue`, then `body` for each iteration but the last, then
    `final` for the last.

    `final` differs from `body` in its last MLP at most, which keeps what the readout needs.  So the
    state before the MLP of any iteration's last layer can be read like the end of a network that
    stops there.
    """

    prologue: tuple[Layer, ...]
    body: tuple[Layer, ...]
    final: tuple[Layer, ...]

    def __post_init__(self) -> None:
        if len(self.body) != len(self.final) or not self.final:
            raise ValueError(
                f"body and final must have the same number of layers, at least 1, got "
                f"{len(self.body)} and {len(self.final)}"
            )

    def layers(self, n_iter: int = 1) -> list[Layer]:
        """The layers of a network of `n_iter` iterations."""
        if n_iter < 1:
            raise ValueError(f"n_iter must be at least 1, got {n_iter}")
        return [*self.prologue, *self.body * (n_iter - 1), *self.final]

    def unique(self) -> list[Layer]:
        """Each layer object once, in order of first use."""
        seen = {id(layer): layer for layer in (*self.prologue, *self.body, *self.final)}
        return list(seen.values())


class Run(list[R]):
    """What is read out after each iteration, with `used`, how the pass was evaluated, and `trace`,
    every activation, if that was asked for."""

    def __init__(self, layout: Layout | None = None) -> None:
        super().__init__()
        self.trace = Trace(layout) if layout is not None else None
        self.used: tuple[str, ...] = ()

    def record(self, state: State) -> None:
        """Keep a state in the trace, if there is one."""
        if self.trace is not None:
            self.trace.append(state)


class Construction(ABC):
    """Explicit weights that carry out an algorithm, with the encoding and readout they need.

    Subclasses give the abstract members below, and an `encode` and a `run` of their own.
    """

    dtype: str
    device: str

    @property
    @abstractmethod
    def layout(self) -> Layout:
        """The residual stream."""

    @property
    @abstractmethod
    def program(self) -> Program:
        """The weights."""

    @property
    @abstractmethod
    def config(self) -> dict[str, Any]:
        """The constructor's arguments but the device, as JSON values."""

    @property
    @abstractmethod
    def bounds(self) -> dict[str, float]:
        """What the construction holds for and how well, as JSON values."""

    @property
    @abstractmethod
    def readout_text(self) -> str:
        """The readout in words, for a reader of the weights alone."""

    def layers(self, n_iter: int = 1) -> list[Layer]:
        """Plain weights of the network for `n_iter` iterations."""
        return self.program.layers(n_iter)

    def transformer(self, n_iter: int = 1) -> Transformer:
        """The network for `n_iter` iterations."""
        return Transformer(self.layers(n_iter)).to(dtype=DTYPES[self.dtype], device=self.device)

    def sizes(self, n_iter: int = 1) -> Sizes:
        """Sizes of that network."""
        return self.transformer(n_iter).sizes()

    def with_program(self, program: Program) -> Self:
        """The same construction over other weights: loaded, perturbed or broken ones."""
        for layer in program.unique():
            if layer.width != self.layout.width:
                raise ValueError(f"layers have width {layer.width}, the layout has {self.layout.width}")
        other = copy.copy(self)
        other.__dict__["program"] = program
        return other

    def iterate(self, tokens: Tokens | torch.Tensor, n_iter: int, mode: Mode, run: Run[Any]) -> Iterator[Any]:
        """The state that the readout reads after each iteration, from one pass.

        That is the state before the MLP of the iteration's last layer (see `Program`).  `run` is
        told how the pass was evaluated and, where it keeps a trace, every state.
        """
        network = self.transformer(n_iter)
        steps, skip = len(self.program.body), len(self.program.prologue)
        start = tokens.dense() if mode == "dense" and isinstance(tokens, Tokens) else tokens
        run.record(State(0, "mlp", start))
        for state in network.states(start, mode):
            run.record(state)
            done = state.layer - skip
            if state.stage == "attention" and done > 0 and done % steps == 0:
                yield state.tokens
        run.used = network.used

    def as_tokens(self, H: Array) -> torch.Tensor:
        """Encoded tokens in this construction's dtype, on its device."""
        return torch.as_tensor(H, dtype=DTYPES[self.dtype], device=self.device)

    def tokens(self, rows: Array, index: NDArray[np.int64], own: dict[str, Array]) -> Tokens:
        """Tokens of this layout: one row per group, the group of each token, and the values
        (N, n) of the subspaces that vary freely, padded with zeros."""
        dtype = DTYPES[self.dtype]
        columns: dict[int, torch.Tensor] = {}
        for name, values in own.items():
            turned = torch.as_tensor(values.T, dtype=dtype, device=self.device).contiguous()
            columns.update(zip(self.layout.indices(name), turned, strict=False))
        return Tokens.build(
            torch.as_tensor(rows, dtype=dtype, device=self.device),
            torch.as_tensor(index, device=self.device),
            columns,
        )

    def pool(self, H: Any, pooling: Pooling) -> Array:
        """The output O of `pooling` for tokens (N, D): an array, a tensor or `Tokens`."""
        if isinstance(H, Tokens):
            reads = np.flatnonzero((pooling.Ko != 0).any(0) | (pooling.Vo != 0).any(0))
            return pool(pooling, *H.distinct(reads.tolist()))
        tokens = torch.as_tensor(H)
        if tokens.ndim != 2 or tokens.shape[1] != self.layout.width:
            raise ValueError(f"H must be (N, {self.layout.width}), got {tuple(tokens.shape)}")
        return pool(pooling, tokens)


def as_array(name: str, values: ArrayLike, ndim: int, *, largest: float = math.inf) -> Array:
    """`values` as a float64 array with `ndim` axes, none empty, of finite real numbers up to `largest`;
    ValueError otherwise."""
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "fiubO":
            raise ValueError(f"they are of type {array.dtype}")
        array = np.asarray(array, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be a rectangular array of numbers: {error}") from None
    if array.ndim != ndim or 0 in array.shape:
        raise ValueError(f"{name} must have {ndim} axes and not be empty, got shape {array.shape}")
    if not np.isfinite(array).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(f"{name} must be finite, got {array[place]} at {list(place)}")
    if np.abs(array).max() > largest:
        raise ValueError(
            f"{name} reaches {np.abs(array).max():.3g}, more than {largest:g}, whose square leaves float64; "
            "divide the data by their scale"
        )
    return array
