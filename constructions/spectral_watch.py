"""Watches a run of the spectral construction for A1 to A4, from its own activations."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from constructions.transformer import State

if TYPE_CHECKING:
    from constructions.spectral import SpectralTransformer

_SLACK = 1e-9


class Watch:
    """Looks at each state of a run for n_components; ValueError names what is violated."""

    def __init__(self, network: SpectralTransformer, n_components: int) -> None:
        self.steps, self.read, self.limits = network.steps, network.reader, network.limits
        self.K = n_components
        self.restarts = range(network.starts.shape[1])
        self.lengths: list[float] = []

    def see(self, state: State) -> None:
        """Check what this state shows."""
        step, tokens = self.steps[state.layer - 1], state.tokens
        stage, k, after = step.stage, step.component, state.stage == "mlp"
        last = after and state.layer < len(self.steps) and self.steps[state.layer].stage != stage
        if k is None:
            if stage == "moments" and after:
                self._spectrum(tokens)
        elif k < self.K:
            if stage in ("power", "scores", "value") and not after:
                self._reach(tokens, k)
            elif stage in ("start", "power", "tournament") and after:
                vectors = (self.read.replicated(tokens, f"v{r}") for r in self.restarts)
                self.lengths = [float(np.linalg.norm(v)) for v in vectors]
            elif stage == "normalise":
                for r in self.restarts:
                    if self.lengths[r] > self.limits.norms[1]:
                        self._length(k, r)
            elif stage == "scores" and last:
                self._scores(tokens, k)
            elif stage == "value" and last:
                self._length(k, 0)
                self._eigenvalue(tokens, k)

    def _spectrum(self, tokens: Any) -> None:
        """A1."""
        spectrum = np.linalg.eigvalsh(self.read.stored(tokens, "A"))[::-1]
        b, K = self.limits, self.K
        low = max(b.tau + b.gap, b.sigma_min)
        least, edge = spectrum[K - 1], max([0.0, *spectrum[K : K + 1]])
        spread = max([0.0, *np.abs(spectrum[K:])])
        if (spectrum > b.tau).sum() != K or least < low or edge > b.tau - b.gap:
            hint = "the means are not independent enough for K components"
            if least > 3 * spread:
                hint = (
                    f"tau = {(least + edge) / 2:.3g} and gap < {(least - edge) / 2:.3g} would separate them"
                )
            raise ValueError(
                f"A1 is violated: the largest eigenvalues of the second moment are "
                f"{', '.join(f'{x:.4g}' for x in spectrum[: K + 2])}, where exactly K = {K} must lie in "
                f"[max(tau + gap, sigma_min), sigma_max] = [{low:g}, {b.sigma_max:g}] and the others below "
                f"tau - gap = {b.tau - b.gap:g}; {hint}"
            )
        if spectrum[0] > b.sigma_max:
            raise ValueError(
                f"A1 is violated: the largest eigenvalue of the second moment, {spectrum[0]:.4g}, exceeds "
                f"sigma_max = {b.sigma_max:g}; build with sigma_max >= {spectrum[0]:.4g}"
            )

    def _reach(self, tokens: Any, k: int) -> None:
        """A2."""
        for r in self.restarts:
            reach = np.abs(self.read.own(tokens, f"c{r}")).max()
            if reach > self.limits.c_max:
                largest = float(np.linalg.norm(self.read.own(tokens, "xt"), axis=1).max())
                raise ValueError(
                    f"A2 is violated in component {k}: |<v, W X_i>| reaches {reach:.4g}, more than c_max = "
                    f"{self.limits.c_max:g}; c_max >= {largest * self.limits.norms[1]:.4g} suffices for "
                    "these data"
                )

    def _length(self, k: int, r: int) -> None:
        """A3: the length after the power steps."""
        low, high = self.limits.norms
        if not low <= self.lengths[r] <= high:
            cure = "a smaller pi_min" if self.lengths[r] > high else "other starts or more power steps"
            raise ValueError(
                f"A3 is violated in component {k}: |v| = {self.lengths[r]:.3g} after the power steps of "
                f"restart {r} is outside [v_min, v_max] = [{low:g}, {high:.4g}]; {cure} would help"
            )

    def _scores(self, tokens: Any, k: int) -> None:
        """A3 where it decides the tournament, and A4."""
        t = np.array([self.read.replicated(tokens, f"t{r}")[0] for r in self.restarts])
        v = np.array([self.read.replicated(tokens, f"v{r}") for r in self.restarts])
        lengths = np.linalg.norm(v, axis=1)
        best = int(t.argmax())
        self._length(k, best)
        for r in self.restarts:
            if lengths[r] > 0 and t[r] / lengths[r] ** 3 > t[best] + self.limits.margin:
                self._length(k, r)
            # polishing squares a small difference with every step
            left = min(1.0, float(np.linalg.norm(v[r] - v[best]))) ** (2.0**self.limits.n_polish)
            if _SLACK < t[best] - t[r] < self.limits.margin and left > _SLACK:
                warnings.warn(
                    f"A4 is violated in component {k}: restarts {best} and {r} differ by "
                    f"{t[best] - t[r]:.2g} < margin = {self.limits.margin:g} in T(v, v, v), so their "
                    "mixture is iterated on; a smaller margin, or other starts, would separate them",
                    stacklevel=5,
                )

    def _eigenvalue(self, tokens: Any, k: int) -> None:
        """A3: lambda_k^2."""
        low, high = self.limits.squares
        square = float(self.read.replicated(tokens, "t0")[0]) ** 2
        if not low <= square <= high:
            raise ValueError(
                f"A3 is violated: lambda_{k}^2 = {square:.4g} is outside [{low:g}, {high:.4g}]: power "
                "iteration has not converged (more power steps), or pi_min is too large"
            )
