"""Tensor power iteration as a transformer (Theorem D.8): from a size to weights, from a tensor and a
start to tokens and back.  The layers, with their derivation, are in `tensor_layers`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from constructions import tensor_layers
from constructions.construction import DTYPES, Construction, Program, Run, as_array
from constructions.residual import Layout
from constructions.tensor_layers import TensorDesign
from constructions.transformer import Mode
from constructions.weights import Array, Pooling

VARIANTS: dict[str, Callable[..., TensorDesign]] = {
    name: getattr(tensor_layers, name)
    for name in ("theorem", "attention_only", "one_layer", "shifted_heads", "three_heads", "normalised")
}


MAX_D0 = 64
"""The heads hold about 4 d0^4 numbers."""


class TensorPowerTransformer(Construction):
    """Explicit weights for v <- T(I, v, v), for all d <= d0 and any tensor.

    d0: largest dimension.
    attention_only: without MLPs (Remark D.1); short for variant="attention_only".
    variant: "theorem", or another construction of `tensor_layers`, whose options (`bound`, or `pi_min`
        and `delta`) follow.  "normalised" keeps |v| near 1; within its bound another variant computes the
        same, with a rounding error of the order of u |T| bound, so a bound should be no larger than needed.
    dtype: "float64" or "float32".

    ValueError for sizes or options that make no sense.
    """

    def __init__(
        self,
        d0: int,
        *,
        attention_only: bool = False,
        variant: str | None = None,
        dtype: str = "float64",
        device: str = "cpu",
        **options: float,
    ) -> None:
        if not isinstance(d0, (int, float, np.integer)) or d0 < 1 or d0 % 1 != 0:
            raise ValueError(f"d0 must be a positive integer, got {d0!r}")
        if d0 > MAX_D0:
            raise ValueError(
                f"d0 = {d0:g} takes more than a gibibyte of weights, as 4 d0^4 numbers do; at most {MAX_D0}"
            )
        if attention_only and variant not in (None, "attention_only"):
            raise ValueError(f'attention_only=True means variant="attention_only", got {variant!r}')
        self.d0 = int(d0)
        self.variant = variant or ("attention_only" if attention_only else "theorem")
        if self.variant not in VARIANTS:
            raise ValueError(f"variant must be one of {', '.join(VARIANTS)}, got {self.variant!r}")
        self.options = {name: float(value) for name, value in options.items()}
        for name, value in self.options.items():
            if not (np.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be positive and finite, got {value:g}")
        self.dtype, self.device = str(dtype).removeprefix("torch."), device
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be float64 or float32, got {self.dtype}")
        try:
            self.design = VARIANTS[self.variant](self.d0, **self.options)
        except TypeError as error:
            raise ValueError(f"options of variant {self.variant!r}: {error}") from None

    @property
    def layout(self) -> Layout:
        """The residual stream."""
        return self.design.layout

    @cached_property
    def program(self) -> Program:
        """The same layers for every step."""
        return Program((), self.design.layers, self.design.layers)

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments but the device, as JSON values."""
        return {"d0": self.d0, "variant": self.variant, "dtype": self.dtype, **self.options}

    @property
    def bounds(self) -> dict[str, float]:
        """The options of the variant."""
        return dict(self.options)

    @property
    def readout_text(self) -> str:
        """The readout in words."""
        return f"linear pooling: query 1, key one, value {self._stored} (divided by d if that is u)"

    @property
    def _stored(self) -> str:
        """The subspace that holds the iterate: v, or u = d v."""
        return "u" if "u" in self.layout.names else "v"

    def encode(self, T: ArrayLike, v: ArrayLike) -> Array:
        """The input tokens (d, D) of equation (25).

        T: (d, d, d), symmetric or not.  v: (d,), not zero.
        ValueError for another shape, d > d0, values that are not finite, or a zero start.
        """
        tensor, start = as_array("T", T, 3), as_array("v", v, 1)
        d = len(start)
        if tensor.shape != (d, d, d):
            raise ValueError(f"T must be (d, d, d) for v of length d = {d}, got {tensor.shape}")
        if d > self.d0:
            raise ValueError(
                f"this network holds dimension up to d0 = {self.d0}, got {d}; build one with d0 >= {d}"
            )
        if not start.any():
            raise ValueError("the start v is zero: its powers are zero too; give another start")
        complaint = self.design.complaint(start)
        if complaint is not None:
            raise ValueError(f"this start is outside what variant {self.variant!r} holds: {complaint}")
        H = np.zeros((d, self.layout.width))
        for name in self.layout.names:
            self.layout.put(H, name, self._values(name, tensor, start))
        return H

    def _values(self, name: str, T: Array, v: Array) -> Any:
        """What a subspace holds at the start, (d, size) or less; missing coordinates are zero."""
        d, d0 = len(v), self.d0
        if name == "t":  # token j, block m, entry a: T_{a,j,m}
            blocks = np.zeros((d, d0, d0))
            blocks[:, :d, :d] = T.transpose(1, 2, 0)
            return blocks.reshape(d, d0 * d0)
        if name == "g":  # token i, block m, entry a: v_m 1{a = i}
            blocks = np.zeros((d, d0, d0))
            blocks[:, :d, :d] = v[None, :, None] * np.eye(d)[:, None, :]
            return blocks.reshape(d, d0 * d0)
        simple: dict[str, Any] = {
            "v": np.tile(v, (d, 1)),
            "u": np.tile(d * v, (d, 1)),
            "e": np.eye(d),
            "one": 1.0,
            "count": float(d),
            "count2": float(d * d),
            "own": d * v[:, None],
        }
        return simple.get(name, 0.0)

    def readout(self, H: Any, d: int) -> Array:
        """The iterate in the output tokens `H` (d, D): an array (d,)."""
        if not 1 <= d <= self.d0:
            raise ValueError(f"need 1 <= d <= {self.d0}, got {d}")
        value = self.layout[self._stored].matrix[:d] / (d if self._stored == "u" else 1)
        one = self.layout["one"].matrix
        return self.pool(H, Pooling("linear", np.ones((1, 1)), one, value))[:, 0]

    def run(
        self, T: ArrayLike, v: ArrayLike, n_iter: int, *, mode: Mode = "auto", trace: bool = False
    ) -> Run[Array]:
        """The readouts of `transformer(1)`, ..., `transformer(n_iter)`, from one pass.

        With `trace`, the result's `trace` holds every activation.  Warns when an iterate leaves what the
        variant holds.  OverflowError, naming the step and the last norm, when values leave the dtype:
        the iteration grows or shrinks double-exponentially.
        """
        tokens = self.as_tokens(self.encode(T, v))
        d = len(tokens)
        run = Run[Array](self.layout if trace else None)
        try:
            for state in self.iterate(tokens, n_iter, mode, run):
                if self._underflows(T, run[-1] if run else v):
                    raise OverflowError
                run.append(self.readout(state, d))
                complaint = self.design.complaint(run[-1])
                if complaint is not None and (self.design.after_step or len(run) < n_iter):
                    warnings.warn(f"step {len(run)}: {complaint}", stacklevel=2)
        except OverflowError:
            last = run[-1] if run else np.asarray(v, dtype=np.float64)
            largest = np.abs(last).max()
            raise OverflowError(
                f"step {len(run) + 1} leaves {self.dtype} after |v| = "
                f"{largest * np.linalg.norm(last / largest):.3g}: "
                "without normalisation the iteration is double-exponential; scale T or v, or for "
                'whitened mixture tensors use variant="normalised"'
            ) from None
        return run

    def _underflows(self, T: ArrayLike, v: ArrayLike) -> bool:
        """Whether all of T_{ijm} v_j v_m lie so low that the dtype loses digits of their sums."""
        limits = torch.finfo(DTYPES[self.dtype])
        top, size = (float(np.abs(np.asarray(values)).max()) for values in (T, v))
        if top == 0 or size == 0:
            return False
        return math.log(top) + 2 * math.log(size) < math.log(limits.tiny / limits.eps)
