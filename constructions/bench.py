"""What this costs beside a named peer: ratios, in pairs, in one run, with threads pinned.

Every ratio is the median over rounds in which both sides are timed one after the other; in brackets
the smallest and largest.  One EM iteration is the difference between runs of six and of one, divided
by five, so that reading data in is not counted.
"""

from __future__ import annotations

import dataclasses
import importlib
import resource
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import tyro
from threadpoolctl import threadpool_limits

from constructions.cli import Common, check_outputs, main, write_outputs
from constructions.construction import Estimate
from constructions.em import EMTransformer
from constructions.files import package_version
from constructions.weights import Array

PROGRAM = "constructions.bench"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:  # noqa: D101
    __doc__ = __doc__

    what: Literal["all", "em", "tensor"] = "all"
    """EM by structured evaluation, tensor power iteration, or both."""
    n: int = 1_000_000
    """Number of samples."""
    d: int = 8
    """Dimension."""
    K: int = 5
    """Number of components."""
    eps: float = 1e-3
    """Accuracy of the network."""
    tensor_d: int = 32
    """Dimension of the tensor, with K components."""
    rounds: int = 5
    """Pairs of timings."""
    threads: int = 2
    """Threads for every library."""
    common: tyro.conf.OmitArgPrefixes[Common] = dataclasses.field(default_factory=Common)


class Task(NamedTuple):
    """A network, data, and a start."""

    em: EMTransformer
    X: Array
    init: Estimate


def task(options: Options, n: int) -> Task:
    """`n` samples of a mixture with means in [-5, 5]^d, and a start near the truth."""
    rng = np.random.default_rng(options.common.seed)
    means = rng.uniform(-5, 5, (options.K, options.d))
    X = means[rng.integers(0, options.K, n)] + rng.standard_normal((n, options.d))
    init = Estimate(np.full(options.K, 1 / options.K), means + 0.3)
    r_max = float(2 ** np.ceil(np.log2(np.linalg.norm(X, axis=1).max())))
    return Task(EMTransformer(options.d, options.K, eps=options.eps, r_max=r_max, pi_min=1e-2), X, init)


def seconds(call: Callable[[], Any]) -> float:
    """Wall-clock time of one call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def iteration(run: Callable[[int], Any]) -> float:
    """Time of one more iteration."""
    return (seconds(lambda: run(6)) - seconds(lambda: run(1))) / 5


def peer(module: str, name: str) -> Any:
    """What is timed beside the constructions; nothing in this package depends on it."""
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError:
        raise ValueError(f'{module} is not installed; pip install -e ".[dev]" brings it') from None


def sklearn_em(data: Task) -> Callable[[int], Any]:
    """scikit-learn's EM with one variance per component."""
    mixture = peer("sklearn.mixture", "GaussianMixture")

    def run(n_iter: int) -> None:
        K = len(data.init.weights)
        model = mixture(
            K, covariance_type="spherical", max_iter=n_iter, tol=0, means_init=data.init.means,
            weights_init=data.init.weights, precisions_init=np.ones(K), init_params="random_from_data",
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it did not converge, nor should it
            model.fit(data.X)

    return run


def ours(data: Task, **options: Any) -> Callable[[int], Any]:
    """The constructed transformer."""
    return lambda n_iter: data.em.run(data.X, data.init, n_iter, **options)


def ratios(rounds: int, top: Callable[[], float], bottom: Callable[[], float]) -> list[float]:
    """top / bottom, timed in turns."""
    return [top() / bottom() for _ in range(rounds)]


def show(name: str, values: list[float]) -> dict[str, Any]:
    """Print a ratio and return it for the JSON file."""
    print(f"{name}: {np.median(values):.2f} [{min(values):.2f} .. {max(values):.2f}]", flush=True)
    return {"name": name, "median": float(np.median(values)), "all": values}


def peak_memory(options: Options) -> float:
    """Peak memory, in GiB, of a fresh process that does one iteration on the data."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_one_iteration, options).result()


def _one_iteration(options: Options) -> float:
    torch.set_num_threads(options.threads)
    ours(task(options, options.n))(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def run(options: Options) -> None:
    """The command."""
    for name in ("d", "K", "rounds", "threads"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name} must be at least 1, got {getattr(options, name)}")
    if options.n < 100 * options.K:
        raise ValueError(f"--n must be at least 100 K = {100 * options.K}, got {options.n}")
    check_outputs(None, options.common.json)
    torch.set_num_threads(options.threads)
    measured, memory = [], None
    with threadpool_limits(limits=options.threads):
        if options.what != "tensor":
            measured += measure_em(options)
            memory = peak_memory(options)
            print(f"peak memory of one iteration at n = {options.n}: {memory:.2f} GiB", flush=True)
        if options.what != "em":
            measured += measure_tensor(options)
    if options.common.json is not None:
        settings = dataclasses.asdict(options)
        results = {
            "options": {name: value for name, value in settings.items() if name != "common"},
            "ratios": measured,
            "peak_memory_gib": memory,
            "seed": options.common.seed,
            "version": package_version(),
        }
        write_outputs(None, options.common.json, results)


def measure_em(options: Options) -> list[dict[str, Any]]:
    """EM by structured evaluation."""
    rounds, n = options.rounds, options.n
    large, small, tiny = (task(options, size) for size in (n, n // 10, min(n, 2000)))
    for data in (large, small, tiny):
        ours(data)(1)  # build the network
    at = f"n = {n}, d = {options.d}, K = {options.K}, eps = {options.eps:g}"
    return [
        show(
            f"iteration, structured transformer / scikit-learn spherical ({at})",
            ratios(rounds, lambda: iteration(ours(large)), lambda: iteration(sklearn_em(large))),
        ),
        show(
            f"iteration, structured transformer, n = {n} / n = {len(small.X)}",
            ratios(rounds, lambda: iteration(ours(large)), lambda: iteration(ours(small))),
        ),
        show(
            f"run of one iteration, encoding included, n = {n} / n = {len(small.X)}",
            ratios(rounds, lambda: seconds(lambda: ours(large)(1)), lambda: seconds(lambda: ours(small)(1))),
        ),
        show(
            f"run of one iteration, dense / structured, n = {len(tiny.X)}",
            ratios(
                rounds,
                lambda: seconds(lambda: ours(tiny, mode="dense")(1)),
                lambda: seconds(lambda: ours(tiny)(1)),
            ),
        ),
    ]


def measure_tensor(options: Options) -> list[dict[str, Any]]:
    """Power steps of a planted tensor, restarts batched, against tensorly's."""
    rng = np.random.default_rng(options.common.seed)
    d, K, restarts, steps = options.tensor_d, options.K, 30, 30
    if d < K:
        raise ValueError(f"--K must be at most --tensor-d = {d}, got {K}")
    vectors = np.linalg.qr(rng.standard_normal((d, K)))[0]
    T = np.einsum("k,ik,jk,mk->ijm", np.linspace(1, 2, K), vectors, vectors, vectors)
    batched = peer("gmm", "robust_tensor_power")
    one_by_one = peer("tensorly.decomposition", "symmetric_power_iteration")

    def our_rate() -> float:
        taken = seconds(lambda: batched(T, K, n_restarts=restarts, n_iter=steps, n_polish=0, rng=rng))
        return K * restarts * steps / taken

    def their_rate() -> float:
        # each of its iterations takes three power steps, and the best start is iterated once more
        taken = seconds(lambda: one_by_one(T, n_repeat=2, n_iteration=steps // 3))
        return (2 + 1) * (steps // 3) * 3 / taken

    our_rate(), their_rate()
    name = f"power steps per second, gmm.robust_tensor_power / tensorly (d = {d}, K = {K})"
    return [show(name, ratios(options.rounds, our_rate, their_rate))]


if __name__ == "__main__":
    main(PROGRAM, Options, run, None)
