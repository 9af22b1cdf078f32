"""What constructions that fit mixtures share: data and a start in, estimates out, bounds watched."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from typing import Any, NamedTuple, cast

from numpy.typing import ArrayLike

from constructions.construction import LARGEST, Construction, Estimate, Run, as_array
from constructions.tokens import Tokens
from constructions.transformer import Mode
from constructions.weights import Array

WEIGHT_SUM_TOLERANCE = 1e-6
"""How far from one the weights of a start may sum: float32 results are starts too."""


class Left(NamedTuple):
    """A bound that a state leaves: its name, what leaves it, the value that would hold it, and what
    leaving it means for a run."""

    bound: str
    what: str
    value: str
    then: str = "the error bound no longer holds from here"


class MixtureTransformer(Construction):
    """A construction whose tokens are samples and whose state is a mixture.

    Subclasses give the abstract members; d0 and K0 are the largest dimension and number of components.
    """

    d0: int
    K0: int

    @abstractmethod
    def outside(self, state: Any, X: Array) -> list[Left]:
        """The bounds that `state`, a mixture fitted to the samples `X` (N, d), leaves."""

    @abstractmethod
    def fill(self, data: Array, start: Estimate) -> Tokens:
        """The input tokens for valid data (N, d) and a start within the bounds."""

    @abstractmethod
    def readout(self, H: Any, d: int, K: int) -> Estimate:
        """What the output tokens `H` (N, D) hold."""

    def encode(self, X: ArrayLike, init: Any) -> Array:
        """The input tokens (N, D).

        X: (N, d) samples; init: anything with `weights` (K,) and `means` (K, d), and `scales` (K, d) for
        a construction that fits them.
        ValueError for data that are not finite, d > d0, K > K0, N < K, or a start outside the bounds.
        """
        return cast(Array, self.fill(*self._check(X, init)).dense().double().cpu().numpy())

    def run(
        self, X: ArrayLike, init: Any, n_iter: int, *, mode: Mode = "auto", trace: bool = False
    ) -> Run[Estimate]:
        """The readouts of `transformer(1)`, ..., `transformer(n_iter)`, from one pass.

        X, init: as for `encode`.  mode: as for `Transformer.forward`.  With `trace`, the result's
        `trace` holds every activation.  Warns when an iterate leaves a bound.
        """
        data, start = self._check(X, init)
        run = Run[Estimate](self.layout if trace else None)
        left: set[str] = set()
        for number, state in enumerate(self.iterate(self.fill(data, start), n_iter, mode, run), start=1):
            run.append(self.readout(state, data.shape[1], len(start.weights)))
            for bound, what, _, then in self.outside(run[-1], data):
                if bound not in left:
                    left.add(bound)
                    warnings.warn(
                        f"iteration {number}: {what} leaves the bound {bound} = "
                        f"{getattr(self, bound):g}; {then}",
                        stacklevel=2,
                    )
        return run

    def _check(self, X: ArrayLike, init: Any) -> tuple[Array, Estimate]:
        data, start = as_problem(X, init)
        K, d = start.means.shape
        for what, limit, got, top in (("dimension", "d0", d, self.d0), ("components", "K0", K, self.K0)):
            if got > top:
                raise ValueError(
                    f"this network holds {what} up to {limit} = {top}, got {got}; build one with "
                    f"{limit} >= {got}"
                )
        if len(data) < K:
            raise ValueError(f"N >= K is needed: got {len(data)} samples for {K} components")
        for bound, what, value, _ in self.outside(start, data):
            sign = "<=" if bound.endswith("min") else ">="
            raise ValueError(
                f"the start has {what}, outside {bound} = {getattr(self, bound):g}; build with "
                f"{bound} {sign} {value}"
            )
        return data, start


def as_problem(X: ArrayLike, init: Any) -> tuple[Array, Estimate]:
    """Samples (N, d), and the start, as float64 arrays.

    ValueError, saying what is wrong where, unless all are finite and of matching shapes and the weights
    are positive and sum to 1.
    """
    data = as_array("X", X, 2, largest=LARGEST)
    weights, means = as_array("weights", init.weights, 1), as_array("means", init.means, 2)
    if means.shape != (len(weights), data.shape[1]):
        raise ValueError(
            f"means must be (K, d) = {(len(weights), data.shape[1])} for these weights and data, "
            f"got {means.shape}"
        )
    scales = getattr(init, "scales", None)
    if scales is not None:
        scales = as_array("scales", scales, 2)
        if scales.shape != means.shape:
            raise ValueError(f"scales must be (K, d) = {means.shape}, got {scales.shape}")
        if scales.min() <= 0:
            raise ValueError(f"scales must be positive, got {scales.min():g}")
    if weights.min() <= 0:
        raise ValueError(f"weights must be positive, got {weights.min():g}")
    if abs(weights.sum() - 1) > WEIGHT_SUM_TOLERANCE:
        raise ValueError(f"weights must sum to 1, got {weights.sum():.9g}")
    return data, Estimate(weights, means, scales)
