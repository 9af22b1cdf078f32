"""A trained TGMM as a scikit-learn estimator."""

from __future__ import annotations

import os
import warnings
from functools import lru_cache
from importlib.resources import files
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClusterMixin, DensityMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from gmm import GaussianMixture, estimate_scale
from trainable.checkpoint import load_network
from trainable.network import Network
from trainable.predict import estimate
from trainable.refine import refined
from trainable.sampler import RANGE

Array = NDArray[np.float64]

MIN_SAMPLES = 64
"""Fewest samples that the shipped networks were trained on (half of N0 = 128)."""

_REACH = RANGE + 5
"""Samples of the training tasks are hardly ever farther out: 5 and five standard deviations of the noise."""


def pretrained() -> list[str]:
    """Names of the networks that come with the package."""
    folder = files("trainable").joinpath("models")
    return sorted(
        f.name.removesuffix(".safetensors") for f in folder.iterdir() if f.name.endswith(".safetensors")
    )


def model_path(model: str) -> Path:
    """The file of a name (`pretrained()`), or the path that `model` is; ValueError if there is none."""
    if model in pretrained():
        return Path(str(files("trainable").joinpath("models", f"{model}.safetensors")))
    if not Path(model).exists():
        raise ValueError(f"no model {model!r}; there are {', '.join(pretrained())}, or give a file's path")
    return Path(model)


@lru_cache(maxsize=4)
def network_of(model: str) -> Network:
    """The network of a name or a path; ValueError if there is none, or it is damaged."""
    return load_network(model_path(model))[0].eval()


class TGMM(DensityMixin, ClusterMixin, BaseEstimator):  # type: ignore[misc]
    """Fit a mixture of Gaussians with one common, spherical noise level by passes of a trained transformer.

    The network was trained on means in [-5, 5]^d and noise of variance 1, on 64 to 128 samples.  `fit` brings
    the data there and takes the result back: it divides by the noise level `scale` and subtracts a centre; of
    more samples than 128 it reads a random 128 (refinement uses all); fewer coordinates than the network's
    are filled up with independent noise, of components with mean 0 there.

    Args:
        n_components: K; one of those that the network has readouts for.  (One component needs no network: it
            gets the data's mean.)
        model: Name of a network of the package (`trainable.pretrained()`), or a file's path.
        copies: The likeliest of so many passes, over images of the data under signed permutations of the
            coordinates; 1 is a single pass over the data as they are.
        refine: EM iterations appended to the network, as the layers of `constructions.EMTransformer`.
        scale: Noise level of the data (a number), or "auto": its maximum-likelihood estimate
            (`gmm.estimate_scale`).
        center: Whether to subtract the data's mean first (True or False); "auto" does so for data that reach
            farther than those that the network was trained on.
        outside: What to do with fewer samples than 64, or data that reach too far: "raise" or "warn".
        random_state: For the choice of samples, the filling, and the estimate of the noise level.

    Attributes:
        weights_: (K,), sum 1.
        means_: (K, d), in the data's units.
        scale_: The noise level.
        center_: (d,), what was subtracted.
        labels_: The most likely component of each sample (n,).
        n_components_: K.
        n_features_in_: d.
        n_iter_: EM iterations done.
    """

    def __init__(
        self,
        n_components: Any = 2,
        *,
        model: str | os.PathLike[str] = "tgmm-d8",
        copies: Any = 4,
        refine: Any = 0,
        scale: Any = "auto",
        center: Any = "auto",
        outside: Any = "raise",
        random_state: Any = 0,
    ) -> None:
        self.n_components = n_components
        self.model = model
        self.copies = copies
        self.refine = refine
        self.scale = scale
        self.center = center
        self.outside = outside
        self.random_state = random_state

    @classmethod
    def from_pretrained(
        cls, model: str | os.PathLike[str] = "tgmm-d8", refine: int = 0, **options: Any
    ) -> Self:
        """An estimator over a trained network.

        ValueError for a name that there is none of, or a damaged file.
        """
        network_of(os.fspath(model))
        return cls(model=model, refine=refine, **options)

    # ---- fitting

    def fit(self, X: ArrayLike, y: Any = None, *, n_components: int | None = None) -> Self:
        """Fit a mixture of `n_components` (by default the constructor's) to X (n, d).

        ValueError, saying what was got and what is wanted, for data or parameters that the network was not
        trained for.
        """
        data = self._data(X, reset=True)
        network = network_of(os.fspath(self.model))
        K = self._check(data, network, self.n_components if n_components is None else n_components)
        chance = check_random_state(self.random_state)
        rng = np.random.default_rng(chance.randint(2**31, size=4))
        scale = self._scale(data, K, rng)
        inner = data / scale
        center = self._center(inner)
        inner = inner - center
        self._check_reach(inner)
        found = estimate(network, inner, K, rng, copies=int(self.copies))
        found = refined(inner, found, self.refine)
        self.n_components_, self.scale_, self.n_iter_ = K, scale, int(self.refine)
        self.center_ = center * scale
        self.weights_ = found.weights
        self.means_ = found.means * scale + self.center_
        self.labels_ = self.predict(data)
        return self

    def _data(self, X: ArrayLike, *, reset: bool) -> Array:
        least = 2 if reset else 1
        return np.asarray(validate_data(self, X, dtype=np.float64, ensure_min_samples=least, reset=reset))

    def _check(self, data: Array, network: Network, K: Any) -> int:
        n, d = data.shape
        kinds = network.config.n_components
        if not isinstance(K, Integral) or (K != 1 and K not in kinds):
            raise ValueError(f"n_components={K!r}: this network was trained for {', '.join(map(str, kinds))}")
        if d > network.config.dim:
            raise ValueError(
                f"X has {d} features, but {os.fspath(self.model)} was trained on up to {network.config.dim}; "
                "project the data (e.g. sklearn.decomposition.PCA), or use a larger network"
            )
        for name, least in (("copies", 1), ("refine", 0)):
            value = getattr(self, name)
            if not isinstance(value, Integral) or value < least:
                raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
        if network.config.anisotropic:
            raise ValueError(
                "this network is for components with scales of their own; only unit noise is covered"
            )
        if self.outside not in ("raise", "warn"):
            raise ValueError(f'outside must be "raise" or "warn", got {self.outside!r}')
        if n < K:
            raise ValueError(f"n_samples={n} should be >= n_components={K}.")
        spread = np.ptp(data, axis=0)
        if (spread == 0).all():
            raise ValueError("all samples are equal: a mixture needs data with some spread")
        if (spread == 0).any():
            columns = ", ".join(str(j) for j in np.flatnonzero(spread == 0))
            raise ValueError(f"constant columns carry no information about a mixture; drop column {columns}")
        if n < MIN_SAMPLES:
            self._outside(f"n_samples={n}: the network was trained on at least {MIN_SAMPLES} samples")
        return int(K)

    def _scale(self, data: Array, K: int, rng: np.random.Generator) -> float:
        if isinstance(self.scale, str) and self.scale == "auto":
            return estimate_scale(data, K, rng=rng)
        if not isinstance(self.scale, Real) or not 0 < float(self.scale) < np.inf:
            raise ValueError(f'scale must be a positive number or "auto", got {self.scale!r}')
        return float(self.scale)

    def _center(self, inner: Array) -> Array:
        if self.center not in (True, False, "auto"):
            raise ValueError(f'center must be True, False or "auto", got {self.center!r}')
        if self.center is True or (self.center == "auto" and np.abs(inner).max() > _REACH):
            return np.asarray(inner.mean(axis=0))
        return np.zeros(inner.shape[1])

    def _check_reach(self, inner: Array) -> None:
        reach = float(np.abs(inner).max())
        if reach > _REACH:
            self._outside(
                f"the data reach {reach:.3g} noise levels from their centre, the network was trained on up "
                f"to about {_REACH:g}; a larger scale, or EM (gmm.fit_em), fits"
            )

    def _outside(self, message: str) -> None:
        if self.outside == "raise":
            raise ValueError(f'{message}; outside="warn" goes on all the same')
        warnings.warn(message, UserWarning, stacklevel=4)

    # ---- using the fit

    def _mixture(self) -> GaussianMixture:
        check_is_fitted(self)
        return GaussianMixture(self.weights_, self.means_ / self.scale_)

    def predict_proba(self, X: ArrayLike) -> Array:
        """Posterior probabilities (n, K)."""
        mixture = self._mixture()
        return mixture.responsibilities(self._data(X, reset=False) / self.scale_)

    def predict(self, X: ArrayLike) -> NDArray[np.intp]:
        """The most likely component of each sample (n,)."""
        return self.predict_proba(X).argmax(axis=1)

    def fit_predict(self, X: ArrayLike, y: Any = None, **options: Any) -> NDArray[np.intp]:
        """`fit`, then `predict` on the same data."""
        return self.fit(X, **options).predict(X)

    def score_samples(self, X: ArrayLike) -> Array:
        """Log-density of each sample (n,), nats."""
        mixture = self._mixture()
        data = self._data(X, reset=False)
        return np.asarray(mixture.score_samples(data / self.scale_) - data.shape[1] * np.log(self.scale_))

    def score(self, X: ArrayLike, y: Any = None) -> float:
        """Mean log-density of the samples, nats."""
        return float(self.score_samples(X).mean())

    def sample(self, n_samples: int = 1) -> tuple[Array, NDArray[np.int64]]:
        """New samples (n, d) of the fitted mixture, and their components (n,)."""
        mixture = self._mixture()
        if n_samples < 1:
            raise ValueError(f"n_samples must be at least 1, got {n_samples}")
        rng = np.random.default_rng(check_random_state(self.random_state).randint(2**31, size=4))
        X, labels = mixture.sample(n_samples, rng)
        return X * self.scale_, labels

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "means_")
