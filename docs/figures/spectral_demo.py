"""The spectral algorithm by layer
===============================

What `python -m constructions.spectral_demo --seed 1` draws: the spectral algorithm, layer by layer.

::

    python docs/figures/spectral_demo.py

writes its numbers and two pictures beside this file.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from frame import Map, in_turn, script
from matplotlib.figure import Figure

from constructions import spectral_demo, spectral_plot
from constructions.report import SpectralReference

SEED = 1


def compute(tasks: range, sweep: Map = in_turn) -> dict[str, Any]:
    """The demo's run with that seed."""
    options = spectral_demo.Options()
    rng = np.random.default_rng(SEED)
    task = spectral_demo.problem(options, rng)
    net = spectral_demo.network(options, task.X, rng)
    assert task.truth is not None
    reference = SpectralReference(net, task.X, options.K)
    marks = []
    for _, state in net.states(task.X, options.K, mode=options.mode):
        if state.stage == "mlp":
            marks += reference.marks(state.layer, state.tokens)
    return {
        "seed": SEED,
        "X": np.round(task.X, 4).tolist(),
        "means": net.readout(state.tokens, task.X.shape[1], options.K).means.tolist(),
        "truth": task.truth.means.tolist(),
        "steps": [[step.stage, step.component] for step in net.steps],
        "marks": [[mark.layer, mark.stage, mark.error] for mark in marks],
    }


def draw(results: dict[str, Any]) -> Figure:
    """The demo's picture."""
    steps = [SimpleNamespace(stage=stage, component=k) for stage, k in results["steps"]]
    marks = [SimpleNamespace(layer=layer, stage=stage, error=e) for layer, stage, e in results["marks"]]
    return spectral_plot.draw(steps, marks, *(np.array(results[name]) for name in ("X", "means", "truth")))


if __name__ == "__main__":
    script(compute, draw, tasks=None)
