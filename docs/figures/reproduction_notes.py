"""Conventions of an evaluation
============================

What an evaluation gives under conventions that are easily confused, each beside the right one.

::

    python docs/figures/reproduction_notes.py

writes its numbers and two pictures beside this file (six minutes on one core).

All on tasks of section 3.1 with d = 8 and N = 128, K = 2 to 5.
"""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import torch
from frame import Map, in_turn, script
from matplotlib.figure import Figure
from scipy.special import logsumexp

from constructions.plot_parts import BLACK, BLUE, GREEN, GREY, ORANGE
from gmm import GaussianMixture, TaskDistribution, l2_error, match_components
from gmm.tasks import Task
from trainable.estimator import network_of
from trainable.experiments import PAPER
from trainable.fits import fit_task, oracle
from trainable.network import Network, Readout

SEED, D, N = 5, 8, 128
KINDS = (2, 3, 4, 5)
DRAWS = 4000
MODEL = "tgmm-d8"


def un_inverted(estimate: GaussianMixture, truth: GaussianMixture) -> float:
    """The l2-error after ordering the estimate by the inverse of the right permutation.

    A linear assignment on the costs [estimate, truth] says for each estimate which truth it belongs to; to
    index the estimate with that is right for a permutation that is its own inverse, not for three-cycles.
    """
    wrong = np.argsort(match_components(estimate, truth))
    moved = estimate.permuted(wrong)
    means = ((moved.means - truth.means) ** 2).mean(axis=1)
    return float((means + (moved.weights - truth.weights) ** 2).mean())


def sorted_labels(task: Task, rng: np.random.Generator) -> GaussianMixture:
    """The Bayes estimator of the components in ascending order of weight, by one who sees the labels.

    The order is not known even then: the posterior of the weights given the counts leaves nearly equal ones
    open, and the mean over the orders mixes their means.  (The prior is section 3.1's, by importance
    sampling.)
    """
    K, known = task.mixture.n_components, oracle(task)
    counts = np.bincount(task.labels, minlength=K)
    draws = rng.uniform(0.2, 0.8, (DRAWS, K))
    draws /= draws.sum(axis=1, keepdims=True)
    likelihood = np.log(draws) @ counts
    share = np.exp(likelihood - logsumexp(likelihood))
    order = np.argsort(draws, axis=1)
    # chance[j, k]: that component k has the j-th smallest weight.
    chance = np.array([np.bincount(order[:, j], share, minlength=K) for j in range(K)])
    weights = share @ np.sort(draws, axis=1)
    return GaussianMixture(weights, chance @ known.means)


def over_samples(mixture: GaussianMixture, X: Any) -> float:
    """The log of sums over the samples in the place of the components, averaged over the components."""
    return float(logsumexp(mixture.joint_log_density(X), axis=0).mean())


def inverted_mask(network: Network, X: Any, K: int) -> GaussianMixture:
    """The network's estimate when its pooling is kept from the samples in the place of the padding.

    In a batch without any padding all scores are then the lowest number there is, and every query averages
    all samples alike.
    """
    data = torch.tensor(X[None], dtype=torch.float32)
    readout = network.readouts[network.config.n_components.index(K)]
    assert isinstance(readout, Readout)
    with torch.no_grad():
        *_, H = network.states(data, [(K, 1)])
        scores = torch.full_like(readout.K(H) @ readout.Q, torch.finfo(torch.float32).min)
        O = (readout.V(H).mT @ torch.softmax(scores, dim=1))[0].double().numpy()
    return GaussianMixture(np.full(K, 1 / K), network.config.scale * O[K:].T)


def one_task(K: int, t: int) -> dict[str, float]:
    """All figures of one task."""
    rng = np.random.default_rng([SEED, K, t])
    truth = TaskDistribution(D).sample_mixture(K, rng)
    task = Task(*truth.sample(N, rng), truth)
    known = oracle(task)
    shuffled = known.permuted(rng.permutation(K))
    fits = {name: fit_task(f"em_{name}", task, rng) for name in ("normal", "one", "best")}
    masked = inverted_mask(network_of(MODEL), task.X, K)
    own = TaskDistribution(D, anisotropic=True).sample_mixture(K, rng)
    assert own.scales is not None
    with_scales = oracle(Task(*own.sample(N, rng), own))
    assert with_scales.scales is not None
    variances = GaussianMixture(own.weights, own.means, own.scales**2)
    em = fits["normal"]
    assert em is not None
    return {
        "oracle": l2_error(shuffled, truth),
        "oracle, un-inverted": un_inverted(shuffled, truth),
        **{f"em, {name}": l2_error(fit, truth) for name, fit in fits.items() if fit is not None},
        "em, normal, un-inverted": un_inverted(em, truth),
        "sorted labels": l2_error(sorted_labels(task, rng), truth),
        "inverted mask": l2_error(masked, truth),
        "inverted mask, spread of the means": float(np.ptp(masked.means, axis=0).max()),
        "scales": l2_error(with_scales, own),
        "scales as variances": l2_error(with_scales, variances),
        "log-likelihood, oracle": known.log_likelihood(task.X),
        "log-likelihood, em": em.log_likelihood(task.X),
        "over samples, oracle": over_samples(known, task.X),
        "over samples, em": over_samples(em, task.X),
    }


def inverses(K: int) -> float:
    """Share of the permutations of K that are their own inverse."""
    every = list(permutations(range(K)))
    return sum(all(p[p[k]] == k for k in range(K)) for p in every) / len(every)


def compute(tasks: range, sweep: Map = in_turn, kinds: tuple[int, ...] = KINDS) -> dict[str, Any]:
    """Means over the tasks and half the widths of their 95% intervals, for each K."""
    every = iter(sweep(one_task, [(K, t) for K in kinds for t in tasks]))
    rows, first = {}, {}
    for K in kinds:
        found = [next(every) for _ in tasks]
        first[str(K)] = found[0]
        row: dict[str, Any] = {}
        for name in found[0]:
            values = np.array([one[name] for one in found])
            half = 1.96 * values.std(ddof=1) / len(tasks) ** 0.5
            row[name] = [float(f"{x:.4g}") for x in (values.mean(), half)]
        rows[str(K)] = row
    own = {str(K): inverses(K) for K in kinds}
    about = {"model": MODEL, "d": D, "N": N, "seed": SEED, "tasks": len(tasks)}
    return about | {"rows": rows, "first": first, "own inverses": own}


def draw(results: dict[str, Any]) -> Figure:
    """Six pictures over K."""
    figure = Figure(figsize=(13, 8.2), layout="constrained")
    every = figure.subplots(2, 3)
    kinds = [int(K) for K in results["rows"]]

    def line(axes: Any, name: str, label: str, colour: str, style: str) -> None:
        mean, half = np.array([results["rows"][str(K)][name] for K in kinds]).T
        axes.errorbar(
            kinds, mean, half, fmt=style, color=colour, label=label, capsize=2, markersize=5, fillstyle="none"
        )

    align, order, start, mask, scale, axis = every.flat
    line(align, "em, normal", "EM from N(0, I), right", ORANGE, "^-")
    line(align, "em, normal, un-inverted", "EM from N(0, I), un-inverted", ORANGE, "^--")
    line(align, "oracle", "labels known, right", BLACK, "o-")
    line(align, "oracle, un-inverted", "labels known, un-inverted", BLACK, "o--")
    align.plot(kinds, PAPER["em_normal"][D], "x:", color=GREY, label="the paper's EM (about)")
    line(order, "oracle", "labels known", BLACK, "o-")
    line(order, "sorted labels", "best possible for sorted labels", BLUE, "s-")
    order.plot(kinds, PAPER["raw"][D], "x:", color=GREY, label="the paper's TGMM (about)")
    line(start, "em, normal", "from N(0, I)", ORANGE, "^-")
    line(start, "em, one", "one k-means++ start", BLUE, "v-")
    line(start, "em, best", "best of ten", GREEN, "s-")
    line(mask, "oracle", "labels known", BLACK, "o-")
    line(mask, "inverted mask", "all K means the same", BLUE, "s-")
    line(scale, "scales", "deviations against deviations", BLACK, "o-")
    line(scale, "scales as variances", "deviations against variances", ORANGE, "^-")
    line(axis, "log-likelihood, oracle", "over components, labels known", BLACK, "o-")
    line(axis, "log-likelihood, em", "over components, EM from N(0, I)", ORANGE, "^-")
    line(axis, "over samples, oracle", "over samples, labels known", BLACK, "o--")
    line(axis, "over samples, em", "over samples, EM from N(0, I)", ORANGE, "^--")
    titles = {
        align: "Order of the components",
        order: "Labels sorted by weight",
        start: "Start of EM",
        mask: "Pooling mask inverted, no padding",
        scale: "Scales",
        axis: "Axis of the log-likelihood",
    }
    for axes, title in titles.items():
        axes.set(title=title, xlabel="components K", xticks=kinds)
        axes.grid(True, color=GREY, alpha=0.3)
        axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, frameon=False)
        if axes is not axis:
            axes.set_yscale("log")
            axes.set_ylabel("mean l2-error")
    axis.set_ylabel("mean log of a sum of densities (nats)")
    return figure


if __name__ == "__main__":
    script(compute, draw, tasks=400)
