"""The structured evaluation against the dense one: each rewrite, each fallback, and what it says."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from constructions import EMTransformer, Layer, Transformer, structured_heads
from constructions.tokens import GROUPED, OWN, SHARED, Tokens
from constructions.weights import Head
from tests.compare import assert_exact, gap
from tests.problems import em_cases

# The stream of these tests: coordinates 0-1 vary freely, 2-3 take few values, 4-5 are constant.
FREE, FEW, CONSTANT = (0, 1), (2, 3), (4, 5)
D = 6


def stream(rng, N=700, groups=5):
    H = rng.standard_normal((N, D))
    H[:, FEW] = rng.standard_normal((groups, 2))[rng.integers(0, groups, N)]
    H[:, CONSTANT] = rng.standard_normal(2)
    return H


def reading(rng, rows, *coordinates, width=D):
    """A random matrix with columns in the given coordinates only."""
    matrix = np.zeros((rows, width))
    matrix[:, coordinates] = rng.standard_normal((rows, len(coordinates)))
    return matrix


def network(activation="softmax", heads=(), W1=None, W2=None):
    W1 = np.zeros((0, D)) if W1 is None else W1
    return Transformer([Layer(activation, tuple(heads), W1, np.zeros((D, len(W1))) if W2 is None else W2)])


def assert_same(model, H, ulps=1e4):
    dense = model(H)
    scale = np.abs(dense).max()
    assert gap(dense, H) > 1e-3 * scale, "the network does nothing"
    assert_exact(model(H, "structured"), dense, ulps=ulps, scale=scale)
    return " | ".join(model.used)


def test_compression_keeps_every_value():
    rng = np.random.default_rng(0)
    for N in (1, 2, 3, 100, 700, 6000):
        H = torch.as_tensor(stream(rng, N))
        tokens = Tokens.compress(H)
        assert torch.equal(tokens.dense(), H)
        assert int(tokens.counts.sum()) == N
    assert tokens.kind == (OWN, OWN, GROUPED, GROUPED, SHARED, SHARED)
    assert len(tokens.groups) == 5


def test_compression_sees_values_beyond_its_sample():
    """One late token breaks a constant, another brings a new value: those columns vary freely."""
    H = torch.as_tensor(stream(np.random.default_rng(0), 9000))
    H[8000, 4] = 7.0
    H[8500, 2] = 7.0
    tokens = Tokens.compress(H)
    assert torch.equal(tokens.dense(), H)
    assert (tokens.kind[2], tokens.kind[4], tokens.kind[5]) == (OWN, OWN, SHARED)


def test_negative_zero_is_zero():
    H = torch.zeros(1000, 2, dtype=torch.float64)
    H[::2, 0] = -0.0
    H[:, 1] = torch.arange(1000) % 3
    assert Tokens.compress(H).kind[0] == SHARED


@pytest.mark.parametrize("activation", ["softmax", "relu"])
@pytest.mark.parametrize(
    ("query", "key", "value", "rule"),
    [
        (FREE, FEW, FEW, "repeated (key, value) pairs"),
        (FREE + FEW + CONSTANT, FEW + CONSTANT, CONSTANT, "repeated (key, value) pairs"),
        (FEW, FEW, FEW, "repeated (key, value) pairs"),
        (CONSTANT, FEW, FEW, "repeated (key, value) pairs"),
        (FREE, CONSTANT, CONSTANT, "repeated (key, value) pairs"),
        ((), (), FEW, "repeated (key, value) pairs"),
        (FEW, FREE, FREE, "repeated queries"),
        (CONSTANT, FREE + FEW, FREE, "repeated queries"),
        (FEW, FEW, FREE, "repeated queries"),
        ((), (), FREE + FEW, "repeated queries"),
        (FREE, FREE, FREE, "dense"),
        (FREE + FEW, FREE + CONSTANT, FREE + FEW, "dense"),
        (FREE, FEW, FREE, "dense"),
    ],
)
def test_attention_rewrites(activation, query, key, value, rule):
    rng = np.random.default_rng(len(query) + 10 * len(key))
    head = Head(*(0.5 * reading(rng, D, *part) for part in (query, key, value)))
    model, H = network(activation, [head]), stream(rng)
    if activation == "relu" and not query:  # relu(0) = 0: nothing is attended to
        assert gap(model(H), H) == gap(model(H, "structured"), H) == 0
        return
    used = assert_same(model, H)
    assert used == f"layer 1 head 1: {rule}"


def sign_pair(rng, query, key, value):
    Q, K, V = (0.5 * reading(rng, D, *part) for part in (query, key, value))
    return [Head(Q, K, V), Head(-Q, K, -V)]


def test_sign_pairs_are_linear_attention():
    rng = np.random.default_rng(0)
    first, second = sign_pair(rng, FREE + FEW, FREE, FREE), sign_pair(rng, FREE, FREE + CONSTANT, FEW + FREE)
    heads = [first[0], second[1], first[1], second[0]]
    used = assert_same(network("relu", heads), stream(rng))
    assert used == " | ".join(f"layer 1 head {m}: sign pair" for m in (1, 2, 3, 4))


@pytest.mark.parametrize("broken", ["Q", "K", "V", "alone"])
def test_an_almost_sign_pair_is_dense(broken):
    rng = np.random.default_rng(0)
    head, twin = sign_pair(rng, FREE, FREE, FREE)
    if broken == "alone":
        heads = [head]
    else:
        changed = getattr(twin, broken).copy()
        changed[0, 0] += 1e-9
        heads = [head, twin._replace(**{broken: changed})]
    used = assert_same(network("relu", heads), stream(rng))
    assert "sign pair" not in used
    assert used.count("dense") == len(heads)


def test_a_sign_pair_with_softmax_is_none():
    rng = np.random.default_rng(0)
    used = assert_same(network("softmax", sign_pair(rng, FREE, FREE, FREE)), stream(rng))
    assert used.count("dense") == 2


@pytest.mark.parametrize(
    ("reads", "rule"),
    [
        (CONSTANT, "repeated rows"),
        (FEW + CONSTANT, "repeated rows"),
        ((0, 4, 5), "one-coordinate units"),
        ((1,), "one-coordinate units"),
        ((0, 1), "dense"),
        ((0, 2), "dense"),
    ],
)
@pytest.mark.parametrize("units", [1, 2, 40])
def test_mlp_rewrites(reads, rule, units):
    rng = np.random.default_rng(units)
    W1 = reading(rng, units, *reads)
    H = stream(rng)
    W1[0] *= np.sign(W1[0] @ H[0])  # at least one unit is on
    used = assert_same(network(W1=W1, W2=rng.standard_normal((D, units))), H)
    assert used == f"layer 1 mlp: {rule}"


def test_units_of_every_sort_side_by_side():
    rng = np.random.default_rng(1)
    parts = [CONSTANT, FEW, (0, 4), (1, 5), (0, 1), (1, 2), ()]
    W1 = np.concatenate([reading(rng, 6, *part) for part in parts])
    W1 = rng.permutation(W1)
    used = assert_same(network(W1=W1, W2=rng.standard_normal((D, len(W1)))), stream(rng))
    assert used.count("repeated rows") == 2
    assert used.count("one-coordinate units") == 2
    assert used.count("dense") == 1


def test_tables_with_equal_kinks_and_empty_pieces():
    x = np.linspace(-3, 3, 1001)
    H = np.zeros((1001, D))
    H[:, 0], H[:, 4] = x, 1
    W1 = np.zeros((6, D))
    W1[:, 0] = [1, -1, 2, 1, -1, 1]
    W1[:, 4] = [-1, 1, -2, 0.5, 0.5, 1e9]
    W2 = np.zeros((D, 6))
    W2[1], W2[0] = [1, 2, 3, -4, 5, 1e-9], [1, -1, -0.5, 0, 0, 0]
    assert_same(network(W1=W1, W2=W2), H)


def test_cleaning_is_exact_and_frees_the_column():
    rng = np.random.default_rng(0)
    H = stream(rng)
    W1 = np.concatenate([np.eye(D)[:1], -np.eye(D)[:1]])
    model = network(W1=W1, W2=-W1.T)
    assert (model(H, "structured")[:, 0] == 0).all()
    states = list(model.states(torch.as_tensor(H), "structured"))
    assert states[0].tokens.kind[0] == OWN
    assert states[1].tokens.kind[0] == SHARED


def test_cleaning_a_column_that_is_written_too():
    rng = np.random.default_rng(0)
    clean = np.concatenate([np.eye(D)[:1], -np.eye(D)[:1]])
    W1 = np.concatenate([clean, reading(rng, 3, 1, 4)])
    W2 = np.concatenate([-clean, rng.standard_normal((3, D))]).T
    assert_same(network(W1=W1, W2=W2.copy()), stream(rng))


@given(st.integers(0, 10**6), st.sampled_from(["softmax", "relu"]))
def test_random_sparse_networks(seed, activation):
    """Matrices that read and write random coordinates, three layers deep."""
    rng = np.random.default_rng(seed)

    def picks():
        return rng.random(D) < 0.4

    def sparse():
        return 0.4 * rng.standard_normal((D, D)) * picks() * picks()[:, None]

    layers = []
    for _ in range(3):
        heads = tuple(Head(sparse(), sparse(), sparse()) for _ in range(2))
        W1 = rng.standard_normal((9, D)) * (rng.random((9, D)) < 0.25)
        layers.append(Layer(activation, heads, W1, 0.3 * rng.standard_normal((D, 9)) * picks()[:, None]))
    model = Transformer(layers)
    H = stream(rng, N=int(rng.integers(1, 400)))
    dense = model(H)
    scale = np.abs(dense).max() * (1 + np.abs(H).max()) ** 4
    assert_exact(model(H, "structured"), dense, ulps=1e5, scale=scale)


def test_a_dense_random_network_falls_back_and_says_so():
    rng = np.random.default_rng(0)
    draw = lambda *shape: 0.3 * rng.standard_normal(shape)  # noqa: E731
    heads = tuple(Head(draw(D, D), draw(D, D), draw(D, D)) for _ in range(2))
    used = assert_same(Transformer([Layer("softmax", heads, draw(30, D), draw(D, 30))] * 2), stream(rng))
    assert used.count("dense") == 6
    assert "repeated" not in used


@pytest.mark.parametrize(
    "case", [case for case in em_cases(16, seed=7, max_samples=400) if len(case.X) >= 20]
)
def test_a_perturbed_em_network_is_evaluated_right(case):
    """Every matrix entry moved by 1e-3: no rewrite may be assumed any more."""
    em = EMTransformer(8, 5, eps=1e-2, r_max=32, pi_min=1e-2)
    model, H = em.transformer(2), em.encode(case.X, case.init)
    generator = torch.Generator().manual_seed(0)
    model(H, "structured")
    assert "dense" not in " ".join(model.used)
    clean = model(H)
    for weights in model.parameters():
        weights.add_(1e-3 * torch.randn(weights.shape, generator=generator, dtype=weights.dtype))
    dense, structured = model(H), model(H, "structured")
    assert gap(dense, clean) > 1e-6
    assert gap(structured, dense) <= 1e-9 * np.abs(dense).max()
    assert "dense" in " ".join(model.used)


def test_every_state_agrees_not_only_the_last():
    (case,) = em_cases(1, seed=1, max_samples=300)
    em = EMTransformer(8, 5, eps=1e-2, r_max=32, pi_min=1e-2)
    H = torch.as_tensor(em.encode(case.X, case.init))
    model = em.transformer(2)
    pairs = zip(model.states(H, "dense"), model.states(H, "structured"), strict=True)
    for dense, fast in pairs:
        assert (dense.layer, dense.stage) == (fast.layer, fast.stage)
        scale = float(dense.tokens.abs().max())
        assert_exact(fast.tokens.dense(), dense.tokens, ulps=1e5, scale=scale)


def test_large_and_small_batches_of_tokens_agree():
    """N beyond one chunk, not a multiple of it."""
    rng = np.random.default_rng(0)
    heads = [
        Head(*(0.5 * reading(rng, D, *part) for part in parts))
        for parts in ((FREE, FEW, FEW), (FEW, FREE, FREE), ((), (), FREE))
    ]
    W1 = np.concatenate([reading(rng, 5, 0, 4), reading(rng, 5, 0, 1), reading(rng, 3, *FEW)])
    model = network("softmax", heads, W1, rng.standard_normal((D, 13)))
    H = stream(rng, N=2**15 + 77)
    picked = np.r_[0:50, len(H) - 50 : len(H)]
    whole = model(H, "structured")
    # the same keys as the whole, evaluated densely for a few queries only
    block = model.blocks[0]
    rows = torch.as_tensor(H)
    out = rows[picked].clone()
    for Q, K, V, targets in block.heads:
        pattern = torch.softmax((rows[picked] @ Q.T) @ (rows @ K.T).T, dim=1)
        out[:, targets] += pattern @ (rows @ V.T)
    out += torch.relu(out @ block.W1.T) @ block.W2.T
    assert_exact(whole[picked], out, ulps=1e5, scale=float(out.abs().max()))


def coded(rng, N, bits=12):
    """ReLU heads in which token i attends to tokens near it only: the score of i and j is
    x_i - 40 (differing digits of i and j); the last head writes through both free coordinates."""
    width = 3 + bits
    H = rng.standard_normal((N, width))
    H[:, 2] = 1.0
    H[:, 3:] = np.where(np.arange(N)[:, None] >> np.arange(bits) & 1, 1.0, -1.0)
    Q, K = np.zeros((bits + 2, width)), np.zeros((bits + 2, width))
    Q[0, 0] = K[0, 2] = 1.0
    Q[1:-1, 3:] = 20 * np.eye(bits)
    K[1:-1, 3:] = np.eye(bits)
    Q[-1, 2], K[-1, 2] = 1.0, -20.0 * bits
    return H, Head(Q, K, reading(rng, 2, 0, 1, width=width), np.array([0, 1]))


@pytest.mark.parametrize("N", [130, 1000, 2500])
def test_scores_that_are_not_positive_are_left_out(N):
    """Also where a few late tokens reach far beyond their block, and in any order of the tokens."""
    rng = np.random.default_rng(N)
    H, head = coded(rng, N)
    H[-3:, 0] = (90.0, 130.0, 300.0)
    model = Transformer([Layer("relu", (head,), np.zeros((0, H.shape[1])), np.zeros((H.shape[1], 0)))])
    rule = assert_same(model, H)
    assert ("few positive scores" in rule) == (N > 500)
    assert_same(model, H[rng.permutation(N)])


def test_scores_left_out_are_those_of_the_bound(monkeypatch):
    """Boxes drawn too small, or no allowance for their size, lose pairs that count."""
    rng = np.random.default_rng(0)
    H, head = coded(rng, 1500)
    H[:, 0] = np.where(np.arange(1500) % 90 == 7, 150.0, H[:, 0])
    model = Transformer([Layer("relu", (head,), np.zeros((0, H.shape[1])), np.zeros((H.shape[1], 0)))])
    assert_same(model, H)
    boxes = structured_heads._boxes
    monkeypatch.setattr(
        structured_heads, "_boxes", lambda columns: (boxes(columns)[0], 0 * boxes(columns)[1])
    )
    assert gap(model(H, "structured"), model(H)) > 1e-3


def test_scores_of_either_sign_are_all_evaluated():
    rng = np.random.default_rng(1)
    H = stream(rng, 600)
    head = Head(*(reading(rng, 2, *FREE) for _ in range(3)), np.array([0, 1]))
    assert "dense" in assert_same(network("relu", [head]), H)


def test_a_batch_says_what_was_used_for_any_of_its_sequences():
    rng = np.random.default_rng(0)
    head = Head(*(reading(rng, 2, *FREE) for _ in range(3)), np.array([0, 1]))
    model = network("softmax", [head])
    model(np.stack([stream(rng, 40), np.ones((40, D))]), "structured")
    assert {rule.split(": ")[1] for rule in model.used} == {"dense", "repeated (key, value) pairs"}
