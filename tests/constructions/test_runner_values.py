"""The runner, its weights and its sizes in scalar loops, with tiles of any size and at its limits."""

import math

import numpy as np
import pytest
import torch

from constructions import Layer, Transformer, transformer
from constructions.residual import Layout
from constructions.trace import Trace
from constructions.transformer import TILE, State, pool, spectral_norm
from constructions.weights import Head, Pooling, Sizes


def close(got, want):
    return math.isclose(got, want, rel_tol=1e-9, abs_tol=1e-12)


def times(matrix, h):
    return [sum(float(w) * x for w, x in zip(row, h, strict=True)) for row in matrix]


def scalar_layer(layer, tokens):
    """Definitions 1 or 4, then 2, for one sequence of tokens."""
    after = []
    for h in tokens:
        out = list(h)
        for head in layer.heads:
            q = times(head.Q, h)
            scores = [sum(a * b for a, b in zip(q, times(head.K, other), strict=True)) for other in tokens]
            if layer.activation == "softmax":
                total = sum(math.exp(s) for s in scores)
                weights = [math.exp(s) / total for s in scores]
            else:
                weights = [max(0.0, s) / len(tokens) for s in scores]
            for weight, other in zip(weights, tokens, strict=True):
                for c, v in zip(head.targets, times(head.V, other), strict=True):
                    out[c] += weight * v
        after.append(out)
    result = []
    for h in after:
        hidden = [max(0.0, z) for z in times(layer.W1, h)]
        result.append([x + y for x, y in zip(h, times(layer.W2, hidden), strict=True)])
    return result


def drawn(rng, activation, D, ranks, hidden):
    """A layer with heads of these ranks, which write to some coordinates, or to all where the rank is D."""
    heads = []
    for rank in ranks:
        writes = None if rank == D else rng.permutation(D)[: max(1, rank)]
        rows = D if writes is None else len(writes)
        heads.append(Head(*(0.7 * rng.standard_normal((r, D)) for r in (rank, rank, rows)), writes))
    W1, W2 = 0.5 * rng.standard_normal((hidden, D)), 0.3 * rng.standard_normal((D, hidden))
    return Layer(activation, tuple(heads), W1, W2)


@pytest.fixture
def temporaries(monkeypatch):
    """Numbers of entries of what goes through a softmax or a ReLU."""
    seen = []
    for name in ("softmax", "relu"):
        true = getattr(torch, name)

        def watched(x, *args, true=true, **options):
            seen.append(x.numel())
            return true(x, *args, **options)

        monkeypatch.setattr(torch, name, watched)
    return seen


@pytest.mark.parametrize("activation", ["softmax", "relu"])
@pytest.mark.parametrize("tile", [1, 4, 5, 12, 15, 50, 60, 130, 640, None])
def test_the_dense_pass_in_tiles(activation, tile, temporaries, monkeypatch):
    """The same for every size of tile; no temporary is larger, but for one row of scores."""
    rng = np.random.default_rng(0)
    B, N, D = 3, 5, 4
    layers = [drawn(rng, activation, D, (4, 2, 1), 70), drawn(rng, activation, D, (2,), 3)]
    H = rng.standard_normal((B, N, D))
    if tile is not None:
        monkeypatch.setattr(transformer, "TILE", tile)
    out = Transformer(layers)(H)
    for sequence, got in zip(H.tolist(), out.tolist(), strict=True):
        want = sequence
        for layer in layers:
            want = scalar_layer(layer, want)
        assert all(map(close, sum(got, []), sum(want, [])))  # noqa: RUF017
    assert all(0 < entries <= max(tile or TILE, N) for entries in temporaries)
    assert sum(temporaries) == B * N * N * 4 + B * N * 73
    if tile is None:  # all of a head, or of an MLP, at once
        assert len(temporaries) == 6


def test_a_tile_of_float64_takes_64_mebibytes():
    assert 8 * TILE == 64 * 2**20


class Bar:
    """What a progress bar is told."""

    def __init__(self, iterable=None, **options):
        self.iterable, self.options, self.done = iterable, options, 0
        Bar.last = self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def __iter__(self):
        return iter(self.iterable)

    def update(self, count):
        self.done += count


def test_progress_of_the_dense_pass(monkeypatch):
    """Two products of N x N x D and two of D' x D for each token, two operations each."""
    monkeypatch.setattr(transformer, "tqdm", Bar)
    rng = np.random.default_rng(0)
    B, N, D = 2, 5, 3
    network = Transformer([drawn(rng, "relu", D, (3, 2), 7), drawn(rng, "relu", D, (), 4)])
    operations = 2 * 2 * D * B * N * (2 * N + 7) + 2 * 2 * D * B * N * 4
    for limit, disable in ((operations, True), (operations - 1, None)):
        monkeypatch.setattr(transformer, "_LONG_WORK", limit)
        network(rng.standard_normal((B, N, D)))
        assert Bar.last.options["disable"] is disable
        assert Bar.last.options["total"] == Bar.last.done == operations


def test_progress_of_the_structured_pass(monkeypatch):
    """Shown above a number of tokens times layers."""
    monkeypatch.setattr(transformer, "tqdm", Bar)
    rng = np.random.default_rng(0)
    network = Transformer([drawn(rng, "relu", 3, (3, 2), 7)] * 4)
    for limit, disable in ((20, True), (19.9, None)):
        monkeypatch.setattr(transformer, "_LONG_WALK", limit)
        network(rng.standard_normal((5, 3)), "structured")
        assert Bar.last.options["disable"] is disable


@pytest.mark.parametrize("mode", ["dense", "structured"])
@pytest.mark.parametrize("activation", ["softmax", "relu"])
def test_tokens_of_one_coordinate(activation, mode):
    rng = np.random.default_rng(0)
    layers = [drawn(rng, activation, 1, (1,), 5)] * 2
    H = rng.standard_normal((6, 1))
    want = H.tolist()
    for layer in layers:
        want = scalar_layer(layer, want)
    assert all(map(close, Transformer(layers)(H, mode)[:, 0], [h[0] for h in want]))


@pytest.mark.parametrize("mode", ["dense", "structured"])
def test_overflow_names_the_largest_entry_of_either_sign(mode):
    layer = Layer("relu", (), np.array([[-1e200, 0.0]]), np.array([[0.0], [1e200]]))
    with pytest.raises(OverflowError, match=r"in the mlp of layer 1; the largest entry before it was 7$"):
        Transformer([layer])(np.array([[-7.0, 2.0]] * 3), mode)


@pytest.mark.parametrize(
    ("matrix", "want"),
    [
        ([[3.0, 0.0], [4.0, 5.0]], math.sqrt(45)),
        ([[1.0, -2.0, 2.0]], 3.0),
        ([[1.0], [-2.0], [2.0]], 3.0),
        ([[2.0, 4.0], [1.0, 2.0], [-2.0, -4.0]], 3 * math.sqrt(5)),
        ([[-0.25]], 0.25),
    ],
)
def test_spectral_norms(matrix, want, monkeypatch):
    """From the Gram matrix of the shorter side."""
    true, shapes = torch.linalg.eigvalsh, []

    def watched(gram):
        shapes.append(tuple(gram.shape))
        return true(gram)

    monkeypatch.setattr(torch.linalg, "eigvalsh", watched)
    assert close(spectral_norm(torch.tensor(matrix, dtype=torch.float64)), want)
    assert shapes == [(min(len(matrix), len(matrix[0])),) * 2]


@pytest.mark.parametrize("D", [1, 3])
@pytest.mark.parametrize("size", [1.0, 900.0])
@pytest.mark.parametrize("activation", ["softmax", "linear"])
def test_pooling_in_scalar_loops(activation, size, D):
    """Each row as often as it is counted; scores in the thousands do not overflow."""
    rng = np.random.default_rng(0)
    K = 2
    Qo, Ko, Vo = size * rng.standard_normal((2, K)), rng.standard_normal((2, D)), rng.standard_normal((4, D))
    rows, counts = rng.standard_normal((5, D)), [3, 1, 4, 1, 2]
    scores = []
    for row in rows:
        k = times(Ko, row)
        scores.append([sum(k[r] * float(Qo[r, a]) for r in range(2)) for a in range(K)])
    got = pool(Pooling(activation, Qo, Ko, Vo), torch.tensor(rows), torch.tensor(counts))
    alone = pool(Pooling(activation, Qo, Ko, Vo), torch.tensor(rows))
    for result, often in ((got, counts), (alone, [1] * 5)):
        for a in range(K):
            if activation == "softmax":
                top = max(s[a] for s in scores)
                weights = [n * math.exp(s[a] - top) for n, s in zip(often, scores, strict=True)]
                weights = [w / sum(weights) for w in weights]
            else:
                weights = [n * s[a] / sum(often) for n, s in zip(often, scores, strict=True)]
            want = [
                sum(w * times(Vo, row)[i] for w, row in zip(weights, rows, strict=True)) for i in range(4)
            ]
            assert all(map(close, result[:, a], want))


# ---- weights


def one_head(Q=None, K=None, V=None, writes=None):
    """A layer of width 3 whose only head has these arrays."""
    Q, K, V = (np.ones((2, 3)) if part is None else part for part in (Q, K, V))
    writes = np.array([0, 2]) if writes is None and len(V) == 2 else writes
    return Layer("relu", (Head(Q, K, V, writes),), np.ones((4, 3)), np.ones((3, 4)))


def test_heads_that_fit():
    assert one_head().width == 3
    assert one_head().heads[0].targets == [0, 2]
    assert one_head(Q=np.ones((3, 3)), K=np.ones((3, 3))).width == 3
    assert one_head(V=np.ones((3, 3))).heads[0].targets == [0, 1, 2]
    assert one_head(V=np.ones((1, 3)), writes=np.array([0])).heads[0].targets == [0]
    assert one_head(V=np.ones((1, 3)), writes=np.array([2])).heads[0].targets == [2]
    assert one_head(V=np.ones((0, 3)), writes=np.array([], dtype=np.int64)).heads[0].targets == []
    layer = one_head()
    for array in (layer.W1, layer.W2, *layer.heads[0][:3]):
        assert not array.flags.writeable


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Q": np.ones((4, 3))}, r"Q of head 0 must be \(at most 3, 3\), got \(4, 3\)"),
        ({"K": np.ones((2, 4))}, r"K of head 0 must be \(at most 3, 3\), got \(2, 4\)"),
        ({"V": np.ones((2, 2))}, r"V of head 0 must be \(at most 3, 3\), got \(2, 2\)"),
        ({"Q": np.ones(3)}, r"Q of head 0 must be \(at most 3, 3\), got \(3,\)"),
        ({"Q": np.ones((1, 3))}, r"Q and K of head 0 must have equal shapes, got \(1, 3\) and \(2, 3\)"),
        ({"V": np.ones((1, 3))}, r"V of head 0 must be \(3, 3\) or come with writes, got \(1, 3\)"),
        ({"writes": np.array([0])}, r"writes of head 0 must name each row of V once, got \[0\]"),
        ({"writes": np.array([1, 1])}, r"writes of head 0 must name each row of V once, got \[1, 1\]"),
        ({"writes": np.array([-1, 1])}, r"writes of head 0 must lie in 0\.\.2, got \[-1, 1\]"),
        ({"writes": np.array([0, 3])}, r"writes of head 0 must lie in 0\.\.2, got \[0, 3\]"),
        ({"V": np.full((2, 3), np.inf)}, "a layer's matrices must be finite"),
    ],
)
def test_heads_that_do_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        one_head(**change)


@pytest.mark.parametrize("shapes", [((3,), (3,)), ((2, 3), (2, 3)), ((2, 3), (4, 2)), ((2, 3, 1), (1, 3, 2))])
def test_hidden_units_that_do_not_fit(shapes):
    with pytest.raises(ValueError, match=r"W1 and W2 must be \(D', D\) and \(D, D'\), got"):
        Layer("relu", (), *map(np.ones, shapes))


def test_a_layer_from_square_matrices():
    """A row of Q and K that is 0 in both is left out, and so is one of V."""
    Q, K, V = np.zeros((3, 4, 4))
    Q[1, 2], K[2, 1], K[0, 3], V[3, 0], V[1, 1] = 2.0, 3.0, 5.0, 7.0, -1.0
    matrices = {"activation": "relu", "Q": [Q], "K": [K], "V": [V]}
    matrices |= {"W1": [[1, 2, 3, 4]], "W2": [[5], [6], [7], [8]]}
    made = Layer.from_matrices(matrices)
    (head,) = made.heads
    assert head.Q.tolist() == [[0, 0, 0, 0], [0, 0, 2, 0], [0, 0, 0, 0]]
    assert head.K.tolist() == [[0, 0, 0, 5], [0, 0, 0, 0], [0, 3, 0, 0]]
    assert head.V.tolist() == [[0, -1, 0, 0], [7, 0, 0, 0]]
    assert head.targets == [1, 3]
    assert made.W1.tolist() == [[1, 2, 3, 4]]
    assert made.W2.tolist() == [[5], [6], [7], [8]]
    with pytest.raises(ValueError, match=r"K of head 0 must have equal shapes, got \(4, 4\) and \(3, 4\)"):
        Layer.from_matrices(matrices | {"K": [K[:3]]})


def test_a_class_contains_networks_at_its_bounds():
    """Layers and width are equal, the others at most as large."""
    sizes = Sizes(2, 3, 6, 9, 4.5, (3, 1), (9, 4))
    ends = {"layers": 2, "width": 6, "hidden_width": 9, "heads": 3, "norm": 4.5}
    assert sizes.within(**ends)
    assert sizes.within(**ends | {"hidden_width": 10, "heads": 4, "norm": 5.0})
    for name, below in (("hidden_width", 8), ("heads", 2), ("norm", 4.49)):
        assert not sizes.within(**ends | {name: below})
    for name in ("layers", "width"):
        for other in (1, 7):
            assert not sizes.within(**ends | {name: other})


def test_a_trace_counts_its_layers():
    trace = Trace(Layout([("a", 1), ("b", 2)]))
    assert trace.n_layers == 0
    for layer in range(4):
        trace.append(State(layer, "mlp", torch.tensor([[1.0, 2.0, 3.0 + layer]])))
    assert trace.n_layers == 3
    assert trace[2, "b"].tolist() == [[2.0, 5.0]]
    with pytest.raises(
        ValueError, match=r"no state after the mlp of layer 4; .* layers 0 \(the input\) to 3"
    ):
        trace[4, "b"]
