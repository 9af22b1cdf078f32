"""The whole spectral algorithm as a transformer: from sizes and bounds to weights, from data to tokens,
from the output tokens to a mixture.  The layers are in `spectral_layers`, what is assumed of the data in
`spectral_bounds`, and how a run is watched for it in `spectral_watch`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike

from constructions.construction import DTYPES, LARGEST, Construction, Estimate, Program, Run, as_array
from constructions.residual import Layout
from constructions.spectral_bounds import SpectralBounds
from constructions.spectral_layers import SpectralLayers, Step, spectral_layout
from constructions.spectral_read import Reader
from constructions.spectral_watch import Watch
from constructions.tokens import Tokens
from constructions.trace import Trace
from constructions.transformer import Mode, State, Transformer
from constructions.weights import Array, Layer, Pooling


class SpectralRun(Estimate):
    """An estimate with `used`, how the pass was evaluated, and `trace`, every activation, if asked for."""

    used: tuple[str, ...] = ()
    trace: Trace | None = None


class SpectralTransformer(Construction):
    """Explicit weights for Algorithms A.2 and A.3, for all d <= d0, K <= K0 <= d0 and N >= d0.

    d0, K0: largest dimension and number of components.
    tau, gap, sigma_min, sigma_max, c_max, pi_min, n_power, n_polish, n_max and the further `options`:
        `spectral_bounds.SpectralBounds`.
    n_restarts, rng: random start directions of length one for each component; or `starts` (K0, R, d0).
    dtype: "float64" or "float32".

    The number of components comes from the spectrum: eigenvalues of the second moment above tau.
    ValueError for bounds that contradict each other or sizes that make no sense.
    """

    def __init__(
        self,
        d0: int,
        K0: int,
        *,
        tau: float,
        gap: float,
        sigma_min: float,
        sigma_max: float,
        c_max: float,
        pi_min: float,
        n_power: int,
        n_restarts: int = 1,
        n_polish: int = 0,
        n_max: int = 2**15,
        rng: np.random.Generator | None = None,
        starts: ArrayLike | None = None,
        dtype: str = "float64",
        device: str = "cpu",
        **options: Any,
    ) -> None:
        if not 1 <= K0 <= d0 or int(d0) != d0 or int(K0) != K0:
            raise ValueError(f"need integers 1 <= K0 <= d0, got K0 = {K0} and d0 = {d0}")
        self.d0, self.K0 = int(d0), int(K0)
        self.dtype, self.device = str(dtype).removeprefix("torch."), device
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be float64 or float32, got {self.dtype}")
        try:
            self.limits = SpectralBounds(
                tau=tau, gap=gap, sigma_min=sigma_min, sigma_max=sigma_max, c_max=c_max, pi_min=pi_min,
                n_power=n_power, n_polish=n_polish, n_max=n_max, **options,
            )  # fmt: skip
        except TypeError as error:
            raise ValueError(f"unknown option: {error}") from None
        self.starts = self._starts(starts, n_restarts, rng)

    def _starts(self, starts: ArrayLike | None, n_restarts: int, rng: np.random.Generator | None) -> Array:
        if starts is None:
            if rng is None:
                raise ValueError("give rng to draw start directions from, or the starts themselves")
            if n_restarts < 1:
                raise ValueError(f"n_restarts must be at least 1, got {n_restarts}")
            directions: Array = rng.standard_normal((self.K0, n_restarts, self.d0))
        else:
            directions = as_array("starts", starts, 3)
            if (directions.shape[0], directions.shape[2]) != (self.K0, self.d0):
                raise ValueError(f"starts must be ({self.K0}, R, {self.d0}), got {directions.shape}")
        lengths = np.linalg.norm(directions, axis=2, keepdims=True)
        if lengths.min() == 0:
            raise ValueError("a start direction is zero")
        # directions of length one, as they come back from a file, stay as they are to the last bit
        return np.where(np.abs(lengths - 1) < 1e-15, directions, directions / lengths)

    # ---- weights

    @cached_property
    def layout(self) -> Layout:
        """The residual stream."""
        return spectral_layout(self.limits, self.K0, self.starts.shape[1], self.d0)

    @cached_property
    def steps(self) -> list[Step]:
        """Every layer with the stage and component that it works on."""
        return SpectralLayers(self.limits, self.starts).steps()

    @cached_property
    def program(self) -> Program:
        """All layers, once."""
        layers = tuple(step.layer for step in self.steps)
        return Program((), layers, layers)

    def layers(self, n_iter: int = 1) -> list[Layer]:
        """All layers; ValueError for an `n_iter` other than one: the algorithm is one pass."""
        if n_iter != 1:
            raise ValueError(f"the spectral algorithm is one pass, n_iter must be 1, got {n_iter}")
        return super().layers(1)

    @property
    def reader(self) -> Reader:
        """Reads the stream: own, replicated and stored."""
        return Reader(self.layout, self.d0)

    @property
    def schedule(self) -> dict[str, int]:
        """Layers of each stage, over all components."""
        counts: dict[str, int] = {}
        for step in self.steps:
            counts[step.stage] = counts.get(step.stage, 0) + 1
        return counts

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments but the device, as JSON values."""
        return {
            "d0": self.d0, "K0": self.K0, "dtype": self.dtype, "starts": self.starts.tolist(),
            **self.limits.config,
        }  # fmt: skip

    @property
    def bounds(self) -> dict[str, float]:
        """The numbers of A1 to A4."""
        return {name: value for name, value in self.limits.config.items() if isinstance(value, float)}

    @property
    def readout_text(self) -> str:
        """The readout in words."""
        return "linear pooling: query k is d0 e_k, key p, value [pis; slot]; column k is [pi; mu_k]"

    # ---- running

    def fill(self, X: ArrayLike) -> tuple[Tokens, Array]:
        """The input tokens for samples (N, d), and the samples as an array."""
        data = as_array("X", X, 2, largest=LARGEST)
        N, d = data.shape
        if d > self.d0:
            raise ValueError(
                f"this network holds dimension up to d0 = {self.d0}, got {d}; build one with d0 >= {d}"
            )
        if self.d0 > N:
            raise ValueError(
                f"N >= d0 = {self.d0} samples are needed for the position markers, got {N}; build a "
                f"network with d0 between {d} and {N}, or take more samples"
            )
        if self.limits.square == "select" and self.limits.n_max < N:
            raise ValueError(
                f"this network holds N up to n_max = {self.limits.n_max}, got {N}; build one with "
                f'n_max >= {N}, or with square="teeth"'
            )
        index = np.arange(N) % self.d0
        count = np.bincount(index)
        rows = np.zeros((self.d0, self.layout.width))
        self.layout.put(rows, "p", np.diag(np.sqrt(N / (self.d0 * count))))
        self.layout.put(rows, "one", 1.0)
        own: dict[str, Array] = {"x": data}
        if self.limits.square == "select":
            self.layout.put(rows, "count", float(N))
            digits = np.arange(N)[:, None] >> np.arange(self.limits.bits) & 1
            own["code"] = np.where(digits == 1, 1.0, -1.0)
        return self.tokens(rows, index, own), data

    def encode(self, X: ArrayLike) -> Array:
        """The input tokens (N, D): sample, position marker, 1, N and the digits of the position.

        X: (N, d) samples.  ValueError for data that are not finite, d > d0, N < d0 or N > n_max.
        """
        return cast(Array, self.fill(X)[0].dense().double().cpu().numpy())

    def readout(self, H: Any, d: int, K: int) -> Estimate:
        """Weights, divided by their sum, and means in the output tokens `H` (N, D).

        Components are in the order in which they were found.
        """
        raw = self.raw_readout(H, d, K)
        weights = np.clip(raw.weights, 0.0, 1.0)
        return raw._replace(weights=weights / weights.sum())

    def raw_readout(self, H: Any, d: int, K: int) -> Estimate:
        """What the network itself gives, pi_k = lambda_k^-2 as Algorithm A.2 returns it."""
        if not (1 <= d <= self.d0 and 1 <= K <= self.K0):
            raise ValueError(f"need 1 <= d <= {self.d0} and 1 <= K <= {self.K0}, got {d} and {K}")
        values = np.concatenate([self.layout[name].matrix[:n] for name, n in (("pis", K), ("slot", d))])
        query = self.d0 * np.eye(self.d0)[:, :K]
        O = self.pool(H, Pooling("linear", query, self.layout["p"].matrix, values))
        return Estimate(O[:K].mean(axis=1), O[K:].T.copy())

    def run(
        self, X: ArrayLike, n_components: int, *, mode: Mode = "auto", trace: bool = False
    ) -> SpectralRun:
        """The mixture that the network finds in the samples X (N, d).

        mode: as for `Transformer.forward`.  With `trace`, the result's `trace` holds every activation.
        ValueError naming the assumption, A1 to A3 of `spectral_bounds`, that the network's own
        activations violate, and a warning for A4; ValueError for sizes that it does not hold.
        """
        run = Run[Estimate](self.layout if trace else None)
        network = self.transformer()
        for state in self._states(network, X, n_components, mode):
            run.record(state)
        found = SpectralRun(*self.readout(state.tokens, np.shape(X)[1], n_components))
        found.trace, found.used = run.trace, network.used
        return found

    def states(self, X: ArrayLike, n_components: int, *, mode: Mode = "auto") -> Iterator[tuple[Step, State]]:
        """`run`, state by state: after the attention and after the MLP of each layer."""
        for state in self._states(self.transformer(), X, n_components, mode):
            if state.layer:
                yield self.steps[state.layer - 1], state

    def _states(self, network: Transformer, X: ArrayLike, n_components: int, mode: Mode) -> Iterator[State]:
        tokens, data = self.fill(X)
        if not 1 <= n_components <= self.K0:
            raise ValueError(
                f"this network holds 1 to K0 = {self.K0} components, got {n_components}; build one with "
                f"K0 >= {n_components}"
            )
        if n_components > data.shape[1]:
            raise ValueError(
                f"{n_components} means in dimension {data.shape[1]} are not independent, as A1 wants: "
                "the spectral algorithm fits at most as many components as dimensions"
            )
        watch = Watch(self, n_components)
        start = tokens.dense() if mode == "dense" else tokens
        yield State(0, "mlp", start)
        for state in network.states(start, mode):
            watch.see(state)
            yield state
