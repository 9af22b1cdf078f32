"""Cubic tensor power iteration v <- T(I, v, v) as ReLU-attention layers (Theorem D.8, Appendix D).

Statement.  For every d0 there are two layers that, for all d <= d0, T in R^{d x d x d} (symmetric or
not) and v in R^d, take the encoding (25) of (T, v) to that of (T, T(I, v, v)), exactly:
T(I, v, v)_i = sum_{j,m} T_{ijm} v_j v_m.

| paper            | name    | size  | what token i of the d tokens holds                              |
|------------------|---------|-------|-----------------------------------------------------------------|
| t_i              | `t`     | d0^2  | column i of (24): block m is T_{:,i,m}                          |
| v                | `v`     | d0    | the iterate, in every token                                     |
| e_i              | `e`     | d0    | the i-th unit vector (left out of the paper's later displays)   |
| 1, d             | `one`, `count` | 1, 1 | 1 and the number of tokens                               |
| d v_i            | `slot`  | 1     | d times the token's own component of v                          |
| --               | `u`     | d0    | d v, which the one-layer variant stores instead of v            |
| --               | `own`   | 1     | the token's own component of u                                  |
| --               | `g`     | d0^2  | block m is v_m e_i                                              |
| --               | `count2`| 1     | d^2                                                             |
| --               | `s`, `r`| 1, 1  | |v|^2 and its inverse square root                               |

"Pair" is two heads that add up to one without ReLU (`residual.sign_pair`).  All sums carry 1/d, the
1/N of Definition 4.  Heads that remove something come first: their order does not matter over the reals,
but in floating point v - v + T(I, v, v) keeps what T(I, v, v) - v + v loses when the iterate shrinks.

`theorem`, 2 layers, 2 d0 + 1 heads.  Odd layer: a pair with query e_i, key v, value d writes
(1/d) sum_j <e_i, v> d = d v_i to `slot`.  Even layer: for each m a pair with query v_m, key d v_j, value
T_{:,j,m} adds (1/d) sum_j v_m d v_j T_{:,j,m}, in all T(I, v, v), and one head with score 1 and value -v
removes the old iterate.  (Printed: its key is d, which removes d v and leaves T(I, v, v) - (d - 1) v; and
without e_i in the stream the third layer writes 0.)  The MLP cleans `slot`, or, with attention only
(Remark D.1), a pair with query slot, key 1, value -1 in the odd layer.

`one_layer`, 1 layer, 2 d0 + 1 heads, |u| <= bound.  With u = d v,
(1/d) sum_{j,m} u_m u_j T_{:,j,m} = d T(I, v, v): the even layer alone steps u, and the MLP reads the own
component of the new u off with a gate.  This is what section 4.1 says and Theorem D.8 does not.

`shifted_heads`, 2 layers, d0 + 1 heads, |v_m d v_j| <= bound.  relu(x + B) - B = x for x >= -B: one
head instead of a pair; the constants B T_{:,j,m} are removed by the head that removes v.

`three_heads`, 2 layers, 3 heads, |v| <= bound.  Scores may read T: <g_i, t_j> = sum_m T_{ijm} v_m, so
one pair with value v_j = trace g_j writes T(I, v, v)_i / d to `slot`, one pair with query d^2, key slot,
value e writes T(I, v, v) to all tokens, and the MLP builds g anew with a gate.

`normalised`, 4 layers, for tensors with lambda_k = pi_k^{-1/2} and orthonormal v_k, where
1 <= |T(I, v, v)| <= pi_min^{-1/2} for unit v (Remark D.2 calls normalisation infeasible for want of a lower
bound).  After the two layers of `theorem`, a head with query v, key v, value 1 writes s = |v|^2, the MLP
writes r within a factor 1 +- delta of s^{-1/2}, and a head with query r, key 1, value v scales v.  As
T(I, v, v) is homogeneous, the direction stays exact; the norm stays within delta of 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from constructions.piecewise import inverse_root_approximation
from constructions.residual import Layout, Linear, Units, apply, clean, gate, head, layer, sign_pair
from constructions.weights import Array, Head, Layer

MIN_DELTA = 1e-10

Complaint = Callable[[Array], str | None]
"""What is wrong with an iterate v (d,), if anything."""


class TensorDesign(NamedTuple):
    """One way of writing the power step: the stream, the layers of one step, and what an iterate must
    satisfy for the step after it, or (`after_step`) for itself, to be right."""

    layout: Layout
    layers: tuple[Layer, ...]
    complaint: Complaint = lambda v: None
    after_step: bool = False


def _within(bound: float, name: str, reach: Callable[[Array], float]) -> Complaint:
    def complaint(v: Array) -> str | None:
        value = float(reach(v))
        return None if value <= bound else f"{name} = {value:.6g} exceeds bound = {bound:g}"

    return complaint


def _layout(d0: int, *names: str) -> Layout:
    sizes = {"t": d0 * d0, "g": d0 * d0, "v": d0, "u": d0, "e": d0}
    return Layout((name, sizes.get(name, 1)) for name in names)


def _write_slot(stream: Layout) -> list[Head]:
    """slot_i = d v_i."""
    return sign_pair(head(stream, query=[stream["e"]], key=[stream["v"]], value={"slot": stream["count"]}))


def _blocks(stream: Layout) -> list[Linear]:
    """T_{:,j,m} for each m."""
    d0 = stream.sizes["e"]
    return [stream["t"][m * d0 : (m + 1) * d0] for m in range(d0)]


def _contract(stream: Layout, vector: str, own: str) -> list[Head]:
    """vector += (1/d) sum_{j,m} vector_m own_j T_{:,j,m}, pair by pair."""
    return [
        one
        for m, block in enumerate(_blocks(stream))
        for one in sign_pair(
            head(stream, query=[stream[vector][m]], key=[stream[own]], value={vector: block})
        )
    ]


def _remove(stream: Layout, name: str, more: Linear | None = None) -> Head:
    """name -= name, and `more`, averaged over tokens: score 1, which ReLU leaves alone."""
    value = -stream[name] if more is None else -stream[name] - more
    return head(stream, query=[stream["one"]], key=[stream["one"]], value={name: value})


def theorem(d0: int) -> TensorDesign:
    """Theorem D.8."""
    s = _layout(d0, "t", "v", "e", "one", "count", "slot")
    even = layer("relu", [_remove(s, "v"), *_contract(s, "v", "slot")], clean(s, "slot"))
    return TensorDesign(s, (layer("relu", _write_slot(s)), even))


def attention_only(d0: int) -> TensorDesign:
    """Remark D.1: the odd layer removes the old slot while it writes the new one."""
    s = _layout(d0, "t", "v", "e", "one", "count", "slot")
    old = head(s, query=[s["slot"]], key=[s["one"]], value={"slot": -s["one"]})
    odd = layer("relu", [*sign_pair(old), *_write_slot(s)])
    return TensorDesign(s, (odd, layer("relu", [_remove(s, "v"), *_contract(s, "v", "slot")])))


def one_layer(d0: int, *, bound: float = 1e3) -> TensorDesign:
    """One layer per step, for |u_m| = |d v_m| <= bound."""
    s = _layout(d0, "t", "u", "e", "one", "own")
    own = gate(s, read="u", by="e", write="own", bound=bound)
    heads = [_remove(s, "u"), *_contract(s, "u", "own")]
    complaint = _within(bound, "max |d v_m|", lambda v: len(v) * np.abs(v).max())
    return TensorDesign(s, (layer("relu", heads, own, clean(s, "own")),), complaint)


def shifted_heads(d0: int, *, bound: float = 1e3) -> TensorDesign:
    """d0 + 1 heads, for |v_m d v_j| <= bound."""
    s = _layout(d0, "t", "v", "e", "one", "count", "slot")
    blocks = _blocks(s)
    heads = [
        head(s, query=[s["v"][m], s["one"]], key=[s["slot"], bound * s["one"]], value={"v": block})
        for m, block in enumerate(blocks)
    ]
    constants = sum((bound * block for block in blocks[1:]), bound * blocks[0])
    even = layer("relu", [_remove(s, "v", constants), *heads], clean(s, "slot"))
    complaint = _within(bound, "max |v_m d v_j|", lambda v: len(v) * np.abs(v).max() ** 2)
    return TensorDesign(s, (layer("relu", _write_slot(s)), even), complaint)


def three_heads(d0: int, *, bound: float = 1e3) -> TensorDesign:
    """Three heads at most, for |v_m| <= bound; scores read T."""
    s = _layout(d0, "t", "g", "v", "e", "one", "count2", "slot")
    own = sum((s["g"][m * d0 + m] for m in range(1, d0)), s["g"][0])
    first = head(s, query=[s["g"]], key=[s["t"]], value={"slot": own})
    second = head(s, query=[s["count2"]], key=[s["slot"]], value={"v": s["e"]})
    rebuild: list[Units] = [
        gate(s, read="v", by="e", write="g", bound=bound),
        clean(s, "g", "slot"),
    ]
    layers = (
        layer("relu", sign_pair(first)),
        layer("relu", [_remove(s, "v"), *sign_pair(second)], *rebuild),
    )
    return TensorDesign(s, layers, _within(bound, "max |v_m|", lambda v: np.abs(v).max()))


def normalised(d0: int, *, pi_min: float, delta: float = 1e-3) -> TensorDesign:
    """Norm within delta of 1, for tensors with 1 <= |T(I, v, v)| <= pi_min^{-1/2} at unit v.

    What is complained of is a norm outside that by a thousandth of delta, which is left to rounding.
    """
    if not 0 < pi_min <= 1:
        raise ValueError(f"pi_min must be in (0, 1], got {pi_min:g}")
    if not MIN_DELTA <= delta < 1:
        raise ValueError(f"delta must be in [{MIN_DELTA:g}, 1), got {delta:g}: rounding is in its way below")
    s = _layout(d0, "t", "v", "e", "one", "count", "slot", "s", "r")
    even = layer("relu", [_remove(s, "v"), *_contract(s, "v", "slot")], clean(s, "slot"))
    low, high = (1 - delta) ** 4, (1 + delta) ** 4 / pi_min
    root = inverse_root_approximation(low, high, delta)
    measure = layer(
        "relu",
        [head(s, query=[s["v"]], key=[s["v"]], value={"s": s["one"]})],
        apply(s, root, read="s", write="r"),
        clean(s, "s"),
    )
    scale = head(s, query=[s["r"]], key=[s["one"]], value={"v": s["v"]})
    rescale = layer("relu", [_remove(s, "v"), scale], clean(s, "r"))

    def complaint(v: Array) -> str | None:
        norm = float(np.linalg.norm(v))
        if abs(norm - 1) <= 1.001 * delta:
            return None
        return (
            f"|v| = {norm:.6g} is not within delta = {delta:g} of 1: the start is no unit vector, or "
            f"|T(I, v, v)| was outside [1, pi_min^(-1/2)]"
        )

    layers = (layer("relu", _write_slot(s)), even, measure, rescale)
    return TensorDesign(s, layers, complaint, after_step=True)
