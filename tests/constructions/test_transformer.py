import subprocess
import sys

import numpy as np
import pytest
import torch

from constructions import EMTransformer, Layer, Transformer
from constructions.transformer import TILE, dense_attention, dense_mlp, pool, spectral_norm
from constructions.weights import Head, Pooling
from tests import naive
from tests.compare import U, assert_exact, gap
from tests.problems import em_cases


def random_layer(rng, D, heads, hidden, activation, scale=0.5):
    draw = lambda *shape: scale * rng.standard_normal(shape)  # noqa: E731
    return Layer(
        activation,
        tuple(Head(draw(D, D), draw(D, D), draw(D, D)) for _ in range(heads)),
        draw(hidden, D),
        draw(D, hidden),
    )


@pytest.mark.parametrize("activation", ["softmax", "relu"])
@pytest.mark.parametrize(
    ("N", "D", "heads", "hidden"), [(1, 3, 1, 4), (7, 5, 3, 0), (12, 6, 0, 9), (9, 4, 2, 5)]
)
def test_forward_is_the_definition(activation, N, D, heads, hidden):
    rng = np.random.default_rng(N)
    network = Transformer([random_layer(rng, D, heads, hidden, activation) for _ in range(3)])
    H = rng.standard_normal((N, D))
    want = naive.forward(network.matrices(), H)
    assert_exact(network(H), want, ulps=64 * D * max(N, hidden), scale=np.abs(want).max())


def test_the_softmax_is_over_keys_not_queries():
    """Twin of the naive oracle: normalising over the other index gives something else."""
    rng = np.random.default_rng(1)
    layer = random_layer(rng, 4, 1, 0, "softmax")
    H = rng.standard_normal((5, 4))
    scores = (H @ layer.heads[0].Q.T) @ (H @ layer.heads[0].K.T).T
    powers = np.exp(scores)
    values = H @ layer.heads[0].V.T
    right = H + (powers / powers.sum(axis=1, keepdims=True)) @ values
    wrong = H + (powers / powers.sum(axis=0, keepdims=True)) @ values
    out = Transformer([layer])(H)
    assert_exact(out, right, ulps=1e4)
    assert gap(out, wrong) > 1e-2


@pytest.mark.parametrize("case", em_cases(6, seed=2, max_samples=30))
def test_em_construction_agrees_with_the_naive_loop(case):
    em = EMTransformer(8, 5, eps=1e-2, r_max=32, pi_min=1e-2)
    H = em.encode(case.X, case.init)
    network = em.transformer(2)
    want = naive.forward(network.matrices(), H)
    for mode in ("dense", "structured"):
        assert gap(network(H, mode), want) <= 1e-10 * np.abs(want).max()


def test_any_leading_axes_and_numpy_or_torch():
    rng = np.random.default_rng(0)
    network = Transformer([random_layer(rng, 4, 2, 3, "softmax") for _ in range(2)])
    H = rng.standard_normal((2, 3, 6, 4))
    whole = network(H)
    assert isinstance(whole, np.ndarray)
    for a in range(2):
        for b in range(3):
            for mode in ("dense", "structured"):
                assert_exact(network(H[a, b], mode), whole[a, b], ulps=1e4)
    assert_exact(network(H, "structured"), whole, ulps=1e4)
    tensor = network(torch.as_tensor(H))
    assert isinstance(tensor, torch.Tensor)
    assert gap(tensor, whole) == 0


def test_chunks_do_not_change_the_result():
    """More queries and more hidden units than fit one tile."""
    rng = np.random.default_rng(0)
    N, hidden = 3001, TILE // 64 + 7
    assert N * N > TILE
    network = Transformer([random_layer(rng, 2, 1, hidden, "softmax", scale=0.1)])
    block, H = network.blocks[0], torch.as_tensor(rng.standard_normal((N, 2)))
    Q, K, V = block.Q[0], block.K[0], block.V[0]
    want = torch.softmax((H @ Q.T) @ (H @ K.T).T, dim=1) @ (H @ V.T)
    assert_exact(dense_attention(block, H), H + want, ulps=1e4)
    few = H[:200]
    want = few + torch.relu(few @ block.W1.T) @ block.W2.T
    assert_exact(dense_mlp(block, few), want, ulps=1e4, scale=hidden)


MEMORY = """
import resource, sys
import numpy as np, torch
from constructions import Layer, Transformer, transformer
transformer.TILE = int(sys.argv[1])
from constructions.weights import Head
torch.set_num_threads(1)
rng = np.random.default_rng(0)
draw = lambda *shape: 0.1 * rng.standard_normal(shape)
layer = Layer("softmax", (Head(draw(2, 2), draw(2, 2), draw(2, 2)),), draw(14000, 2), draw(2, 14000))
network, H = Transformer([layer]), rng.standard_normal((14000, 2))
network(H[:10])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
network(H)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def peak_memory(tile):
    command = [sys.executable, "-c", MEMORY, str(tile)]
    return 1024 * int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.slow
def test_the_dense_pass_takes_less_than_a_gibibyte():
    """14000 tokens and hidden units: all scores at once, or all hidden values, take 1.5 GiB."""
    assert peak_memory(TILE) < 2**30
    assert peak_memory(2**40) > 2**30


def test_tied_layers_are_one_array():
    layer = random_layer(np.random.default_rng(0), 3, 2, 4, "relu")
    entries = Transformer([layer, layer]).matrices()
    for name in ("Q", "K", "V"):
        assert all(a is b for a, b in zip(entries[0][name], entries[1][name], strict=True))
    assert entries[0]["W1"] is entries[1]["W1"]
    assert entries[0]["W2"] is entries[1]["W2"]


def test_matrices_have_the_papers_shapes_and_rebuild_the_network():
    rng = np.random.default_rng(0)
    network = Transformer([random_layer(rng, 5, 2, 7, "softmax"), random_layer(rng, 5, 1, 0, "relu")])
    first, second = network.matrices()
    assert [m.shape for m in first["Q"] + first["K"] + first["V"]] == [(5, 5)] * 6
    assert (first["W1"].shape, first["W2"].shape) == ((7, 5), (5, 7))
    assert (second["W1"].shape, second["W2"].shape) == ((0, 5), (5, 0))
    assert (first["activation"], second["activation"]) == ("softmax", "relu")
    H = rng.standard_normal((4, 5))
    assert gap(Transformer(network.matrices())(H), network(H)) == 0


def test_changing_a_network_changes_no_other():
    layer = random_layer(np.random.default_rng(0), 3, 1, 4, "softmax")
    one, two = Transformer([layer]), Transformer([layer])
    before = two.matrices()[0]["W1"]
    one.blocks[0].W1.add_(1.0)
    one.to(torch.float32)
    assert gap(two.matrices()[0]["W1"], before) == 0
    assert two.dtype == torch.float64


def test_sizes_and_norm():
    rng = np.random.default_rng(0)
    layers = [random_layer(rng, 6, 2, 9, "softmax"), random_layer(rng, 6, 3, 4, "relu")]
    sizes = Transformer(layers).sizes()
    norm = lambda m: np.linalg.svd(m, compute_uv=False)[0]  # noqa: E731
    want = max(
        max(norm(m) for head in layer.heads for m in head[:3]) + norm(layer.W1) + norm(layer.W2)
        for layer in layers
    )
    assert sizes[:4] == (2, 3, 6, 9)
    assert_exact(sizes.norm, want, ulps=100, scale=want)
    assert sizes.heads_per_layer == (2, 3)
    assert sizes.hidden_per_layer == (9, 4)
    assert sizes.within(layers=2, width=6, hidden_width=9, heads=3, norm=want * (1 + 1e-12))
    for change in ({"layers": 3}, {"width": 7}, {"hidden_width": 8}, {"heads": 2}, {"norm": want * 0.99}):
        limits = {"layers": 2, "width": 6, "hidden_width": 9, "heads": 3, "norm": want * (1 + 1e-12)}
        assert not sizes.within(**(limits | change))


def test_norms_of_extreme_matrices_do_not_overflow():
    assert spectral_norm(torch.tensor([[1e300, 0.0], [0.0, 1e-300]], dtype=torch.float64)) == 1e300
    assert spectral_norm(torch.zeros(3, 2)) == 0
    assert spectral_norm(torch.zeros(0, 2)) == 0


def test_pooling_is_its_formula():
    rng = np.random.default_rng(0)
    Qo, Ko, Vo = rng.standard_normal((4, 2)), rng.standard_normal((4, 5)), rng.standard_normal((3, 5))
    H = rng.standard_normal((6, 5))
    scores = (Ko @ H.T).T @ Qo
    soft = np.exp(scores) / np.exp(scores).sum(axis=0)
    assert_exact(pool(Pooling("softmax", Qo, Ko, Vo), torch.as_tensor(H)), Vo @ H.T @ soft, ulps=1e3)
    linear = pool(Pooling("linear", Qo, Ko, Vo), torch.as_tensor(H))
    assert_exact(linear, Vo @ H.T @ scores / 6, ulps=1e3)
    rows, counts = torch.as_tensor(H[:2]), torch.tensor([3.0, 1.0], dtype=torch.float64)
    repeated = torch.as_tensor(H[[0, 0, 0, 1]])
    for kind in ("softmax", "linear"):
        pooling = Pooling(kind, Qo, Ko, Vo)
        assert_exact(pool(pooling, rows, counts), pool(pooling, repeated), ulps=1e3)


def test_overflow_names_the_step_and_the_size():
    layer = Layer("relu", (), np.full((1, 2), 1e200), np.full((2, 1), 1e200))
    network = Transformer([layer, layer])
    for mode in ("dense", "structured"):
        with pytest.raises(OverflowError, match=r"leave torch\.float64 in the mlp of layer 1; .* was 1$"):
            network(np.ones((3, 2)), mode)


@pytest.mark.parametrize(
    ("H", "error", "message"),
    [
        (np.zeros((3, 4)), ValueError, r"H must be \(\.\.\., N, 2\), got \(3, 4\)"),
        (np.zeros(2), ValueError, r"H must be \(\.\.\., N, 2\), got \(2,\)"),
        (np.zeros((0, 2)), ValueError, "at least one token"),
        (np.full((1, 2), np.nan), ValueError, "H must be finite"),
        (torch.zeros(3, 2), TypeError, r"H is torch\.float32 on cpu, the weights are torch\.float64 on cpu"),
    ],
)
def test_bad_tokens_are_refused(H, error, message):
    network = Transformer([Layer("relu", (), np.zeros((1, 2)), np.zeros((2, 1)))])
    for mode in ("dense", "structured"):
        with pytest.raises(error, match=message):
            network(H, mode)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_refused(dtype):
    network = Transformer([Layer("relu", (), np.zeros((1, 2)), np.zeros((2, 1)))]).to(dtype)
    with pytest.raises(TypeError, match=r"float16 is not supported.*use torch\.float64 or torch\.float32"):
        network(torch.zeros(3, 2, dtype=dtype))


def test_float32_differs_from_float64_by_rounding_only():
    rng = np.random.default_rng(0)
    network = Transformer([random_layer(rng, 6, 2, 9, "softmax") for _ in range(3)])
    H = rng.standard_normal((20, 6))
    exact = network(H)
    ratio = gap(network.to(torch.float32)(H), exact) / np.abs(exact).max()
    assert U * 2**29 / 100 < ratio < 1e3 * U * 2**29


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Transformer([]), "a transformer needs at least one layer"),
        (lambda: Layer("gelu", (), np.zeros((1, 2)), np.zeros((2, 1))), "activation must be"),
        (lambda: Layer("relu", (), np.zeros((1, 2)), np.zeros((1, 2))), r"W1 and W2 must be \(D', D\) and"),
        (
            lambda: Layer("relu", (Head(*np.zeros((3, 2, 3))),), np.zeros((1, 2)), np.zeros((2, 1))),
            r"Q of head 0 must be \(at most 2, 2\), got \(2, 3\)",
        ),
        (lambda: Layer("relu", (), np.full((1, 2), np.nan), np.zeros((2, 1))), "must be finite"),
        (
            lambda: Transformer([Layer("relu", (), np.zeros((0, n)), np.zeros((n, 0))) for n in (2, 3)]),
            r"layers must share one width D, got \[2, 3\]",
        ),
    ],
)
def test_bad_weights_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_unknown_modes_are_refused():
    network = Transformer([Layer("relu", (), np.zeros((1, 2)), np.zeros((2, 1)))])
    with pytest.raises(ValueError, match='mode must be "auto", "dense" or "structured", got \'fast\''):
        network(np.zeros((1, 2)), "fast")
