"""EM in thirty layers
===================

What `python -m constructions.em_demo` draws: EM by a transformer of 30 layers.

::

    python docs/figures/em_demo.py

writes its numbers and two pictures beside this file.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from frame import Map, in_turn, script
from matplotlib.figure import Figure

from constructions import em_demo, em_plot
from constructions.report import em_report, statistical_floor


def compute(tasks: range, sweep: Map = in_turn) -> dict[str, Any]:
    """The demo's run without any options."""
    options = em_demo.Options()
    rng = np.random.default_rng(options.common.seed)
    task = em_demo.problem(options, rng)
    init = em_demo.start(options, task, rng)
    assert task.truth is not None
    estimates = em_demo.network(options, task.X, init).run(task.X, init, options.depth)
    report = em_report(em_demo.network(options, task.X, init), task.X, init, estimates, task.truth)
    return {
        "X": np.round(task.X, 4).tolist(),
        "paths": [init.means.tolist(), *(estimate.means.tolist() for estimate in estimates)],
        "truth": task.truth.means.tolist(),
        "report": [row._asdict() for row in report],
        "floor": statistical_floor(task.X, task.truth),
    }


def draw(results: dict[str, Any]) -> Figure:
    """The demo's picture."""
    X, paths, truth = (np.array(results[name]) for name in ("X", "paths", "truth"))
    report = [SimpleNamespace(**row) for row in results["report"]]
    return em_plot.draw(X, paths, truth, report, results["floor"])


if __name__ == "__main__":
    script(compute, draw, tasks=None)
