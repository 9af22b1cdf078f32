"""The spectral network with several components, dimensions and restarts, number by number: the whole pass,
the heads of each stage, what a token holds and how it is read."""

import math

import numpy as np
import pytest
import torch

from constructions import SpectralTransformer, Transformer
from constructions.residual import Layout
from constructions.spectral_bounds import SpectralBounds
from constructions.spectral_read import Reader
from constructions.tokens import Tokens
from tests.constructions.test_bound_values_spectral import (
    BASE,
    derived,
    interpolant,
    square_with_teeth,
    steps_to_one,
)

COARSE = {"tau": 0.6, "gap": 0.35, "sigma_min": 0.9, "sigma_max": 17.0, "c_max": 250.0, "pi_min": 0.13,
          "n_power": 2, "n_polish": 1, "n_max": 9, "eps": 0.03, "v_min": 0.04, "y_max": 9.0,
          "margin": 0.4}  # fmt: skip


def largest(rows):
    return max(abs(x) for row in rows for x in row)


# ---- the whole pass


def cubed(v, samples, m, G, found, b):
    """T_k(I, v, v), with its sum over samples and its deflation."""
    total = -(v @ G @ v) * m - 2 * (m @ v) * (G @ v)
    for x in samples:
        c = float(v @ x)
        assert abs(c) < b["c_max"]
        square = square_with_teeth(c, b["c_max"], b["n_teeth"]) if "n_teeth" in b else c * c
        total = total + square * x / len(samples)
    for lam, u in found:
        total = total - lam * (v @ u) ** 2 * u
    return total


def whole_pass(X, starts, b):
    """Weights and means, in the order of the stages, with all that the iterations leave over."""
    R, d0 = starts.shape[1:]
    N, d = X.shape
    x = np.zeros((N, d0))
    x[:, :d] = X
    scale, v_max, knots, guess, n_reciprocal = derived(b)
    identity, second = np.diag([1.0] * d0), sum(np.outer(row, row) for row in x) / N
    A = second - identity
    S = (A - b["tau"] * identity) / scale
    for a in steps_to_one(b["gap"] / scale, b["eps"]):
        S = 1.5 * a * S - a**3 / 2 * (S @ S @ S)
    P = (identity + S) / 2
    Y, Z = P @ A @ P / b["sigma_max"], P
    for a in steps_to_one(math.sqrt(b["sigma_min"] / b["sigma_max"]), b["eps"]):
        Y, Z = 1.5 * a * Y - a**3 / 2 * (Y @ Z @ Y), 1.5 * a * Z - a**3 / 2 * (Z @ Y @ Z)
    B, W = Y * math.sqrt(b["sigma_max"]), Z / math.sqrt(b["sigma_max"])
    white, m, G = [W @ row for row in x], W @ (sum(x) / N), W @ W
    found = []

    def power(v, n):
        for _ in range(n):
            v = interpolant(v @ v, knots) * cubed(v, white, m, G, found, b)
        return v

    def unit(v):
        v = v / v_max
        for a in steps_to_one(b["v_min"] / v_max, b["eps"]):
            v = 1.5 * a * v - a**3 / 2 * (v @ v) * v
        return v

    for directions in starts:
        players = []
        for g in directions:
            v = power(P @ g / math.sqrt(g @ g), b["n_power"])
            v = unit(v) if R > 1 else v
            players.append((v @ cubed(v, white, m, G, found, b), v))
        while len(players) > 1:
            half = len(players) - len(players) // 2
            for a in range(len(players) - half):
                (t, v), (u, w) = players[a], players[a + half]
                g = min(max((u - t) / b["margin"], 0.0), 1.0)
                players[a] = t + g * (u - t), v + g * (w - v)
            players = players[:half]
        v = unit(power(players[0][1], b["n_polish"]))
        found.append((v @ cubed(v, white, m, G, found, b), v))
    weights, means = [], []
    for lam, v in found:
        z = guess
        for _ in range(n_reciprocal):
            z = 2 * z - lam**2 * z**2
        weights.append(z)
        means.append((lam * B @ v)[:d])
    return weights, means


@pytest.mark.parametrize("n_teeth", [0, 5])
@pytest.mark.parametrize(("d0", "d", "K0", "R"), [(3, 2, 2, 1), (3, 3, 2, 3), (4, 3, 3, 2), (2, 2, 1, 4)])
def test_the_whole_pass_of_several_components(d0, d, K0, R, n_teeth):
    """Nine samples near the axes, and starts of any length."""
    rng = np.random.default_rng([d0, d, K0, R])
    X = np.diag([3.0, 2.4, 2.0][:d])[rng.integers(0, d, 9)] * rng.uniform(0.9, 1.9, (9, 1))
    X = X + rng.uniform(-0.6, 0.6, X.shape)
    b, starts = dict(COARSE), rng.uniform(0.2, 1.5, (K0, R, d0)) * rng.choice([-1, 1], (K0, R, 1))
    if n_teeth:
        b |= {"square": "teeth", "n_teeth": n_teeth, "c_max": 60.0}
    net = SpectralTransformer(d0, K0, starts=starts, **b)
    weights, means = whole_pass(X, starts, b)
    H = net.transformer()(net.as_tokens(net.encode(X)), "structured")
    found = net.raw_readout(H, d, K0)
    assert min(abs(x) for x in weights) > 1e-3
    assert np.allclose(found.weights, weights, rtol=1e-9, atol=0)
    assert np.allclose(found.means, means, rtol=1e-9, atol=1e-9)


# ---- layers


@pytest.mark.parametrize(
    ("d0", "K0", "R", "n_teeth"), [(3, 2, 1, 0), (4, 3, 2, 0), (3, 3, 3, 1), (2, 1, 5, 3)]
)
def test_heads_of_each_stage(d0, K0, R, n_teeth):
    """Two for a product, one where it is a square, or a product of numbers that are not negative (1 with
    something, N f, a switch of the tournament); a product for each component that is taken off."""
    b = BASE | {"n_polish": 1} | ({"square": "teeth", "n_teeth": n_teeth} if n_teeth else {})
    net = SpectralTransformer(d0, K0, n_restarts=R, rng=np.random.default_rng(0), **b)

    def evaluation(k, r, scaled):
        """<v, x>, G v, <m, v>, <v_q, v>, |v|^2; v G v, f <m, v>, f lambda_q <v_q, v>, N f, c^2; four sums."""
        squares = 2 * (2 + k) + 1 + (0 if n_teeth else 2)
        others = [0] * (n_teeth - 1)
        return [r * (2 * (3 + k) + scaled), r * squares, *others, r * (1 + 2 * (2 + k))]

    games, players = [], R
    while players > 1:
        games, players = [*games, players // 2], players - players // 2
    count = net.schedule
    once = count["normalise"] // (K0 * (2 if R > 1 else 1))
    want = [("moments", 1 + 2)] + [("sign", 2)] * count["sign"] + [("project", 2)]
    want += [("root", 2 + 2)] * count["root"] + [("whiten", 2 + 2 + 2)]
    for k in range(K0):
        want += [("start", 2 * R)]
        want += [("power", n) for n in evaluation(k, R, True)] * b["n_power"]
        if R > 1:
            want += [("normalise", 2 * R)] * once
            want += [("scores", n) for n in [*evaluation(k, R, False), 2 * R]]
            want += [("tournament", n) for n in games]
        want += [("power", n) for n in evaluation(k, 1, True)]
        want += [("normalise", 2)] * once
        want += [("value", n) for n in [*evaluation(k, 1, False), 2]]
        want += [("eigenpair", 2)]
    want += [("recover", 3 * K0), ("reciprocal", 1 + 4 * K0)]
    want += [("reciprocal", 1 + 2 * K0)] * (count["reciprocal"] - 1) + [("slot", 2 * K0)]
    assert [(step.stage, len(step.layer.heads)) for step in net.steps] == want


@pytest.mark.parametrize("options", [{}, {"square": "teeth", "n_teeth": 3}])
@pytest.mark.parametrize(
    ("stage", "R", "results"),
    [
        ("power", 1, ["v0"]),
        ("power", 2, ["v0", "v1"]),
        ("scores", 2, ["t0", "t1", "g1"]),
        ("scores", 3, ["t0", "t1", "t2", "g2"]),
        ("value", 1, ["t0"]),
        ("value", 3, ["t0"]),
    ],
)
def test_a_stage_leaves_only_what_it_is_for(stage, R, results, options):
    """All else is as before, for iterates on either side of zero, so for values of either sign."""
    net = SpectralTransformer(3, 2, n_restarts=R, rng=np.random.default_rng(0), **BASE | options)
    layers = [step.layer for step in net.steps if (step.stage, step.component) == (stage, 1)]
    rng = np.random.default_rng(R)
    before = np.zeros((5, net.layout.width))
    held = {"one": 1.0, "V0": rng.standard_normal(3), "lam": np.array([1.3, 0.0])}
    held |= {name: rng.uniform(-2, 2, 3) for name in ("x", "p", "xt", "mt", "G", "Y", "Z", "P", "A")}
    held |= {} if options else {"count": 5.0}
    for sign in (1.0, -1.0):
        held |= {f"v{r}": sign * rng.uniform(0.1, 0.4, 3) for r in range(1 if stage == "value" else R)}
        for name, values in held.items():
            net.layout.put(before, name, values)
        after = Transformer(layers).double()(torch.as_tensor(before), "dense").numpy()
        for name in net.layout.names:
            was, now = (net.layout.read(tokens, name) for tokens in (before, after))
            assert name in results or np.array_equal(was, now), name
        assert net.layout.read(after, results[0]).all()


# ---- tokens


def test_teeth_need_no_largest_number_of_samples():
    X = [[0.1, 2.0], [0.3, -1.0], [0.7, 0.2]]
    with pytest.raises(ValueError, match="this network holds N up to n_max = 2, got 3"):
        SpectralTransformer(2, 1, rng=np.random.default_rng(0), **BASE | {"n_max": 2}).encode(X)
    net = SpectralTransformer(
        2, 1, rng=np.random.default_rng(0), **BASE | {"n_max": 2, "square": "teeth", "n_teeth": 1}
    )
    assert net.layout.read(net.encode(X), "x").tolist() == X
    assert not {"code", "count"} & set(net.layout.names)


def test_without_n_max_there_is_room_for_32768_samples():
    net = SpectralTransformer(1, 1, starts=[[[1.0]]], **BASE)
    assert net.limits == SpectralBounds(**BASE)
    assert (net.limits.n_max, net.limits.bits) == (32768, 15)


@pytest.mark.parametrize(("N", "d"), [(4, 2), (7, 3)])
def test_reader(N, d):
    """Own: each token's, (N, size).  Replicated: of the first.  Stored: of p_i and M p_i, M."""
    layout = Layout([("p", d), ("one", 1), ("M", d), ("x", 2)])
    rng = np.random.default_rng(N)
    net = SpectralTransformer(d, 1, rng=rng, **BASE)
    p = net.layout.read(net.encode(np.ones((N, d))), "p")
    M, x = rng.standard_normal((d, d)), rng.standard_normal((N, 2))
    H = np.array(
        [[*p[i], 1.0, *(sum(M[a][c] * p[i][c] for c in range(d)) for a in range(d)), *x[i]] for i in range(N)]
    )
    rows, index = np.unique(H[:, :-2], axis=0, return_inverse=True)
    groups = torch.as_tensor(np.concatenate([rows, np.zeros((len(rows), 2))], axis=1))
    columns = {layout.width - 2 + c: torch.as_tensor(x[:, c]) for c in range(2)}
    grouped = Tokens.build(groups, torch.as_tensor(index.ravel()), columns)
    read = Reader(layout, d)
    for tokens in (torch.as_tensor(H), grouped):
        assert read.own(tokens, "x").tolist() == x.tolist()
        assert read.own(tokens, "p").tolist() == p.tolist()
        assert read.replicated(tokens, "one").tolist() == [1.0]
        assert largest(read.stored(tokens, "M") - M) < 1e-14


# ---- readout


@pytest.mark.parametrize(("d", "K"), [(1, 1), (2, 1), (3, 2), (4, 3), (2, 3)])
def test_readout(d, K):
    """Where token i holds sum_k p_ik (pi, mu_k), column k of (d0 / N) sum_i p_ik (pis_i, slot_i) is (pi,
    mu_k); the weights are then put between 0 and 1, and divided by their sum."""
    d0, K0, N = 4, 3, 6
    rng = np.random.default_rng([d, K])
    net = SpectralTransformer(d0, K0, rng=rng, **BASE)
    pi, mu = [0.31, 1.27, -0.23], rng.standard_normal((K0, d0))
    H = net.encode(rng.standard_normal((N, d)))
    for token in H:
        p = net.layout.read(token, "p").tolist()
        net.layout.put(token, "pis", [sum(p[:K0]) * x for x in pi])
        net.layout.put(token, "slot", [sum(p[k] * mu[k][a] for k in range(K0)) for a in range(d0)])
    raw, found = net.raw_readout(H, d, K), net.readout(H, d, K)
    clipped = [0.31, 1.0, 0.0][:K]
    assert np.allclose(raw.weights, pi[:K], rtol=1e-12, atol=0)
    assert np.allclose(found.weights, [x / sum(clipped) for x in clipped], rtol=1e-12, atol=0)
    for estimate in (raw, found):
        assert estimate.means.shape == (K, d)
        assert largest(estimate.means - mu[:K, :d]) < 1e-14


@pytest.mark.parametrize(("d", "K"), [(0, 1), (1, 0), (5, 1), (1, 4)])
def test_sizes_that_cannot_be_read(d, K):
    net = SpectralTransformer(4, 3, rng=np.random.default_rng(0), **BASE)
    with pytest.raises(ValueError, match=f"need 1 <= d <= 4 and 1 <= K <= 3, got {d} and {K}"):
        net.readout(net.encode(np.ones((4, 4))), d, K)
