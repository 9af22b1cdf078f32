"""Matrices of the EM construction
===============================

The weight matrices of the EM construction, for d0 = 2, K0 = 3 and eps = 1/2.

::

    python docs/figures/em_blocks.py

writes its numbers and two pictures beside this file.  Rows of Q and K are those of
the displays of Appendix C.2; a matrix acts on a token, a column.
"""

from __future__ import annotations

from typing import Any

import blocks
from frame import Map, in_turn, script
from matplotlib.figure import Figure

from constructions import EMTransformer


def compute(tasks: range, sweep: Map = in_turn) -> dict[str, Any]:
    """The matrices."""
    return blocks.contents(EMTransformer(2, 3, eps=0.5, r_max=2, pi_min=0.1), {"E-layer": 0, "M-layer": 1})


def draw(results: dict[str, Any]) -> Figure:
    """A line of pictures for the E-layer, two for the M-layer."""
    return blocks.draw(results, 5)


if __name__ == "__main__":
    script(compute, draw, tasks=None)
