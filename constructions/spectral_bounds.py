"""What the spectral construction is built for: the assumptions A1 to A4 as numbers.

A1  M2 has exactly K eigenvalues in [max(tau + gap, sigma_min), sigma_max]; the others lie in
    [tau - sign_scale, tau - gap].
A2  |<v, W X_i>| <= c_max for every sample and every iterate v.
A3  when the power steps of a component end, v_min <= |v| <= v_max; lambda_k^2 lies in `squares`.
A4  (restarts) the T(v, v, v) compared are at least `margin` apart, or belong to nearly equal v.

What suffices.  Every iterate has |v| <= 1.125 y_max where |T_k(I, u, u)| <= y_max for unit vectors u, so
|W X_i| 1.125 y_max <= c_max gives A2.  On unit vectors a mixture's whitened tensor has
    |P u|^2 <= |T_k(I, u, u)| <= pi_min^(-1/2),
P the projection on the components that are left: with lambda_k = pi_k^(-1/2) and coefficients a_k of u,
(sum_left a_k^2)^2 <= (sum_left lambda_k^2 a_k^4) (sum_left pi_k).  After one step P u = u, and |v| is one
at least (section 4.7).  A start may be short, or the first step of a component small: f2 is positive
everywhere, so the direction is exact all the same, and |v| >= v_min again after a few steps.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any, Literal

from constructions.piecewise import PiecewiseLinear, reciprocal_approximation


@dataclass(frozen=True, kw_only=True)
class SpectralBounds:
    """See the top of this module.

    tau, gap, sigma_min, sigma_max: of the spectrum of M2.  c_max: the paper's C.  pi_min: least weight.
    n_power, n_polish: power steps per restart, and after the tournament.
    square: "select" (exact, needs N <= n_max) or "teeth" (n_teeth of them, no N).
    eps: what the Newton-Schulz and reciprocal iterations leave.
    v_min, y_max, margin: as above; y_max is 1.5 pi_min^(-1/2) unless given, half as much again as a
        population has.

    ValueError for numbers that contradict each other.
    """

    tau: float
    gap: float
    sigma_min: float
    sigma_max: float
    c_max: float
    pi_min: float
    n_power: int
    n_polish: int = 0
    n_max: int = 2**15
    square: Literal["select", "teeth"] = "select"
    n_teeth: int = 0
    eps: float = 1e-14
    v_min: float = 1e-3
    y_max: float = math.nan
    margin: float = 1e-6

    def __post_init__(self) -> None:
        if math.isnan(self.y_max):
            object.__setattr__(self, "y_max", 1.5 * self.pi_min**-0.5 if self.pi_min > 0 else math.nan)
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "square":
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ValueError(f"{field.name} must be a number, got {value!r}")
            if field.type == "int" and value != int(value):
                raise ValueError(f"{field.name} must be a whole number, got {value:g}")
            if field.name in ("n_polish", "n_teeth"):
                continue
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{field.name} must be positive and finite, got {value:g}")
        if not self.gap < self.tau:
            raise ValueError(f"gap must be below tau = {self.tau:g}, got {self.gap:g}")
        if not self.sigma_min < self.sigma_max or not self.tau + self.gap <= self.sigma_max:
            raise ValueError(
                f"sigma_max = {self.sigma_max:g} must exceed sigma_min = {self.sigma_min:g} and "
                f"tau + gap = {self.tau + self.gap:g}"
            )
        for name in ("pi_min", "eps", "v_min"):
            if not getattr(self, name) < 1:
                raise ValueError(f"{name} must be below 1, got {getattr(self, name):g}")
        if not self.y_max > 1:
            raise ValueError(f"y_max must exceed 1, got {self.y_max:g}")
        if self.square not in ("select", "teeth"):
            raise ValueError(f'square must be "select" or "teeth", got {self.square!r}')
        if (self.square == "teeth") != (self.n_teeth > 0) or self.n_polish < 0:
            raise ValueError(
                f'n_teeth must be positive with square="teeth" and 0 without, n_polish at least 0, got '
                f"{self.n_teeth} and {self.n_polish}"
            )

    @property
    def config(self) -> dict[str, Any]:
        """All numbers, as JSON values."""
        return asdict(self)

    @property
    def sign_scale(self) -> float:
        """s: the spectrum of (M2 - tau) / s lies in [-1, 1]; M2 >= -I always."""
        return max(self.sigma_max - self.tau, 1 + self.tau)

    @property
    def bits(self) -> int:
        """Digits of a token's number."""
        return max(1, math.ceil(math.log2(self.n_max)))

    @property
    def norms(self) -> tuple[float, float]:
        """v_min and v_max: f2 is at most 1.125 / s."""
        return self.v_min, 1.125 * self.y_max

    @property
    def squares(self) -> tuple[float, float]:
        """Between these lambda_k^2 must lie."""
        return 0.25, self.y_max**2

    @cached_property
    def reciprocal(self) -> PiecewiseLinear:
        """f2."""
        low, high = self.norms
        return reciprocal_approximation(low**2, high**2)

    @property
    def reciprocal_steps(self) -> int:
        """Steps z <- 2 z - a z^2 until 1 - a z, squared each time, is below eps for all a in `squares`."""
        low, high = self.squares
        start = (high - low) / (high + low)
        return max(1, math.ceil(math.log2(math.log(self.eps) / math.log(start))))
