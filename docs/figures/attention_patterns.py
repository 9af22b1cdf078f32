"""Attention of the trained network
================================

Attention of the trained network beside the responsibilities that EM would attend with.

::

    python docs/figures/attention_patterns.py

writes its numbers and two pictures beside this file (a
minute on one core).

With w the true posterior, two patterns of EM: in its M-step component k attends to sample j with
w_jk / sum_j w_jk; a sample that fetches the means of its own components attends to sample j with
sum_k w_ik w_jk / sum_j w_jk.  The overlap of two patterns is sum_j min(p_j, q_j), 1 if they are equal.  Each
head of each layer is compared with the second one, each query of the pooling readout, applied after each
layer, with the first one, components in the order of the estimated means.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from frame import Map, in_turn, script
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from constructions.plot_parts import BLACK, BLUE, GREEN, GREY, ORANGE
from gmm import GaussianMixture, TaskDistribution, match_components
from trainable.estimator import network_of
from trainable.network import Block, Network, Readout

SEED, D, N = 4, 8, 128
KINDS = (2, 3, 4, 5)
MODEL = "tgmm-d8"


def head_patterns(network: Network, X: torch.Tensor, K: int) -> list[np.ndarray]:
    """Attention (heads, N, N) of each layer, from sample i, first, to sample j."""
    inputs: list[torch.Tensor] = []
    blocks = [block for block in network.blocks if isinstance(block, Block)]
    hooks = [block.register_forward_pre_hook(lambda _, given: inputs.append(given[0])) for block in blocks]
    network(X, [(K, 1)])
    for hook in hooks:
        hook.remove()
    found = []
    for block, H in zip(blocks, inputs, strict=True):
        parts = block.qkv(block.norm1(H))[0].view(N, 3, block.n_heads, -1).double()
        q, k, _ = parts.permute(1, 2, 0, 3)
        found.append(torch.softmax(q @ k.mT / math.sqrt(q.shape[-1]), dim=-1).numpy())
    return found


def readout_pattern(network: Network, H: torch.Tensor, K: int) -> np.ndarray:
    """Attention (N, K) of the pooling queries over normalised hidden states."""
    readout = network.readouts[network.config.n_components.index(K)]
    assert isinstance(readout, Readout)
    scores = readout.K(H)[0] @ readout.Q * readout.K.weight.shape[0] ** -0.5
    return torch.softmax(scores.double(), dim=0).numpy()


def one_task(K: int, t: int) -> dict[str, Any]:
    """Overlaps: of each head of each layer, of the readout after each layer, and of uniform attention."""
    rng = np.random.default_rng([SEED, K, t])
    truth = TaskDistribution(D).sample_mixture(K, rng)
    data, _ = truth.sample(N, rng)
    w = truth.responsibilities(data)
    to_samples = w / np.maximum(w.sum(axis=0), 1e-12)
    own = w @ to_samples.T
    network, X = network_of(MODEL), torch.tensor(data[None], dtype=torch.float32)
    with torch.no_grad():
        heads = [
            [float(np.minimum(pattern, own).sum(axis=1).mean()) for pattern in layer]
            for layer in head_patterns(network, X, K)
        ]
        read = []
        for H in network.states(X, [(K, 1)]):
            (found,) = network.read(H, X, [(K, 1)])
            weights = found.weights[0].double().numpy()
            mixture = GaussianMixture(weights / weights.sum(), found.means[0].double().numpy())
            pattern = readout_pattern(network, H, K)[:, match_components(mixture, truth)]
            read.append(float(np.minimum(pattern, to_samples).sum(axis=0).mean()))
    flat = np.full(N, 1 / N)
    found = {
        "heads": heads,
        "readout": read,
        "heads, uniform": float(np.minimum(flat, own).sum(axis=1).mean()),
        "readout, uniform": float(np.minimum(flat[:, None], to_samples).sum(axis=0).mean()),
    }
    return {name: np.round(values, 4).tolist() for name, values in found.items()}


def compute(tasks: range, sweep: Map = in_turn) -> dict[str, Any]:
    """The overlaps of each task, by K."""
    found = iter(sweep(one_task, [(K, t) for K in KINDS for t in tasks]))
    rows = {str(K): [next(found) for _ in tasks] for K in KINDS}
    return {"model": MODEL, "d": D, "N": N, "seed": SEED, "tasks": rows}


def draw(results: dict[str, Any]) -> Figure:
    """A picture for each K."""
    kinds = list(results["tasks"])
    figure = Figure(figsize=(3.6 * len(kinds), 4.4), layout="constrained")
    every = figure.subplots(1, len(kinds), sharey=True)
    for axes, K in zip(every, kinds, strict=True):
        tasks = results["tasks"][K]
        heads = np.mean([task["heads"] for task in tasks], axis=0)
        layers = np.arange(1, len(heads) + 1)
        for m in range(heads.shape[1]):
            axes.plot(layers, heads[:, m], ".", color=BLUE, alpha=0.6, label="a head" if m == 0 else None)
        axes.plot(
            layers, heads.max(axis=1), "o-", color=BLUE, label="the head nearest to EM", fillstyle="none"
        )
        read = np.mean([task["readout"] for task in tasks], axis=0)
        axes.plot(layers, read, "s-", color=ORANGE, label="queries of the readout", fillstyle="none")
        for name, line, label in (("heads", ":", "uniform attention, as a head"),
                                  ("readout", "--", "uniform attention, as a readout")):  # fmt: skip
            flat = np.mean([task[f"{name}, uniform"] for task in tasks])
            axes.axhline(
                flat, color=BLACK if name == "heads" else GREEN, linestyle=line, label=label, linewidth=1
            )
        axes.set(xlabel="layer", title=f"K = {K}", ylim=(0, 1))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(True, color=GREY, alpha=0.3)
    every[0].set_ylabel("overlap with EM's attention")
    handles, labels = every[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    return figure


if __name__ == "__main__":
    script(compute, draw, tasks=100)
