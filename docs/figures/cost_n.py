"""Cost against N
==============

Time of one EM iteration against the number of samples, as ratios to scikit-learn's.

::

    python docs/figures/cost_n.py

writes its numbers and two pictures beside this file (two minutes on one core).

In every round the dense and the structured evaluation and scikit-learn's spherical EM are timed one after the
other, on the same data and with one thread, in processor time; ratios are
taken within a round.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from frame import Map, in_turn, script
from matplotlib.figure import Figure
from threadpoolctl import threadpool_limits

from constructions.bench import Options, ours, sklearn_em, task
from constructions.plot_parts import BLACK, BLUE, GREY, ORANGE, legend_below

SAMPLES = (300, 1000, 3000, 10_000, 30_000, 100_000)
LARGEST_DENSE = 3000
ROUNDS = 5
D, K, EPS = 8, 5, 1e-3


def cpu_seconds(call: Callable[[], Any]) -> float:
    """Processor time of one call, which other processes disturb less than the time on the wall."""
    began = time.process_time()
    call()
    return time.process_time() - began


def per_iteration(run: Callable[[int], Any], more: int) -> float:
    """Time of one of `more` further iterations, without that of reading data in."""
    return (cpu_seconds(lambda: run(1 + more)) - cpu_seconds(lambda: run(1))) / more


def one_size(N: int, rounds: int) -> dict[str, Any]:
    """Processor times of one iteration on N samples, in seconds, for each round and way."""
    data = task(Options(d=D, K=K, eps=EPS), N)
    ways = {"structured": ours(data, mode="structured"), "sklearn": sklearn_em(data)}
    if N <= LARGEST_DENSE:
        ways["dense"] = ours(data, mode="dense")
    for run in ways.values():
        run(1)
    times: dict[str, Any] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, run in ways.items():
            times[name].append(per_iteration(run, max(3, (3000 if name == "dense" else 60_000) // N)))
    return {"N": N, "seconds": times}


def compute(rounds: range, sweep: Map = in_turn) -> dict[str, Any]:
    """The times for each N.  Never in parallel: the rounds would disturb each other."""
    torch.set_num_threads(1)
    with threadpool_limits(limits=1):
        return {"d": D, "K": K, "eps": EPS, "rows": [one_size(N, len(rounds)) for N in SAMPLES]}


def ratios(row: dict[str, Any], way: str, to: str = "sklearn") -> Any:
    """One ratio for each round, (rounds,)."""
    return np.array(row["seconds"][way]) / np.array(row["seconds"][to])


def draw(results: dict[str, Any]) -> Figure:
    """Left: ratios to scikit-learn; right: each way against itself at the smallest N."""
    figure = Figure(figsize=(11, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    for way, label, colour, shape in (
        ("dense", "dense transformer", ORANGE, "s-"),
        ("structured", "structured transformer", BLUE, "o-"),
        ("sklearn", "scikit-learn, spherical", BLACK, "+--"),
    ):
        rows = [row for row in results["rows"] if way in row["seconds"]]
        N = [row["N"] for row in rows]
        if way != "sklearn":
            values = np.array([ratios(row, way) for row in rows])
            left.loglog(N, np.median(values, axis=1), shape, color=colour, label=label, fillstyle="none")
            left.fill_between(
                N, values.min(axis=1), values.max(axis=1), color=colour, alpha=0.15, linewidth=0
            )
        medians = np.array([np.median(row["seconds"][way]) for row in rows])
        right.loglog(N, medians / medians[0], shape, color=colour, label=label, fillstyle="none")
    left.axhline(1, color=BLACK, linestyle=":", label="as fast as scikit-learn")
    first, last = results["rows"][0]["N"], results["rows"][-1]["N"]
    right.loglog([first, last], [1, last / first], ":", color=GREY, label="slope 1")
    left.set(xlabel="samples N", ylabel="time of one iteration / scikit-learn's")
    left.set_title("Ratio to scikit-learn (band: all rounds)")
    right.set(xlabel="samples N", ylabel=f"time of one iteration / that at N = {first}")
    right.set_title("Growth with N")
    for axes in (left, right):
        axes.grid(True, color=GREY, alpha=0.3)
        legend_below(axes)
    return figure


if __name__ == "__main__":
    script(compute, draw, tasks=ROUNDS)
