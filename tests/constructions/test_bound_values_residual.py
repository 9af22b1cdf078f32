"""Linear functions, heads and hidden units by name, evaluated entry by entry against what their names say."""

import math

import numpy as np
import pytest

from constructions.geometric import GeometricSum
from constructions.residual import Layout, add, apply, clean, gate, head, layer, share, sign_pair

STREAM = Layout([("x", 2), ("none", 0), ("y", 3), ("one", 1), ("e", 3), ("c", 1), ("out", 6), ("flags", 2)])
X, Y, ONE, E, C, OUT, FLAGS = slice(0, 2), slice(2, 5), 5, slice(6, 9), 9, slice(10, 16), slice(16, 18)
D = 18


def close(got, want):
    assert len(got) == len(want)
    assert all(math.isclose(g, w, rel_tol=1e-9, abs_tol=1e-12) for g, w in zip(got, want, strict=True))
    return True


def token(seed):
    h = [float(x) for x in np.random.default_rng(seed).uniform(-3, 3, D)]
    h[ONE] = 1.0
    return h


def of(linear, h):
    """The rows of a linear function times h."""
    return [sum(float(w) * x for w, x in zip(row, h, strict=True)) for row in linear.matrix]


def added(units, h):
    """W2 relu(W1 h)."""
    hidden = [max(0.0, sum(float(w) * x for w, x in zip(row, h, strict=True))) for row in units.W1]
    return [sum(float(w) * y for w, y in zip(row, hidden, strict=True)) for row in units.W2]


def at(values):
    """A vector that is 0 but for the given {coordinate: value}."""
    return [values.get(c, 0.0) for c in range(D)]


@pytest.mark.parametrize("seed", range(3))
def test_linear_functions(seed):
    h = token(seed)
    x, y, c = h[X], h[Y], h[C]
    a, b, third = STREAM["x"], STREAM["y"], STREAM["y"][2]
    assert close(of(a, h), x)
    assert close(of(b[0], h), y[:1])
    assert close(of(third, h), y[2:])
    assert close(of(b[1:], h), y[1:])
    assert close(of(b[:2] + a, h), [y[0] + x[0], y[1] + x[1]])
    assert close(of(a - b[1:], h), [x[0] - y[1], x[1] - y[2]])
    assert close(of(-a, h), [-x[0], -x[1]])
    assert close(of(a * 3, h), [3 * x[0], 3 * x[1]])
    assert close(of(0.7 * a, h), [0.7 * x[0], 0.7 * x[1]])
    assert close(of(a / 4, h), [x[0] / 4, x[1] / 4])
    assert close(of(a.tile(2), h), [x[0], x[1], x[0], x[1]])
    assert close(of(a.repeat(3), h), [x[0]] * 3 + [x[1]] * 3)
    assert close(of(b.sum(), h), [y[0] + y[1] + y[2]])
    assert close(of(STREAM["c"].along(np.array([2.0, -5.0, 0.5])), h), [2 * c, -5 * c, 0.5 * c])
    assert close(of(a.at(2, 3), h), [0, 0, 0, 0, *x])
    assert close(of(b.at(0, 2), h), [*y, 0, 0, 0])
    with pytest.raises(ValueError, match="y has 3 rows, one is needed"):
        b.along(np.ones(2))


def test_a_layout_in_numbers():
    assert STREAM.width == D
    assert STREAM.sizes["none"] == 0
    assert list(STREAM.indices("none")) == []
    assert list(STREAM.indices("e")) == [6, 7, 8]
    assert list(STREAM.indices("flags")) == [16, 17]
    H = np.zeros((3, D))
    STREAM.put(H, "y", np.array([[1.0, 2.0], [3.0, 4.0], [9.0, 9.5]]))
    STREAM.put(H, "x", [5.0, 6.0])
    STREAM.put(H, "c", 7.0)
    STREAM.put(H, "e", 8.0)
    assert H[0].tolist() == [5, 6, 1, 2, 0, 0, 8, 8, 8, 7, *[0] * 8]
    assert H[1].tolist() == [5, 6, 3, 4, 0, 0, 8, 8, 8, 7, *[0] * 8]
    assert H[2].tolist() == [5, 6, 9, 9.5, 0, 0, 8, 8, 8, 7, *[0] * 8]
    with pytest.raises(ValueError, match="3 values do not fit 'x' of size 2"):
        STREAM.put(H, "x", [1.0, 2.0, 3.0])


def test_heads():
    """Query and key in their order, values at their names; rows of V that are 0 are left out."""
    made = head(
        STREAM,
        query=[STREAM["x"], STREAM["c"]],
        key=[STREAM["y"][1:], 2 * STREAM["one"]],
        value={"e": STREAM["y"] - STREAM["e"], "x": 0 * STREAM["x"], "c": 3 * STREAM["c"]},
    )
    h = token(0)
    for matrix, want in (
        (made.Q, [*h[X], h[C]]),
        (made.K, [*h[Y][1:], 2.0]),
        (made.V, [y - e for y, e in zip(h[Y], h[E], strict=True)] + [3 * h[C]]),
    ):
        assert close([sum(float(w) * x for w, x in zip(row, h, strict=True)) for row in matrix], want)
    assert made.targets == [6, 7, 8, C]


def test_a_query_may_fill_the_whole_width():
    parts = [STREAM[name] for name in STREAM.names]
    assert head(STREAM, query=parts, key=parts[::-1][-1:] + parts[1:], value={}).Q.shape == (D, D)
    with pytest.raises(ValueError, match="query has 19 rows, more than the width D = 18"):
        head(STREAM, query=[*parts, STREAM["c"]], key=[*parts, STREAM["c"]], value={})


FUNCTION = GeometricSum(
    a=np.array([0.7, 1.3, 0.4]), w=np.array([1.1, -0.6, 2.3]), b=np.array([-0.5, 0.9, 0.2]),
    target="square", domain=(-1.0, 1.0), relative=0.0, absolute=0.0, rounding=0.0,
)  # fmt: skip


def summed(x, e):
    """sum_j a_j relu(w_j x + b_j e)."""
    return (
        0.7 * max(0.0, 1.1 * x - 0.5 * e)
        + 1.3 * max(0.0, 0.9 * e - 0.6 * x)
        + 0.4 * max(0.0, 2.3 * x + 0.2 * e)
    )


@pytest.mark.parametrize("seed", range(5))
def test_a_function_of_each_row(seed):
    h = token(seed)
    x, y, e = h[X], h[Y], h[E]
    made = apply(STREAM, FUNCTION, read="y", write="e")
    assert made.W1.shape == (9, D)
    assert close(added(made, h), at({6 + i: summed(y[i], 1.0) for i in range(3)}))
    made = apply(STREAM, FUNCTION, read="x", write="c")
    assert close(added(made, h), at({C: summed(x[0], 1.0) + summed(x[1], 1.0)}))
    # a linear function to a linear function: what is added is what the function reads there
    read, write = STREAM["y"] * 2 - STREAM["e"], STREAM["e"] / 4 + STREAM["y"]
    made = apply(STREAM, FUNCTION, read=read, write=write, one="e")
    values = [summed(2 * y[i] - e[i], e[i]) for i in range(3)]
    assert close(
        added(made, h), at({6 + i: values[i] / 4 for i in range(3)} | {2 + i: values[i] for i in range(3)})
    )
    made = apply(STREAM, FUNCTION, read=STREAM["x"], write="flags", one=STREAM["c"])
    assert close(added(made, h), at({16 + i: summed(x[i], h[C]) for i in range(2)}))


@pytest.mark.parametrize("seed", range(3))
def test_units_that_add_clean_and_share(seed):
    h = token(seed)
    made = add(STREAM, x=STREAM["y"][1:] * 3, c=STREAM["x"].sum())
    assert made.W1.shape == (6, D)
    assert close(added(made, h), at({0: 3 * h[3], 1: 3 * h[4], C: h[0] + h[1]}))
    made = clean(STREAM, "x", "c")
    assert made.W1.shape == (6, D)
    assert close(added(made, h), at({0: -h[0], 1: -h[1], C: -h[C]}))
    parts = [apply(STREAM, FUNCTION, read="y", write=name) for name in ("e", "y", "c")]
    made = share(*parts)
    assert made.W1.shape == (9, D)
    values = [summed(y, 1.0) for y in h[Y]]
    assert close(
        added(made, h), at(dict(enumerate(values, 6)) | dict(enumerate(values, 2)) | {C: sum(values)})
    )
    with pytest.raises(ValueError, match=r"y \(3 rows\) cannot be added to x \(2 rows\)"):
        add(STREAM, x=STREAM["y"])


@pytest.mark.parametrize("flag", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 0), (0, 1, 1)])
def test_gates(flag):
    """Products with a one-hot vector: those of one component each, or all of them."""
    h = token(1)
    h[E] = [float(f) for f in flag]
    h[FLAGS] = [float(f) for f in flag[:2]]
    x, y = h[X], h[Y]
    made = gate(STREAM, read="y", by="e", write="c", bound=3.5)
    assert made.W1.shape == (6, D)
    assert made.W2.shape == (D, 6)
    assert close(added(made, h), at({C: sum(y[i] * flag[i] for i in range(3))}))
    made = gate(STREAM, read="x", by="e", write="out", bound=3.5)
    assert made.W1.shape == (12, D)
    assert made.W2.shape == (D, 12)
    assert close(added(made, h), at({10 + 3 * m + a: x[m] * flag[a] for m in range(2) for a in range(3)}))
    made = gate(STREAM, read="c", by="flags", write="x", bound=3.5)
    assert made.W1.shape == (4, D)
    assert close(added(made, h), at({0: h[C] * flag[0], 1: h[C] * flag[1]}))


@pytest.mark.parametrize(
    ("read", "by", "write"), [("x", "e", "c"), ("y", "e", "out"), ("x", "flags", "out"), ("y", "flags", "y")]
)
def test_gates_that_do_not_fit_are_refused(read, by, write):
    with pytest.raises(ValueError, match=rf"{read} \(\d\) gated by {by} \(\d\) does not fit {write} \(\d\)"):
        gate(STREAM, read=read, by=by, write=write, bound=1.0)


def test_sizes_of_functions_of_each_row_are_checked():
    with pytest.raises(ValueError, match=r"y \(3\) can be written to x \(2\) only if"):
        apply(STREAM, FUNCTION, read="y", write="x")
    with pytest.raises(ValueError, match=r"x \(2\) does not fit y \(3\)"):
        apply(STREAM, FUNCTION, read="y", write="c", one="x")


def test_two_heads_of_opposite_sign_have_no_relu():
    """relu(s) v - relu(-s) v = s v for scores s of either sign."""
    made = head(STREAM, query=[STREAM["x"]], key=[STREAM["flags"]], value={"c": STREAM["y"][1]})
    signs = set()
    for seed in range(6):
        h, other = token(seed), token(seed + 100)
        total = 0.0
        for part in sign_pair(made):
            q, k, v = (
                [sum(float(w) * x for w, x in zip(row, t, strict=True)) for row in matrix]
                for matrix, t in ((part.Q, h), (part.K, other), (part.V, other))
            )
            total += max(0.0, q[0] * k[0] + q[1] * k[1]) * v[0]
        score = h[0] * other[16] + h[1] * other[17]
        signs.add(score > 0)
        assert math.isclose(total, score * other[3], rel_tol=1e-9, abs_tol=1e-12)
    assert len(signs) == 2


def test_layers_of_heads_of_units_and_of_neither():
    made = head(STREAM, query=[], key=[], value={"c": STREAM["c"]})
    several = layer("relu", [made, made], clean(STREAM, "x"), add(STREAM, c=STREAM["one"]))
    assert several.width == D
    assert len(several.heads) == 2
    assert several.W1.shape == (6, D)
    assert close(added(several, h := token(0)), at({0: -h[0], 1: -h[1], C: 1.0}))
    for one in (layer("relu", [made]), layer("relu", [], clean(STREAM, "x")), layer("relu", [], width=D)):
        assert one.width == D
        assert one.W2.shape == (D, len(one.W1))


def test_a_gate_may_read_the_constant_or_be_opened_by_it():
    stream = Layout([("one", 1), ("v", 1), ("e", 1), ("out", 1)])
    for read, by, want in (("one", "e", lambda v, e: e), ("v", "one", lambda v, e: v)):
        units = gate(stream, read=read, by=by, write="out", bound=5.0)
        for v in (-3.0, 0.5):
            for e in (0.0, 1.0):
                h = np.array([1.0, v, e, 0.0])
                assert (units.W2 @ np.maximum(units.W1 @ h, 0))[3] == want(v, e)
