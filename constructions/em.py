"""EM for unit-variance Gaussian mixtures as a transformer (Theorem C.1): from sizes and bounds to
weights, from data to tokens and back.  The layers themselves, with their derivation, are in `em_layers`.
"""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, asdict, dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from constructions.bounds import Levels
from constructions.construction import Estimate, Program
from constructions.em_layers import em_layout, em_parts
from constructions.limits import (
    ROUNDOFF,
    check_bytes,
    check_choice,
    check_log_range,
    check_rounding,
    set_dtype,
    set_positive,
    set_sizes,
    shown_above,
    shown_below,
    shrink,
)
from constructions.mixture import Left, MixtureTransformer
from constructions.piecewise import (
    MAX_PIECES,
    PiecewiseLinear,
    Width,
    log_approximation,
    log_pieces,
    square_approximation,
    square_pieces,
)
from constructions.residual import Layout
from constructions.tokens import Tokens
from constructions.transformer import Transformer
from constructions.weights import Array, Pooling, Sizes

_SHARPNESS = 40.0
"""Score of a component's own tokens in the softmax readout; others weigh e^-40 < 1e-17."""


@dataclass(frozen=True, eq=False)
class EMTransformer(MixtureTransformer):
    """Explicit weights for EM, built from sizes and bounds, never from data.

    d0, K0: largest dimension and number of components.
    eps: sup error of each log and of each half squared norm in the logits.
    r_max: bound on the norm of every mean met; pi_min: on every weight.
    approximator: "minimax" for the fewest hidden units, "paper" for Lemmas C.4 and C.5.
    log_A: log of the range of the responsibilities' logarithm; unless given, large enough that
        responsibilities below 1/A change a mean by at most about eps.
    remainder: "count" uses all samples; "drop" the first K floor(N/K), as the paper does.
    pooling_kind: "softmax" readout for any N, or the "linear" one of Remark C.3 for K | N.
    eps is met in exact arithmetic; `bounds` gives each error with its rounding.
    dtype: "float64" or "float32".  max_bytes: most memory that the matrices may take.

    ValueError, naming the value that works, when eps, the range or the dtype cannot be held;
    matrices larger than `max_bytes` are refused when they are first asked for.
    """

    d0: int
    K0: int
    _: KW_ONLY
    eps: float
    r_max: float
    pi_min: float
    approximator: Width = "minimax"
    log_A: float | None = None
    remainder: Literal["count", "drop"] = "count"
    pooling_kind: Literal["softmax", "linear"] = "softmax"
    dtype: str = "float64"
    device: str = "cpu"
    max_bytes: int = 4 * 2**30

    def __post_init__(self) -> None:
        set_sizes(self, "d0", "K0")
        set_positive(self, eps=1.0, r_max=math.inf, pi_min=1.0)
        check_choice(self, "approximator", ("minimax", "paper"))
        check_choice(self, "remainder", ("count", "drop"))
        check_choice(self, "pooling_kind", ("softmax", "linear"))
        set_dtype(self, largest="A = r_max / (eps pi_min)")
        check_log_range(self.range_log, self.pi_min, self.dtype)
        floor = ROUNDOFF[self.dtype] * self.r_max**2
        check_rounding(
            self.eps, floor, f"|mu|^2 in {self.dtype} at r_max = {self.r_max:g}", "a smaller r_max"
        )

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments but the device, as JSON values."""
        return {name: value for name, value in asdict(self).items() if name != "device"}

    @property
    def bounds(self) -> dict[str, float]:
        """Ranges and sup errors of the approximations."""
        log_w, log_pi, square = (f.sup_error for f in self.approximations)
        return {
            "r_max": self.r_max,
            "pi_min": self.pi_min,
            "log_A": self.range_log,
            "log_w_error": log_w,
            "log_pi_error": log_pi,
            "square_error": square,
        }

    @property
    def readout_text(self) -> str:
        """The readout in words."""
        return (
            f"{self.pooling_kind} pooling: query k is {_SHARPNESS:g} e_k (softmax) or K e_k (linear), "
            "key e, value [pi; mu]; column k of the output is [pi; mu_k]"
        )

    # ---- weights and their sizes

    @property
    def range_log(self) -> float:
        """log A of the responsibilities' logarithm."""
        if self.log_A is not None:
            return float(self.log_A)
        reach = 2 * (2 * self.r_max + math.sqrt(self.d0))
        return math.log(reach) - math.log(self.eps) - math.log(self.pi_min)

    @property
    def square_delta(self) -> float:
        """Sup error of each x^2: d0 of them make |mu|^2, whose half errs by at most eps."""
        return 2 * self.eps / self.d0

    @cached_property
    def layout(self) -> Layout:
        """The residual stream."""
        return em_layout(self.d0, self.K0, counted=self.remainder == "count")

    @cached_property
    def approximations(self) -> tuple[PiecewiseLinear, PiecewiseLinear, PiecewiseLinear]:
        """log on responsibilities, log on weights, x^2.

        The lemmas' versions live on [1/A, A] and have a unit for the constant; the minimax ones
        need neither.
        """
        width = self.approximator
        upper, constant = (1.0, False) if width == "minimax" else (None, True)
        options: Any = {"width": width, "upper": upper, "constant": constant}
        return (
            log_approximation(math.exp(self.range_log), self.eps, **options),
            log_approximation(1 / self.pi_min, self.eps, **options),
            square_approximation(self.r_max, self.square_delta, width=width, constant=constant),
        )

    @cached_property
    def program(self) -> Program:
        """The layers, built on first use; ValueError if they take more than `max_bytes`."""
        check_bytes(self.eps, self.max_bytes, lambda eps: replace(self, eps=eps).n_bytes())
        return em_parts(self.layout, *self.approximations).program()

    def hidden_widths(self) -> tuple[int, int]:
        """D' of the E-layer and of the M-layer, without building them."""
        d0, K0, width = self.d0, self.K0, self.approximator
        sides = 2 if width == "paper" else 1  # [1/A, A] or [1/A, 1]
        log_w = log_pieces(sides * self.range_log, self.eps, width)
        log_pi = log_pieces(-sides * math.log(self.pi_min), self.eps, width)
        square = square_pieces(self.r_max, self.square_delta, width)
        if width == "paper":
            log_w, log_pi, square = log_w + 1, log_pi + 1, square + 1
        else:
            square -= square % 2
        return K0 * log_w + 2 * (K0 + d0 + 1), K0 * log_pi + d0 * square + 2 * 3 * K0

    def n_bytes(self) -> int:
        """Memory that W1 and W2 of the three distinct layers take in float64."""
        e_layer, m_layer = self.hidden_widths()
        return 8 * 2 * self.layout.width * (e_layer + 2 * m_layer)

    def sizes(self, n_iter: int = 1) -> Sizes:
        """Sizes of the network for `n_iter` iterations, without building it.

        The norm is computed from functions of two units with the same Gram matrices; it is nan
        where a layer would have more than 2^27 hidden units.
        """
        if "program" in self.__dict__:
            return super().sizes(n_iter)
        hidden = self.hidden_widths() * n_iter
        norm = math.nan
        if max(hidden) <= MAX_PIECES:
            shrunk = em_parts(self.layout, *(shrink(f)[0] for f in self.approximations)).program()
            norm = Transformer(shrunk.layers(n_iter)).sizes().norm
        return Sizes(2 * n_iter, 2, self.layout.width, max(hidden), norm, (1, 2) * n_iter, hidden)

    def levels(self, X: Array, *, first: bool) -> Levels:
        """Error levels of one iteration on `X` (N, d), for `bounds.em_step_bound`.

        In the `first` one log pi and |mu|^2 come from the encoding and are exact.
        """
        log_w, log_pi, square = self.approximations
        u, (N, d) = ROUNDOFF[self.dtype], X.shape
        reach = float(np.linalg.norm(X, axis=1).max())
        size = reach * self.r_max + self.r_max**2 / 2 - math.log(self.pi_min) + math.log(N)
        scale = u / ROUNDOFF["float64"]
        approximate = log_pi.closed_form + d * square.closed_form / 2
        evaluated = scale * (log_pi.rounding + d * square.rounding / 2)
        eta = (self.layout.width + 4) * u * size + (0.0 if first else approximate + evaluated)
        eps = log_w.closed_form + scale * log_w.rounding + 4 * u * self.range_log
        return Levels(eta, eps, self.range_log, (N + 8) * u)

    # ---- running

    def kept(self, n: int, K: int) -> int:
        """How many of n samples are read: all, or with `remainder="drop"` a multiple of K."""
        return n - (n % K if self.remainder == "drop" else 0)

    def fill(self, data: Array, start: Estimate) -> Tokens:
        """The input tokens of equation (7)."""
        K = len(start.weights)
        N = self.kept(len(data), K)
        index = np.arange(N) % K
        stream = self.layout
        rows = np.zeros((K, stream.width))
        stream.put(rows, "log_pi", np.log(start.weights))
        stream.put(rows, "mu", start.means)
        stream.put(rows, "c", (start.means**2).sum(axis=1, keepdims=True))
        stream.put(rows, "one", 1.0)
        stream.put(rows, "e", np.eye(K))
        if self.remainder == "count":
            stream.put(rows, "log_n", np.log(np.bincount(index))[:, None])
        return self.tokens(rows, index, {"x": data[:N]})

    def outside(self, state: Any, X: Array) -> list[Left]:
        """The bounds among r_max and pi_min that `state` leaves."""
        if getattr(state, "scales", None) is not None:
            raise ValueError("this construction is for unit variances, got a start with scales")
        norm, weight = np.linalg.norm(state.means, axis=1).max(), np.min(state.weights)
        left = []
        if norm > self.r_max:
            left.append(Left("r_max", f"a mean of norm {norm:.6g}", shown_above(norm, 6)))
        if weight < self.pi_min:
            left.append(Left("pi_min", f"a weight {weight:.6g}", shown_below(weight, 6)))
        return left

    def pooling(self, d: int, K: int, N: int) -> Pooling:
        """The readout of Remark C.3 for dimension d, K components and N tokens."""
        if not (1 <= d <= self.d0 and 1 <= K <= self.K0):
            raise ValueError(f"need 1 <= d <= {self.d0} and 1 <= K <= {self.K0}, got {d} and {K}")
        linear = self.pooling_kind == "linear"
        if linear and N % K:
            raise ValueError(
                f"linear pooling needs K to divide N, got N = {N}, K = {K}; use "
                'pooling_kind="softmax" or remainder="drop"'
            )
        blank = np.zeros((d, self.layout.width))
        pi, mu, e = (self.layout[name].matrix for name in ("pi", "mu", "e"))
        return Pooling(
            "linear" if linear else "softmax",
            Qo=np.concatenate([(K if linear else _SHARPNESS) * np.eye(K), np.zeros((d, K))]),
            Ko=np.concatenate([e[:K], blank]),
            Vo=np.concatenate([pi[:K], mu[:d]]),
        )

    def readout(self, H: Any, d: int, K: int) -> Estimate:
        """Weights and means in the output tokens `H` (N, D): O = [pi ... pi; mu_1 ... mu_K]."""
        O = self.pool(H, self.pooling(d, K, len(H)))
        return Estimate(O[:K].mean(axis=1), O[K:].T.copy())
