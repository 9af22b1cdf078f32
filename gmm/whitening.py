"""Whitening a second moment, and the judgement whether it has directions for K components.

The paper takes "the first K-th SVD" of M2.  M2 of a sample is only bounded below by -I, and a singular
vector of a negative eigenvalue does not whiten it: with it W^T M2 W gets an entry -1.  So U holds the
eigenvectors of the K largest eigenvalues.
"""

from __future__ import annotations

import math
import warnings
from typing import NamedTuple

import numpy as np

from gmm.mixture import Array
from gmm.tensor import ROUNDOFF

CONDITION_LIMIT = ROUNDOFF ** (-2 / 3)
"""Largest ratio of eigenvalues of M2: whitening amplifies rounding by its power 3/2, here to one."""

NOISELESS = 1e-6
"""Beside the K-th eigenvalue the others of a sample's M2 are larger than this, but for rounding zero in
a set of points built to have a mixture's moments."""

TRACY_WIDOM = 2.0234
"""The 99 per cent quantile of the Tracy-Widom law of order one (Johnstone 2001, Table 1)."""


class Whitening(NamedTuple):
    """Top eigenvectors U (d, K) and eigenvalues D (K,) of M2, and all its eigenvalues (d,)."""

    basis: Array
    sizes: Array
    spectrum: Array

    @property
    def W(self) -> Array:
        """U D^(-1/2), (d, K): W^T M2 W = I."""
        return self.basis / np.sqrt(self.sizes)

    @property
    def B(self) -> Array:
        """U D^(1/2), (d, K): B W^T is the projection on the span of U."""
        return self.basis * np.sqrt(self.sizes)


def sampling_noise(n: int, dim: int, n_components: int, variance: float = 1.0) -> float:
    """What the K-th eigenvalue of M2 exceeds by chance in about 1 sample of 100, for n samples.

    If the means span fewer than K dimensions then, by Courant and Fischer, the K-th eigenvalue of M2 is
    at most the largest one of the samples' parts orthogonal to K - 1 directions that contain the means:
    noise alone, in p = d - K + 1 dimensions.  That one exceeds sigma^2 (m + q s) / n - sigma^2, with
    m = (a + b)^2, s = (a + b) (1/a + 1/b)^(1/3), a^2 = n - 1/2 and b^2 = p - 1/2, about as often as
    the Tracy-Widom law exceeds q (Johnstone 2001, Ma 2012).
    """
    a, b = math.sqrt(n - 0.5), math.sqrt(max(1, dim - n_components + 1) - 0.5)
    edge, spread = (a + b) ** 2, (a + b) * (1 / a + 1 / b) ** (1 / 3)
    return variance * ((edge + TRACY_WIDOM * spread) / n - 1)


def check_components(n_components: int, dim: int, best_effort: bool) -> None:
    """ValueError for a number of components that the second moment has no room for."""
    if n_components < 1:
        raise ValueError(f"n_components must be at least 1, got {n_components}")
    if n_components > dim and not best_effort:
        raise ValueError(
            f"{n_components} components in dimension {dim}: the spectral method tells at most as many "
            "apart as there are dimensions; use fit_em, or best_effort=True for a rough guess"
        )


def whiten(m2: Array, n_components: int, chance: float = 0.0, best_effort: bool = False) -> Whitening:
    """The K eigenvectors of the largest eigenvalues of M2 (d, d).

    ValueError where the K-th eigenvalue is not above `chance` and the level of rounding; `chance` is no
    explanation where the eigenvalues after the K-th show no noise.  With `best_effort` it is a warning,
    and all those of the K that are above rounding are taken; ValueError if there are none.
    """
    ascending, vectors = np.linalg.eigh(m2)
    spectrum, basis = ascending[::-1], vectors[:, ::-1]
    rounding = float(np.abs(spectrum).max()) / CONDITION_LIMIT
    others = np.abs(spectrum[n_components:])
    if others.size and others.max() <= NOISELESS * spectrum[n_components - 1]:
        chance = 0.0
    floor = max(chance, rounding)
    shown, usable = int((spectrum > floor).sum()), int((spectrum > rounding).sum())
    if shown < n_components:
        below = f"; eigenvalue {shown + 1} is {spectrum[shown]:.3g}" if shown < len(spectrum) else ""
        finding = (
            f"the second moment shows {shown} directions for {n_components} components{below}, and "
            f"{floor:.3g} is what {'chance' if chance > rounding else 'rounding'} explains"
        )
        if usable == 0 or not best_effort:
            raise ValueError(
                f"{finding}; are the means linearly independent?  Use more samples, fewer components "
                "or fit_em" + (", or best_effort=True for a rough guess" if usable else "")
            )
        warnings.warn(f"{finding}; the estimate is a rough guess", stacklevel=3)
    kept = min(n_components, usable)
    return Whitening(basis[:, :kept], spectrum[:kept], spectrum)
