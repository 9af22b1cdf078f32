import numpy as np
import pytest

from constructions import Transformer
from constructions.piecewise import square_approximation
from constructions.residual import Layout, apply, clean, head, layer, share
from tests.naive import mlp

STREAM = Layout([("x", 2), ("mu", 2), ("c", 1), ("w", 3), ("one", 1), ("e", 3)])


def token(**parts):
    h = np.zeros(STREAM.width)
    for name, value in parts.items():
        STREAM.put(h, name, value)
    return h


def test_subspaces_lie_side_by_side_in_order():
    assert STREAM.width == 12
    assert STREAM.names == ("x", "mu", "c", "w", "one", "e")
    assert [STREAM.slice(name).start for name in STREAM.names] == [0, 2, 4, 5, 8, 9]
    H = np.arange(24.0).reshape(2, 12)
    assert STREAM.read(H, "w").tolist() == [[5, 6, 7], [17, 18, 19]]


def test_a_head_is_what_its_names_say():
    made = head(
        STREAM,
        query=[STREAM["x"], STREAM["one"]],
        key=[2 * STREAM["mu"], -STREAM["c"] / 2 + STREAM["one"]],
        value={"w": STREAM["e"]},
    )
    h, other = token(x=[3.0, 5.0], one=1), token(mu=[7.0, 11.0], c=4.0, one=1, e=[0, 1.0, 0])
    assert (made.Q @ h).tolist() == [3, 5, 1]
    assert (made.K @ other).tolist() == [14, 22, -1]
    assert (made.V @ other).tolist() == [0, 1, 0]
    assert made.targets == list(STREAM.indices("w"))
    (full,) = Transformer([layer("softmax", [made])]).matrices()
    assert (full["Q"][0] @ h).tolist() == [3, 5, 1] + [0] * 9
    assert (full["K"][0] @ other).tolist() == [14, 22, -1] + [0] * 9
    assert (full["V"][0] @ other).tolist() == token(w=[0, 1.0, 0]).tolist()


def test_units_apply_a_function_by_coordinate_or_summed():
    square = square_approximation(4, 1e-3)
    h = token(mu=[1.5, -2.25], one=1)
    W = layer("softmax", [], apply(STREAM, square, read="mu", write="c"))
    out = mlp({"W1": W.W1, "W2": W.W2}, h)
    assert abs(STREAM.read(out, "c")[0] - (1.5**2 + 2.25**2)) <= 2 * square.sup_error
    W = layer("softmax", [], apply(STREAM, square, read="mu", write="x"))
    out = mlp({"W1": W.W1, "W2": W.W2}, h)
    assert np.abs(STREAM.read(out, "x") - [1.5**2, 2.25**2]).max() <= square.sup_error


def test_rows_are_tiled_repeated_summed_and_placed():
    h = token(x=[3.0, 5.0], w=[1.0, 2.0, 4.0])
    for made, wanted in (
        (STREAM["x"].tile(2), [3, 5, 3, 5]),
        (STREAM["x"].repeat(2), [3, 3, 5, 5]),
        (STREAM["w"].sum(), [7]),
        (STREAM["x"].at(1, 3), [0, 0, 3, 5, 0, 0]),
        (STREAM["c"].at(0, 2), [0, 0]),
    ):
        assert (made.matrix @ h).tolist() == wanted
        assert made.size == len(wanted)


def test_units_apply_a_function_of_a_function_gated_by_a_flag():
    """sum_j a_j relu(w_j l + b_j e), e = 0 or 1, for l = x - mu >= 0."""
    square = square_approximation(4, 1e-2)
    units = apply(STREAM, square, read=STREAM["x"] - STREAM["mu"], write="mu", one=STREAM["e"][:2])
    W = layer("softmax", [], units)
    h = token(x=[3.0, 5.0], mu=[1.0, 2.5], e=[1.0, 0.0, 0.0])
    out = mlp({"W1": W.W1, "W2": W.W2}, h)
    assert STREAM.read(out, "mu")[0] == 1.0 + square(2.0)
    assert STREAM.read(out, "mu")[1] == 2.5 + (square.a * np.maximum(square.w * 2.5, 0)).sum()


def test_functions_of_the_same_units_share_them():
    square = square_approximation(4, 1e-2)
    one, other = (apply(STREAM, square, read="x", write=name) for name in ("mu", "c"))
    both = share(one, other)
    assert len(both.W1) == len(one.W1)
    h = token(x=[3.0, -2.0], one=1)
    W = layer("softmax", [], both)
    out = mlp({"W1": W.W1, "W2": W.W2}, h)
    assert np.abs(STREAM.read(out, "mu") - [9, 4]).max() <= 2e-2
    assert abs(STREAM.read(out, "c")[0] - 13) <= 2e-2


def test_cleaning_is_exact():
    rng = np.random.default_rng(0)
    W = layer("relu", [], clean(STREAM, "mu", "w"))
    assert len(W.W1) == 2 * 5
    for scale in (1e-300, 1.0, 1e300):
        h = scale * rng.standard_normal(STREAM.width)
        out = mlp({"W1": W.W1, "W2": W.W2}, h)
        assert (STREAM.read(out, "mu") == 0).all()
        assert (STREAM.read(out, "w") == 0).all()
        assert (STREAM.read(out, "x") == STREAM.read(h, "x")).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: STREAM["nu"], r"no subspace named 'nu'; the stream has x\(2\), mu\(2\), c\(1\), w\(3\)"),
        (lambda: Layout([("x", 1), ("x", 2)]), "'x' twice"),
        (lambda: Layout([("", 1)]), "distinct and not empty"),
        (lambda: Layout([("x", -1)]), "subspace 'x' has negative size -1"),
        (lambda: STREAM["x"] + STREAM["c"], r"c \(1 rows\) cannot be added to x \(2 rows\)"),
        (lambda: STREAM["x"] - STREAM["c"], r"c \(1 rows\) cannot be subtracted from x \(2 rows\)"),
        (lambda: head(STREAM, query=[STREAM["x"]], key=[], value={}), "query has 1 entries, key 0"),
        (
            lambda: head(STREAM, query=[STREAM["x"]], key=[-STREAM["c"]], value={}),
            r"query x \(2 rows\) meets key -c \(1 rows\)",
        ),
        (
            lambda: head(STREAM, query=[], key=[], value={"w": STREAM["x"]}),
            r"value x \(2 rows\) does not fit w \(3 rows\)",
        ),
        (lambda: head(STREAM, query=[STREAM["e"]] * 5, key=[STREAM["w"]] * 5, value={}), "query has 15 rows"),
        (
            lambda: apply(STREAM, square_approximation(1, 1), read="x", write="w"),
            r"x \(2\) can be written to w",
        ),
        (
            lambda: apply(STREAM, square_approximation(1, 1), read="w", write="e", one=STREAM["x"]),
            r"x \(2\) does not fit w \(3\)",
        ),
        (
            lambda: share(clean(STREAM, "x"), clean(STREAM, "mu")),
            "parts can share hidden units only if these are the same",
        ),
        (lambda: STREAM.put(np.zeros(12), "c", [1.0, 2.0]), "2 values do not fit 'c' of size 1"),
    ],
)
def test_mistakes_in_names_and_sizes_raise(call, message):
    with pytest.raises(ValueError, match=message):
        call()
