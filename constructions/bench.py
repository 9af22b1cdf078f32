"""What the structured evaluation costs: ratios against a named peer, in pairs, in one run.

Every ratio is the median over rounds in which both sides are timed one after the other; in brackets
the smallest and largest.  One iteration is the difference between runs of six and of one, divided by
five, so that reading data in is not counted.
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
from typing import Any, NamedTuple

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

    n: int = 1_000_000
    """Number of samples."""
    d: int = 8
    """Dimension."""
    K: int = 5
    """Number of components."""
    eps: float = 1e-3
    """Accuracy of the network."""
    rounds: int = 5
    """Pairs of timings."""
    threads: int = 2
    """Threads for every library."""
    common: tyro.conf.OmitArgPrefixes[Common] = Common()  # noqa: RUF009


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


def peer(data: Task) -> Callable[[int], Any]:
    """scikit-learn's EM with one variance per component.

    It is asked for by name: nothing in this package depends on it.
    """
    mixture = importlib.import_module("sklearn.mixture").GaussianMixture

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
    check_outputs(options.common.json)
    torch.set_num_threads(options.threads)
    with threadpool_limits(limits=options.threads):
        measured = measure(options)
    memory = peak_memory(options)
    print(f"peak memory of one iteration at n = {options.n}: {memory:.2f} GiB")
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


def measure(options: Options) -> list[dict[str, Any]]:
    """All ratios."""
    rounds, n = options.rounds, options.n
    large, small, tiny = (task(options, size) for size in (n, n // 10, min(n, 2000)))
    for data in (large, small, tiny):
        ours(data)(1)  # build the network
    at = f"n = {n}, d = {options.d}, K = {options.K}, eps = {options.eps:g}"
    return [
        show(
            f"iteration, structured transformer / scikit-learn spherical ({at})",
            ratios(rounds, lambda: iteration(ours(large)), lambda: iteration(peer(large))),
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


if __name__ == "__main__":
    main(PROGRAM, Options, run, None)
