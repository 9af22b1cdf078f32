"""D^TF against N with L = O(log N) layers and eps = N^(-1/2) (Remark C.1).

    python -m tests.claims.rate --json docs/figures/rate_in_n.json

goes to N = 10^6 (about a quarter of an hour on one core); the suite to 3*10^4.
"""

import dataclasses
import math

import numpy as np
import tyro
from tqdm import tqdm

from constructions import EMTransformer
from constructions.cli import Common, check_outputs, main, write_outputs
from gmm import GaussianMixture, parameter_distance
from tests.claims.separated import separated

SIZES = ((2, 2), (4, 3), (8, 5))
C, BETA, A = 6.0, 0.5, 0.75


def distance(d, K, N, rng):
    """D^TF of one task: separation C = 6, a start at distance a, L = log(a sqrt N) / log(1/beta)."""
    truth = separated(d, K, C)
    shift = rng.standard_normal((K, d))
    start = truth.means + A * shift / np.linalg.norm(shift, axis=1, keepdims=True)
    X, _ = truth.sample(N, rng)
    L = math.ceil(math.log(A * math.sqrt(N)) / math.log(1 / BETA))
    em = EMTransformer(d, K, eps=N**-0.5, r_max=16, pi_min=0.02)
    last = em.run(X, GaussianMixture(truth.weights, start), L, mode="structured")[-1]
    return parameter_distance(GaussianMixture(last.weights / last.weights.sum(), last.means), truth)


def distances(d, K, sizes, tasks, rng, quiet=True):
    """D^TF of `tasks` tasks for each N, (len(sizes), tasks)."""
    bar = tqdm(sizes, desc=f"d = {d}, K = {K}", disable=True if quiet else None)
    return np.array([[distance(d, K, N, rng) for _ in range(tasks)] for N in bar])


def slope(sizes, found):
    """Of the mean logarithm against log N."""
    return float(np.polyfit(np.log(sizes), np.log(found).mean(axis=1), 1)[0])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    __doc__ = __doc__

    tasks: int = 10
    """Tasks for each N."""
    common: tyro.conf.OmitArgPrefixes[Common] = dataclasses.field(default_factory=Common)


def run(options: Options) -> None:
    check_outputs(None, options.common.json)
    sizes, rows = [10**3, 10**4, 10**5, 10**6], []
    for d, K in SIZES:
        rng = np.random.default_rng(options.common.seed)
        found = distances(d, K, sizes, options.tasks, rng, quiet=False)
        rows.append({"d": d, "K": K, "slope": slope(sizes, found), "distances": found})
        print(f"d = {d}, K = {K}: slope {rows[-1]['slope']:.3f}")
    if options.common.json is not None:
        write_outputs(None, options.common.json, {"N": sizes, "seed": options.common.seed, "rows": rows})


if __name__ == "__main__":
    main("tests.claims.rate", Options, run, None)
