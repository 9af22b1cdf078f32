"""Claims 1-6: the definitions that the theorems rest on, and two displays of section 4."""

from fractions import Fraction

import numpy as np
import pytest

from constructions import (
    EMTransformer,
    Layer,
    Layout,
    TensorPowerTransformer,
    Transformer,
    square_approximation,
)
from constructions.residual import apply, layer
from constructions.weights import Head
from gmm import GaussianMixture
from tests import naive
from tests.claims.evidence import Found
from tests.compare import gap
from tests.constructions.test_tensor_power import contract, dyadic_problem, fractions


def random_layers(rng, n_layers, D=5, hidden=7):
    """Softmax layers of two heads and an MLP."""

    def head():
        return Head(*(rng.standard_normal((D, D)) for _ in range(3)))

    return [
        Layer(
            "softmax",
            (head(), head()),
            rng.standard_normal((hidden, D)),
            0.1 * rng.standard_normal((D, hidden)),
        )
        for _ in range(n_layers)
    ]


def matrix_form(axis):
    """H + sum_m (V_m H) SoftMax((K_m H)^T Q_m H), tokens as columns."""

    def attention(matrices, H):
        columns = H.T
        out = columns.copy()
        for Q, K, V in zip(matrices["Q"], matrices["K"], matrices["V"], strict=True):
            scores = (K @ columns).T @ (Q @ columns)
            powers = np.exp(scores - scores.max(axis=axis, keepdims=True))
            out += (V @ columns) @ (powers / powers.sum(axis=axis, keepdims=True))
        return out.T

    return attention


@pytest.mark.claim(1)
def test_token_form_and_matrix_form(claim):
    """The runner's own attention, and the matrix form, against a loop over tokens."""

    def check(attention):
        worst = 0.0
        for _ in range(10):
            H = claim.rng.standard_normal((6, 5))
            (one,) = random_layers(claim.rng, 1)
            alone = Layer("softmax", one.heads, np.zeros((0, 5)), np.zeros((5, 0)))
            (matrices,) = Transformer([alone]).matrices()
            worst = max(worst, gap(attention(matrices, H), naive.attention(matrices, list(H))))
        return Found(worst, 1e-12, 10)

    claim.holds(check, matrix_form(axis=0))
    claim.holds(check, lambda matrices, H: Transformer([matrices])(H))
    claim.twin("softmax over each row", check, matrix_form(axis=1))


@pytest.mark.claim(2)
def test_biases_need_the_constant(claim):
    """x^2 by units with biases; without the 1 in the token another function is written."""
    stream = Layout([("x", 1), ("y", 1), ("one", 1)])
    square = square_approximation(4.0, 1e-3)
    network = Transformer([layer("softmax", [], apply(stream, square, read="x", write="y"))])

    def check(one):
        H = np.zeros((50, 3))
        H[:, 0], H[:, 2] = claim.rng.uniform(-4, 4, 50), one
        written = stream.read(network(H), "y")[:, 0]
        return Found(gap(written, square(H[:, 0])), 1e-9, 50)

    claim.holds(check, 1.0)
    claim.twin("no constant", check, 0.0)


@pytest.mark.claim(3)
def test_layers_are_attention_then_mlp(claim):
    def mlp_first(matrices, H):
        tokens = list(H)
        for one in matrices:
            tokens = naive.attention(one, [naive.mlp(one, h) for h in tokens])
        return np.array(tokens)

    def check(forward):
        worst = 0.0
        for n_layers in (1, 2, 4):
            network = Transformer(random_layers(claim.rng, n_layers))
            H = claim.rng.standard_normal((6, 5))
            worst = max(worst, gap(network(H), forward(network.matrices(), H)))
        return Found(worst, 1e-10, 3)

    claim.holds(check, naive.forward)
    claim.twin("MLP before attention", check, mlp_first)


@pytest.mark.claim(4)
def test_one_layer_for_a_power_step(claim):
    """Exact integers in floats: what is read out after one layer is T(I, v, v)."""

    def check(variant):
        worst = 0
        for d in (2, 3, 4):
            options = {"bound": 2.0**30} if variant == "one_layer" else {}
            net = TensorPowerTransformer(4, variant=variant, **options)
            T = claim.rng.integers(-4, 5, (d, d, d)).astype(float)
            v = claim.rng.integers(1, 4, d).astype(float)
            H = Transformer(net.layers(1)[:1])(net.encode(T, v))
            worst = max(worst, gap(net.readout(H, d), np.einsum("ijm,j,m->i", T, v, v)))
        return Found(worst, 1e-9, 3)

    claim.holds(check, "one_layer")
    claim.printed("one layer of Theorem D.8's construction", check, "theorem")


@pytest.mark.claim(5)
def test_the_display_of_the_power_step(claim):
    """Over fractions; the printed sum has a free index l, tried for each value."""

    def check(factor):
        off = 0
        for d in (2, 3):
            T, v = dyadic_problem(claim.rng, d)
            T, v = fractions(T), fractions(v)
            want = contract(T, v)
            for i in range(d):
                total = sum(T[i][j][m] * v[j] * factor(v, m) for j in range(d) for m in range(d))
                off += total != want[i]
        return Found(off, 0, 5)

    claim.holds(check, lambda v, m: v[m])
    for place in (0, 1):
        claim.printed(f"v_l with l = {place + 1}", check, lambda v, m, place=place: Fraction(v[place]))


@pytest.mark.claim(6)
def test_pooling_for_any_number_of_samples(claim):
    """The readout of the encoding is the start itself."""
    start = GaussianMixture([0.1, 0.2, 0.3, 0.4], [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [6.0, 7.0]])

    def check(subject):
        kind, sizes = subject
        em = EMTransformer(2, 4, eps=1e-2, r_max=16, pi_min=0.01)
        worst = 0.0
        for N in sizes:
            H = em.encode(claim.rng.standard_normal((N, 2)), start)
            em.layout.put(H, "pi", start.weights)
            if kind == "softmax":
                got = em.readout(H, 2, 4)
            else:
                linear = EMTransformer(2, 4, eps=1e-2, r_max=16, pi_min=0.01, pooling_kind="linear")
                O = linear.pool(H, linear.pooling(2, 4, 4))  # the paper's matrices, whatever N
                got = GaussianMixture(O[:4].mean(axis=1) / O[:4].mean(axis=1).sum(), O[4:].T)
            worst = max(worst, gap(got.means, start.means), gap(got.weights, start.weights))
        return Found(worst, 1e-9, len(sizes))

    claim.holds(check, ("softmax", (4, 5, 10, 61)))
    claim.holds(check, ("linear", (4, 8, 60)))
    claim.twin("linear pooling, N = 10, K = 4", check, ("linear", (10,)))
