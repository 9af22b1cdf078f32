"""Matrices of the power iteration
===============================

The weight matrices of tensor power iteration (Theorem D.8), for d0 = 2.

::

    python docs/figures/tensor_blocks.py

writes its numbers and two pictures beside this file.
"""

from __future__ import annotations

from typing import Any

import blocks
from frame import Map, in_turn, script
from matplotlib.figure import Figure

from constructions import TensorPowerTransformer


def compute(tasks: range, sweep: Map = in_turn) -> dict[str, Any]:
    """The matrices."""
    return blocks.contents(TensorPowerTransformer(2), {"odd layer": 0, "even layer": 1})


def draw(results: dict[str, Any]) -> Figure:
    """A line of pictures for the odd layer, three for the even one."""
    return blocks.draw(results, 6)


if __name__ == "__main__":
    script(compute, draw, tasks=None)
