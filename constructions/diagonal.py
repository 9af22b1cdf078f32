"""EM for Gaussian mixtures with diagonal covariances as a transformer: from sizes and bounds to weights,
from data to tokens and back.  The layers, with their derivation, are in `diagonal_layers`.
"""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, asdict, dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from constructions.construction import Estimate, Program
from constructions.diagonal_bounds import DiagonalLevels
from constructions.diagonal_layers import diagonal_layout, diagonal_parts
from constructions.geometric import (
    ClippedPair,
    GeometricSum,
    clipped_reciprocal_and_log,
    clipped_units,
    geometric_square,
    piece_length,
    square_units,
)
from constructions.limits import (
    ROUNDOFF,
    check_bytes,
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
from constructions.piecewise import MAX_PIECES, PiecewiseLinear, log_approximation, log_pieces
from constructions.residual import Layout
from constructions.tokens import Tokens
from constructions.transformer import Transformer
from constructions.weights import Array, Pooling, Sizes

_SHARPNESS = 100.0
"""Score of a component's own token in the readout; all others together weigh less than N e^-100."""

_MARGIN = 1000.0
"""B over the largest logit of data within the bounds: outliers far beyond r_max stay above -B too."""


class Approximations(NamedTuple):
    """The functions that the MLPs compute."""

    log_w: PiecewiseLinear
    log_pi: PiecewiseLinear
    square: GeometricSum
    of_variance: ClippedPair


@dataclass(frozen=True, eq=False)
class DiagonalEMTransformer(MixtureTransformer):
    """Explicit weights for EM with a variance per component and coordinate, built from sizes and bounds.

    d0, K0: largest dimension and number of components.
    eps: error of each log; of each square and precision as a factor e^eps.
    r_max: bound on |X_ij - mu_kj|, sample by sample and coordinate by coordinate, for every mean met; the
        largest range of a coordinate of the data is enough once means lie among them.  Costs log(r_max).
    pi_min: bound on every weight.
    scale_min, scale_max: bounds on every standard deviation.  In the E-step a smaller one counts as
        scale_min, a larger one as scale_max; the estimates are not clipped.
    log_A: log of the range of the responsibilities' logarithm; unless given, large enough that
        responsibilities below 1/A change a variance by a factor of at most about 1 + eps.
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
    scale_min: float
    scale_max: float
    log_A: float | None = None
    dtype: str = "float64"
    device: str = "cpu"
    max_bytes: int = 4 * 2**30

    def __post_init__(self) -> None:
        set_sizes(self, "d0", "K0")
        set_positive(self, eps=1.0, r_max=math.inf, pi_min=1.0, scale_min=math.inf, scale_max=math.inf)
        for high, factor in (("scale_max", 1), ("r_max", 2)):
            if getattr(self, high) <= factor * self.scale_min:
                low = "scale_min" if factor == 1 else f"{factor} scale_min"
                raise ValueError(
                    f"{high} must exceed {low} = {factor * self.scale_min:g}, got {getattr(self, high):g}"
                )
        set_dtype(self, largest="1 / scale_min^2")
        check_log_range(self.range_log, self.pi_min, self.dtype)
        floor = ROUNDOFF[self.dtype] * self.r_max / self.scale_min
        check_rounding(self.eps, floor, f"r_max / scale_min in {self.dtype}", "a larger scale_min")

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments but the device, as JSON values."""
        return {name: value for name, value in asdict(self).items() if name != "device"}

    @property
    def bounds(self) -> dict[str, float]:
        """Ranges, and errors of the approximations (of square and precision as the log of a factor)."""
        log_w, log_pi, square, (precision, log_v) = self.approximations
        ranges = ("r_max", "pi_min", "scale_min", "scale_max")
        rounding = ROUNDOFF[self.dtype] / ROUNDOFF["float64"]
        return {
            **{name: getattr(self, name) for name in ranges},
            "log_A": self.range_log,
            "log_w_error": log_w.sup_error,
            "log_pi_error": log_pi.sup_error,
            "square_factor": square.relative + rounding * square.rounding,
            "square_error_at_zero": square.absolute,
            "precision_factor": precision.relative + rounding * precision.rounding,
            "log_v_error": log_v.absolute + rounding * log_v.rounding,
        }

    @property
    def readout_text(self) -> str:
        """The readout in words."""
        return (
            f"softmax pooling: query k is {_SHARPNESS:g} e_k, key e, value [pi; mu; v]; column k of the "
            "output is [pi; mu; v], of which blocks k of mu and v are the mean and the variances of k"
        )

    # ---- weights and their sizes

    @property
    def range_log(self) -> float:
        """log A of the responsibilities' logarithm."""
        if self.log_A is not None:
            return float(self.log_A)
        spread = 2 * math.log(self.r_max / self.scale_min) + math.log(2)
        return spread - math.log(self.eps) - math.log(self.pi_min)

    @property
    def flat_logit(self) -> float:
        """A bound on log pi_k + g_k, as the network computes it, up to sign."""
        log_scale = max(abs(math.log(self.scale_min)), abs(math.log(self.scale_max)))
        return self.d0 * (log_scale + 1) + 2 - math.log(self.pi_min)

    @property
    def silence(self) -> float:
        """B: what tokens that stand for no component score below 0."""
        far = math.exp(2 * self.eps) * (self.r_max / self.scale_min) ** 2 / 2
        return _MARGIN * (self.d0 * far + self.flat_logit)

    @cached_property
    def layout(self) -> Layout:
        """The residual stream."""
        return diagonal_layout(self.d0, self.K0)

    @cached_property
    def approximations(self) -> Approximations:
        """log on responsibilities, log on weights, x^2, and 1/v with log v."""
        options: Any = {"upper": 1.0, "constant": False}
        return Approximations(
            log_approximation(math.exp(self.range_log), self.eps, **options),
            log_approximation(1 / self.pi_min, self.eps, **options),
            geometric_square(self.r_max, self.scale_min, self.eps),
            clipped_reciprocal_and_log(self.scale_min**2, self.scale_max**2, self.eps),
        )

    @cached_property
    def program(self) -> Program:
        """The layers, built on first use; ValueError if they take more than `max_bytes`."""
        check_bytes(self.eps, self.max_bytes, lambda eps: replace(self, eps=eps).n_bytes())
        return diagonal_parts(self.layout, *self.approximations, self.silence).program()

    def hidden_widths(self) -> tuple[int, int, int, int]:
        """D' of layer 0, E, M1 and M2, without building them."""
        d0, K0 = self.d0, self.K0
        square = K0 * d0 * square_units(self.r_max, self.scale_min, self.eps)
        variances = K0 * d0 * clipped_units(self.scale_min**2, self.scale_max**2, self.eps)
        log_w, log_pi = (
            K0 * log_pieces(length, self.eps) for length in (self.range_log, -math.log(self.pi_min))
        )
        e_layer = log_w + 2 * (4 * K0 * d0 + 2 * K0 + 1)
        return log_pi + square + variances, e_layer, log_pi + square + 2 * K0, variances + 2 * K0

    def n_bytes(self) -> int:
        """Memory that W1 and W2 of the four distinct layers take in float64."""
        return 8 * 2 * self.layout.width * sum(self.hidden_widths())

    def sizes(self, n_iter: int = 1) -> Sizes:
        """Sizes of the network for `n_iter` iterations, without building it.

        The norm is computed from functions of two units with the same Gram matrices; it is nan
        where a layer would have more than 2^27 hidden units.
        """
        if "program" in self.__dict__:
            return super().sizes(n_iter)
        first, *step = self.hidden_widths()
        hidden = (first, *step * n_iter)
        norm = math.nan
        if max(hidden) <= MAX_PIECES:
            log_w, log_pi, square, of_variance = self.approximations
            small_w, small_pi, small_square = (shrink(f)[0] for f in (log_w, log_pi, square))
            small = (small_w, small_pi, small_square, shrink(*of_variance))
            parts = diagonal_parts(self.layout, *small, self.silence)
            norm = Transformer(parts.program().layers(n_iter)).sizes().norm
        heads = (0, *(1, self.K0 + 1, 1) * n_iter)
        return Sizes(len(hidden), self.K0 + 1, self.layout.width, max(hidden), norm, heads, hidden)

    def levels(self, X: Array) -> DiagonalLevels:
        """Error levels of one iteration on `X` (N, d), for `diagonal_bounds.diagonal_step_bound`."""
        log_w, log_pi, square, (precision, log_v) = self.approximations
        u = ROUNDOFF[self.dtype]
        scale = u / ROUNDOFF["float64"]
        return DiagonalLevels(
            square=square.relative + scale * square.rounding,
            floor=square.absolute,
            precision=precision.relative + scale * precision.rounding,
            log_v=log_v.absolute + scale * log_v.rounding,
            log_pi=log_pi.closed_form + scale * log_pi.rounding,
            log_w=log_w.closed_form + scale * log_w.rounding + 4 * u * self.range_log,
            log_A=self.range_log,
            r_max=self.r_max,
            pi_min=self.pi_min,
            scale_min=self.scale_min,
            scale_max=self.scale_max,
            average=(len(X) + 8) * u,
            score=(self.layout.width + 4) * u,
            size=self.flat_logit + math.log(len(X)),
            residual=4 * math.exp(piece_length(self.eps) / 2) * (square.units + 8) * u,
        )

    # ---- running

    def fill(self, data: Array, start: Estimate) -> Tokens:
        """The input tokens: x, and on all of them pi, mu, v; e on the first K, one for each component."""
        if start.scales is None:
            raise ValueError("a start without scales")
        (K, d), N = start.means.shape, len(data)
        stream = self.layout
        rows = np.zeros((K + (N > K), stream.width))
        stream.put(rows, "pi", start.weights)
        for name, values in (("mu", start.means), ("v", start.scales**2)):
            padded = np.zeros((K, self.d0))
            padded[:, :d] = values
            stream.put(rows, name, padded.ravel())
        stream.put(rows, "one", 1.0)
        stream.put(rows[:K], "e", np.eye(K))
        return self.tokens(rows, np.minimum(np.arange(N), K), {"x": data})

    def outside(self, state: Any, X: Array) -> list[Left]:
        """The bounds among r_max, pi_min, scale_min and scale_max that `state` leaves."""
        scales = getattr(state, "scales", None)
        if scales is None:
            raise ValueError(
                "this construction fits one variance per component and coordinate and needs a start with "
                "scales (K, d), got one without; add them, for example scales=np.ones((K, d))"
            )
        far = max(np.abs(X - mean).max() for mean in state.means)
        weight, least, most = np.min(state.weights), np.min(scales), np.max(scales)
        left = []
        if far > self.r_max:
            what = f"a sample {far:.6g} away from a mean in one coordinate"
            left.append(Left("r_max", what, shown_above(far, 6)))
        if weight < self.pi_min:
            left.append(Left("pi_min", f"a weight {weight:.6g}", shown_below(weight, 6)))
        for bound, scale, out, shown in (
            ("scale_min", least, least < self.scale_min, shown_below),
            ("scale_max", most, most > self.scale_max, shown_above),
        ):
            if out:
                then = f"the E-step uses {bound} instead, and the error bound is to EM that does so too"
                left.append(Left(bound, f"a scale {scale:.6g}", shown(scale, 6), then))
        return left

    def pooling(self, d: int, K: int) -> Pooling:
        """The readout for dimension d and K components."""
        if not (1 <= d <= self.d0 and 1 <= K <= self.K0):
            raise ValueError(f"need 1 <= d <= {self.d0} and 1 <= K <= {self.K0}, got {d} and {K}")
        pi, mu, v, e = (self.layout[name].matrix for name in ("pi", "mu", "v", "e"))
        blocks = (K, self.d0, -1)
        parts = [block[: K * self.d0].reshape(blocks)[:, :d].reshape(K * d, -1) for block in (mu, v)]
        values = np.concatenate([pi[:K], *parts])
        blank = np.zeros((len(values) - K, K))
        return Pooling(
            "softmax", np.concatenate([_SHARPNESS * np.eye(K), blank]), _pad(e[:K], values), values
        )

    def readout(self, H: Any, d: int, K: int) -> Estimate:
        """Weights, means and scales in the output tokens `H` (N, D)."""
        O = self.pool(H, self.pooling(d, K))
        means, variances = O[K:].reshape(2, K, d, K)[:, range(K), :, range(K)].transpose(1, 0, 2)
        return Estimate(O[:K].mean(axis=1), means, np.sqrt(np.maximum(variances, 0)))


def _pad(keys: Array, values: Array) -> Array:
    """`keys` with rows of zeros, as many rows in all as `values` has."""
    return np.concatenate([keys, np.zeros((len(values) - len(keys), keys.shape[1]))])
