"""What constructions built from sizes, ranges and an error level check before they build anything."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any, NamedTuple

import numpy as np

from constructions.construction import DTYPES
from constructions.residual import ReluSum
from constructions.weights import Array

ROUNDOFF = {"float64": 2.0**-53, "float32": 2.0**-24}
MAX_LOG_A = {"float64": 705.0, "float32": 85.0}
"""Log of the largest A of a log on [1/A, 1]."""


_LARGEST_RANGE = 1e100


def set_sizes(owner: Any, *names: str) -> None:
    """Make the named fields of a frozen dataclass positive integers; ValueError where they are not."""
    for name in names:
        value = getattr(owner, name)
        if not isinstance(value, (int, float, np.integer)) or value < 1 or value % 1 != 0:
            raise ValueError(f"{name} must be a positive integer, got {value!r}")
        object.__setattr__(owner, name, int(value))


def set_positive(owner: Any, **tops: float) -> None:
    """Make fields floats in (0, top); ValueError where they are not."""
    for name, top in tops.items():
        value = float(getattr(owner, name))
        highest = min(top, _LARGEST_RANGE)
        if not 0 < value < highest:
            finite = top == math.inf and not highest <= value < math.inf
            limit = "finite" if finite else f"below {highest:g}"
            raise ValueError(f"{name} must be positive and {limit}, got {value:g}")
        object.__setattr__(owner, name, value)


def set_dtype(owner: Any, largest: str) -> None:
    """Make the field `dtype` a name in `DTYPES`; ValueError, with the size of coefficients, for others."""
    object.__setattr__(owner, "dtype", str(owner.dtype).removeprefix("torch."))
    if owner.dtype not in DTYPES:
        raise ValueError(
            f"dtype {owner.dtype} cannot hold the construction: its coefficients reach "
            f"{largest} and its rounding exceeds eps; use float64 or float32"
        )


def check_choice(owner: Any, name: str, allowed: Collection[str]) -> None:
    """ValueError unless a field is one of the allowed words."""
    if getattr(owner, name) not in allowed:
        raise ValueError(f"{name} must be one of {allowed}, got {getattr(owner, name)!r}")


def check_log_range(log_A: float, pi_min: float, dtype: str) -> None:
    """ValueError unless logs on [1/A, 1] and on [pi_min, 1] can be built in this dtype."""
    limit = MAX_LOG_A[dtype]
    if not 0 < log_A <= limit:
        raise ValueError(
            f"log A = {log_A:.1f} does not fit {dtype}, which holds A up to "
            f"e^{limit:g}: give log_A in (0, {limit:g}]"
        )
    if -math.log(pi_min) > limit:
        raise ValueError(
            f"pi_min = {pi_min:g} does not fit {dtype}; at least {shown_above(math.exp(-limit))} works"
        )


def check_rounding(eps: float, floor: float, of_what: str, cure: str) -> None:
    """ValueError if eps is far below the rounding error `floor`."""
    if eps < floor / 100:
        advice = f"use eps >= {shown_above(floor)} or {cure}" if floor < 0.99 else f"use {cure}"
        raise ValueError(f"eps = {eps:g} is far below the rounding error {floor:.2g} of {of_what}; {advice}")


def shown_above(value: float, digits: int = 2) -> str:
    """A positive number with so many digits, rounded up."""
    return _shown(value, digits, ROUND_CEILING)


def shown_below(value: float, digits: int = 2) -> str:
    """A positive number with so many digits, rounded down."""
    return _shown(value, digits, ROUND_FLOOR)


def _shown(value: float, digits: int, rounding: str) -> str:
    if not math.isfinite(value):
        return f"{value}"
    exact = Decimal(float(value))
    last = Decimal((0, (1,), exact.adjusted() - digits + 1))
    return f"{float(exact.quantize(last, rounding)):.{digits}g}"


def check_bytes(eps: float, max_bytes: int, n_bytes: Callable[[float], int]) -> None:
    """ValueError, naming an eps that fits if there is one, if the matrices exceed `max_bytes`."""
    taken = n_bytes(eps)
    if taken <= max_bytes:
        return
    low, high = eps, 0.99
    advice = "no eps makes them fit; smaller sizes or ranges would"
    if n_bytes(high) <= max_bytes:
        while high > 1.001 * low:
            middle = math.sqrt(low * high)
            low, high = (low, middle) if n_bytes(middle) <= max_bytes else (middle, high)
        shown = float(f"{high:.3g}")
        while n_bytes(shown) > max_bytes:  # rounded down
            shown = float(f"{1.005 * shown:.3g}")
        advice = f"eps >= {shown:g} fits"
    raise ValueError(
        f"the matrices take {taken / 2**30:.3g} GiB, more than max_bytes = {max_bytes / 2**30:.3g} GiB; "
        + advice
    )


def shrink(*functions: ReluSum) -> list[ReluSum]:
    """Functions of few units with the same Gram matrices, of their rows (w, b) and of their rows a.

    Layers built from them have the norms of the layers built from `functions`, which must all have
    the same hidden units.
    """
    first = functions[0]
    w, b = _square_root(np.stack([first.w, first.b], axis=1), len(functions)).T
    outputs = _square_root(np.stack([function.a for function in functions], axis=1), 2)
    return [_FewUnits(a, w, b) for a in outputs.T]


def _square_root(columns: Array, rows: int) -> Array:
    """A matrix R of at least `rows` rows with R^T R = columns^T columns."""
    size = max(columns.shape[1], rows)
    padded = np.concatenate([columns, np.zeros((size, columns.shape[1]))])
    root = np.asarray(np.linalg.qr(padded, mode="r"))
    return np.concatenate([root, np.zeros((size - len(root), columns.shape[1]))])


class _FewUnits(NamedTuple):
    a: Array
    w: Array
    b: Array
