"""The kinds of comparison that tests make; there is no bare tolerance anywhere else.

exact: equal up to a stated multiple of the machine epsilon, times a scale that the test derives from
size and condition.  bound: measured against the right-hand side of a theorem.  Shapes come first.
"""

from __future__ import annotations

from typing import Any

import numpy as np

U = 2.0**-53


def gap(got: Any, want: Any) -> float:
    """Largest absolute difference; an assertion on equal shapes first."""
    got, want = np.asarray(got, dtype=np.float64), np.asarray(want, dtype=np.float64)
    assert got.shape == want.shape, f"shapes {got.shape} and {want.shape}"
    assert got.size > 0, "nothing to compare"
    difference = np.abs(got - want)
    assert not np.isnan(difference).any(), "nan in a comparison"
    return float(difference.max())


def assert_exact(got: Any, want: Any, *, ulps: float, scale: float = 1.0) -> None:
    """|got - want| <= ulps * u * scale, u the unit roundoff of float64."""
    found = gap(got, want)
    assert found <= ulps * U * scale, f"{found:.3g} > {ulps:g} u x {scale:.3g} = {ulps * U * scale:.3g}"


def assert_bound(measured: Any, bound: Any) -> None:
    """measured <= bound, entry by entry, with finite bounds."""
    measured, bound = np.asarray(measured, dtype=np.float64), np.asarray(bound, dtype=np.float64)
    assert measured.shape == bound.shape, f"shapes {measured.shape} and {bound.shape}"
    assert measured.size > 0, "nothing to compare"
    assert np.isfinite(bound).all(), "a bound is not finite"
    worst = np.argmax(measured - bound)
    assert (measured <= bound).all(), f"{measured.flat[worst]:.3g} > {bound.flat[worst]:.3g}"


def slope(x: Any, y: Any) -> float:
    """Least-squares slope of log y against log x."""
    x, y = np.log(np.asarray(x)), np.log(np.asarray(y))
    assert x.shape == y.shape
    assert len(x) >= 3
    return float(np.polyfit(x, y, 1)[0])
