"""The numbers that the spectral and tensor constructions are built from, derived once more in scalar loops.

For d0 = K0 = 1 everything the network holds is a number, so the whole pass can be written down from the
documentation, with everything that its iterations leave over; with a coarse `eps` that is much.
"""

import math
import warnings
from fractions import Fraction

import numpy as np
import pytest
import torch

from constructions import SpectralTransformer, TensorPowerTransformer, Transformer, tensor_power
from constructions.newton_schulz import schedule
from constructions.residual import Layout, Units
from constructions.spectral_bounds import SpectralBounds
from constructions.spectral_units import balanced, clipped, magnitude, tooth

BASE = {"tau": 0.7, "gap": 0.4, "sigma_min": 1.1, "sigma_max": 60.0, "c_max": 90.0, "pi_min": 0.05,
        "n_power": 3}  # fmt: skip


def close(got, want):
    return math.isclose(got, want, rel_tol=1e-9)


def numbers(seed):
    """Bounds with no two numbers alike."""
    rng = np.random.default_rng(seed)
    tau = rng.uniform(0.3, 2.0)
    gap = tau * rng.uniform(0.2, 0.9)
    return {
        "tau": tau, "gap": gap, "sigma_min": (tau + gap) * rng.uniform(0.5, 1.1),
        "sigma_max": (tau + gap) * rng.uniform(1.2, 9.0), "c_max": rng.uniform(30, 90),
        "pi_min": rng.uniform(0.02, 0.4), "n_power": int(rng.integers(1, 5)),
        "n_polish": int(rng.integers(0, 3)), "n_max": int(rng.integers(5, 99)),
        "eps": 10 ** rng.uniform(-9, -1), "v_min": 10 ** rng.uniform(-3, -0.5),
    }  # fmt: skip


# ---- the same formulas, one number at a time


def polynomial(x, a):
    return (3 * a * x - (a * x) ** 3) / 2


def steps_to_one(low, eps):
    """Each step's a, which makes the ends of [low, 1] meet, p(1) = p(low); Lemma 2 says where."""
    found = []
    while True:
        found.append(math.sqrt(3) / math.sqrt(1 + low + low**2))
        low = 1.5 * math.sqrt(3) * low * (1 + low) / math.sqrt(1 + low + low**2) ** 3
        if 1 - low <= eps:
            return found


def derived(b):
    """s, v_max, the knots of f2, the first guess at 1 / lambda^2, and the steps that it takes."""
    y_max = b.get("y_max", 1.5 / math.sqrt(b["pi_min"]))
    # M2 + I is a second moment, so the spectrum of M2 - tau lies in [-1 - tau, sigma_max - tau]
    upper, lower = b["sigma_max"] - b["tau"], 1 + b["tau"]
    scale = upper if upper > lower else lower
    v_max = 9 / 8 * y_max  # the starts are not longer than one, and y_max is more than that
    knots = [b["v_min"] * b["v_min"]]
    while knots[-1] < v_max * v_max:
        knots.append(2 * knots[-1])
    # |1 - a z| is the same at both ends of [1/4, y_max^2] for this z, and squared by each step
    guess = 2 / (1 / 4 + y_max * y_max)
    left, count = 1 - guess / 4, 0
    while left > b.get("eps", 1e-14) or count == 0:
        left, count = left * left, count + 1
    return scale, v_max, knots, guess, count


def interpolant(s, knots):
    """Chords of 1 / s; the first goes on below the first knot, and above the last it is constant."""
    if s >= knots[-1]:
        return 1 / knots[-1]
    at = 0
    while knots[at + 1] < s:
        at += 1
    low, high = knots[at], knots[at + 1]
    return (1 / low * (high - s) + 1 / high * (s - low)) / (high - low)


def square_with_teeth(c, C, n_teeth):
    """C^2 (u - sum_s g_s(u) / 4^s) for u = |c| / C and the s-fold tent g_s."""
    g = abs(c) / C
    total = g
    for s in range(1, n_teeth + 1):
        g = 2 * g if g < 0.5 else 2 - 2 * g
        total -= g / 4**s
    return C * C * total


def scalar_pass(samples, start, b):
    """pi and mu for d0 = K0 = 1, R = 1."""
    N = len(samples)
    scale, v_max, knots, pi, n_reciprocal = derived(b)
    mean, second = sum(samples) / N, sum(x * x for x in samples) / N - 1
    sign = (second - b["tau"]) / scale
    for a in steps_to_one(b["gap"] / scale, b["eps"]):
        sign = polynomial(sign, a)
    P = (1 + sign) / 2
    Y, Z = P * second * P / b["sigma_max"], P
    for a in steps_to_one(math.sqrt(b["sigma_min"] / b["sigma_max"]), b["eps"]):
        Y, Z = 1.5 * a * Y - a**3 / 2 * Y * Z * Y, 1.5 * a * Z - a**3 / 2 * Z * Y * Z
    B, W = Y * math.sqrt(b["sigma_max"]), Z / math.sqrt(b["sigma_max"])

    def contracted(v):
        total = 0.0
        for x in samples:
            c = v * W * x
            square = c * c if not b.get("n_teeth") else square_with_teeth(c, b["c_max"], b["n_teeth"])
            total += square * W * x / N
        return total - v * v * W * W * W * mean - 2 * W * mean * v * W * W * v

    v = P * start
    for _ in range(b["n_power"] + b["n_polish"]):
        v = interpolant(v * v, knots) * contracted(v)
    v /= v_max
    for a in steps_to_one(b["v_min"] / v_max, b["eps"]):
        v = polynomial(v, a)
    lam = v * contracted(v)
    for _ in range(n_reciprocal):
        pi = 2 * pi - lam * lam * pi * pi
    return pi, lam * B * v


# ---- Newton-Schulz


@pytest.mark.parametrize("seed", range(8))
def test_schedule(seed):
    rng = np.random.default_rng(seed)
    low, eps = 10 ** rng.uniform(-5, 0), 10 ** rng.uniform(-9, -0.1)
    got, want = schedule(low, eps), steps_to_one(low, eps)
    assert len(got) == len(want)
    assert all(map(close, got, want))
    assert schedule(1.0, eps) == [1.0]


@pytest.mark.parametrize("low", [0.3, 0.45, 0.62])
def test_the_schedule_stops_at_eps_and_not_below_it(low):
    """The least eps for which one step is enough is 1 - p(low), a difference of two floats; the next float
    after it, from which a strict comparison would stop, is none."""
    few, many = 0.0, 0.99
    while math.nextafter(few, 1) < many:
        middle = (few + many) / 2
        few, many = (few, middle) if len(schedule(low, middle)) == 1 else (middle, many)
    assert many < 0.5
    assert 1 - (1 - many) == many


# ---- bounds


@pytest.mark.parametrize("seed", range(8))
def test_derived_bounds(seed):
    given = numbers(seed) | ({"sigma_max": 9.0} if seed % 2 else {}) | ({"y_max": 1.3} if seed > 5 else {})
    bounds = SpectralBounds(**given)
    scale, v_max, knots, guess, count = derived(given)
    assert close(bounds.sign_scale, scale)
    assert bounds.norms[0] == given["v_min"]
    assert close(bounds.norms[1], v_max)
    assert close(sum(bounds.squares), 2 / guess)
    assert bounds.squares[0] == 0.25
    assert bounds.reciprocal_steps == count
    f = bounds.reciprocal
    assert f.units == len(knots)
    assert all(map(close, f.domain, (knots[0], knots[-1])))
    for at in (0.0, 0.3 * knots[0], *knots, *(1.37 * s for s in knots)):
        assert close(float(f(at)), interpolant(at, knots))


def test_the_branches_of_the_sign_scale_are_both_taken():
    """sigma_max - tau exceeds 1 + tau from sigma_max = 1 + 2 tau on."""
    for sigma_max, want in ((1.5, 1.75), (2.5, 1.75), (2.75, 2.0)):
        assert SpectralBounds(**BASE | {"tau": 0.75, "sigma_max": sigma_max}).sign_scale == want


def test_a_coarse_eps_still_takes_one_step():
    """(y_max^2 - 1/4) / (y_max^2 + 1/4) = 0.704 is below 0.9 before any."""
    assert SpectralBounds(**BASE | {"eps": 0.9, "y_max": 1.2}).reciprocal_steps == 1


@pytest.mark.parametrize(
    ("n_max", "bits"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (2000, 11), (2048, 11), (2049, 12)]
)
def test_digits_that_tell_all_tokens_apart(n_max, bits):
    assert SpectralBounds(**BASE | {"n_max": n_max}).bits == bits


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pi_min": 0.0}, "pi_min must be positive"),
        ({"gap": 0.7}, "gap must be below tau = 0.7, got 0.7"),
        ({"sigma_min": 60.0}, "sigma_max = 60 must exceed sigma_min = 60"),
        ({"sigma_min": 0.1, "sigma_max": 0.9}, r"and tau \+ gap = 1.1"),
        ({"pi_min": 1.0}, "pi_min must be below 1, got 1"),
        ({"eps": 1.0}, "eps must be below 1, got 1"),
        ({"v_min": 1.0}, "v_min must be below 1, got 1"),
        ({"y_max": 1.0}, "y_max must exceed 1, got 1"),
        ({"n_polish": -1}, "n_polish at least 0"),
    ],
)
def test_bounds_at_their_ends_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        SpectralBounds(**BASE | change)


def test_sigma_max_may_be_the_end_of_the_gap():
    """Then only the eigenvalue tau + gap itself is left, as for means of one length that are orthogonal."""
    ends = {"tau": 0.75, "gap": 0.25, "sigma_min": 0.5, "sigma_max": 1.0}
    assert SpectralBounds(**BASE | ends).sigma_max == 1.0


# ---- hidden units


STREAM = Layout([("one", 1), ("c", 1), ("u", 1), ("square", 1), ("t", 1)])
ONE, C_AT, U_AT, SQUARE_AT, T_AT = range(5)


def after(units, h):
    """h + W2 relu(W1 h), entry by entry."""
    hidden = [max(0.0, sum(w * x for w, x in zip(row, h, strict=True))) for row in units.W1]
    return [
        x + sum(w * y for w, y in zip(row, hidden, strict=True)) for x, row in zip(h, units.W2, strict=True)
    ]


@pytest.mark.parametrize("C", [1.7, 12.0])
def test_teeth(C):
    """m teeth interpolate c^2 at multiples of C / 2^m, and err by C^2 / 4^(m + 1) half way between two."""
    for c in (0.0, 0.37 * C, -0.37 * C, 0.5 * C, -0.81 * C, C, C / 32, -7 * C / 32):
        h = [1.0, c, 0.0, 0.0, 0.0]
        h = after(magnitude(STREAM, "c", "u", "square", C), h)
        for m in range(1, 5):
            assert abs(h[SQUARE_AT] - square_with_teeth(c, C, m - 1)) <= 1e-12 * C * C
            h = after(tooth(STREAM, "u", "square", C * C / 4**m), h)
        above = h[SQUARE_AT] - c * c
        assert -1e-12 <= above / C**2 <= 4.0**-5 + 1e-12
        if (32 * c / C) % 2 == 1:
            assert close(above, C**2 / 4**5)
        assert h[ONE] == 1.0
        assert h[C_AT] == c


def test_clipped():
    for x in (-0.4, 0.0, 0.3, 1.0, 2.6):
        want = 0.0 if x < 0 else 1.0 if x > 1 else x
        assert (
            abs(after(clipped(STREAM, STREAM["c"], "t"), [1.0, x, 0.0, 0.0, 0.25])[T_AT] - 0.25 - want)
            < 1e-15
        )


def test_balanced_units():
    """A unit's row in W1 and column in W2 become equally long; what it computes stays."""
    rng = np.random.default_rng(0)
    units = Units(
        rng.standard_normal((3, 5)) * [[20.0], [1.0], [0.01]], rng.standard_normal((5, 3)) * [0.3, 7.0, 2.0]
    )
    even = balanced(units)
    for j in range(3):
        lengths = math.hypot(*units.W1[j]), math.hypot(*(row[j] for row in units.W2))
        assert close(math.hypot(*even.W1[j]), math.sqrt(lengths[0] * lengths[1]))
        assert close(math.hypot(*(row[j] for row in even.W2)), math.sqrt(lengths[0] * lengths[1]))
    h = list(rng.standard_normal(5))
    assert all(map(close, after(even, h), after(units, h)))


# ---- the spectral network


def one_by_one(b, start=1.0):
    return SpectralTransformer(1, 1, starts=[[[start]]], **b)


@pytest.mark.parametrize("n_teeth", [0, 1, 2, 4])
@pytest.mark.parametrize("seed", range(4))
def test_the_whole_pass_in_numbers(seed, n_teeth):
    """N = 1 to 4, so that N = d0 and N = n_max are among them; half the starts point backwards."""
    rng = np.random.default_rng(seed)
    N, start = seed + 1, (-1.0) ** seed
    b = numbers(seed) | {"n_max": N, "eps": 10 ** rng.uniform(-4, -0.5)}
    # a second moment within the bounds, and so large that lambda is well above 0
    X, second = rng.uniform(1.0, 2.0, N), rng.uniform(6.0, 10.0)
    b["sigma_max"] = second + rng.uniform(0.5, 6.0)
    X *= math.sqrt((1 + second) / (X @ X / N))
    if n_teeth:  # C as small as it may be: its square, over 4^(n_teeth + 1), is the error
        b |= {"y_max": 1.3, "c_max": 1.125 * 1.3 * X.max() / math.sqrt(second)}
        b |= {"square": "teeth", "n_teeth": n_teeth}
    net = one_by_one(b, start)
    H = net.transformer()(net.as_tokens(net.encode(X[:, None])), "structured")
    found = net.raw_readout(H, 1, 1)
    pi, mu = scalar_pass(list(X), start, b)
    assert close(found.weights[0], pi)
    assert close(found.means[0, 0], mu)


@pytest.mark.parametrize("mode", ["dense", "structured"])
def test_one_sample_of_one_dimension(mode):
    """The moments of x = 3 are those of the signed "mixture" with lambda = (x^3 - 3 x) / (x^2 - 1)^1.5 and
    mu = lambda (x^2 - 1)^0.5: one token, one group, n_max = N = d0 = 1."""
    net = one_by_one(BASE | {"n_max": 1})
    found = net.run([[3.0]], 1, mode=mode)
    assert close(found.means[0, 0], 18 / 8)
    assert found.weights[0] == 1.0
    steps = [(step, state.layer) for step, state in net.states([[3.0]], 1, mode=mode)]
    assert [layer for _, layer in steps] == [1 + i // 2 for i in range(2 * len(net.steps))]
    assert all(step is net.steps[layer - 1] for step, layer in steps)


@pytest.mark.parametrize(
    ("d0", "K0", "R", "n_teeth", "seed"),
    [(3, 2, 1, 0, 0), (2, 2, 2, 0, 1), (3, 1, 5, 0, 2), (2, 1, 3, 2, 3), (4, 3, 8, 1, 4)],
)
def test_layers_and_width(d0, K0, R, n_teeth, seed):
    """Rows of the table of stages; the width counts the names of the table of the residual stream."""
    b = numbers(seed)
    if n_teeth:
        b |= {"square": "teeth", "n_teeth": n_teeth}
    net = SpectralTransformer(d0, K0, n_restarts=R, rng=np.random.default_rng(seed), **b)
    scale, v_max, _, _, n_reciprocal = derived(b)
    evaluation = 2 + max(1, n_teeth)  # products, squares (a layer for each tooth), sums
    normalise = len(steps_to_one(b["v_min"] / v_max, b["eps"]))
    rounds, players = 0, R
    while players > 1:
        players, rounds = players - players // 2, rounds + 1
    want = {
        "moments": 1,
        "sign": len(steps_to_one(b["gap"] / scale, b["eps"])),
        "project": 1,
        "root": len(steps_to_one(math.sqrt(b["sigma_min"] / b["sigma_max"]), b["eps"])),
        "whiten": 1,
        "start": K0,
        "power": K0 * evaluation * (b["n_power"] + b["n_polish"]),
        "normalise": K0 * normalise * (2 if R > 1 else 1),
        "scores": K0 * (evaluation + 1) * (R > 1),
        "tournament": K0 * rounds,
        "value": K0 * (evaluation + 1),
        "eigenpair": K0,
        "recover": 1,
        "reciprocal": n_reciprocal,
        "slot": 1,
    }
    assert net.schedule == {stage: count for stage, count in want.items() if count}
    assert len(net.steps) == sum(want.values())
    digits = 0
    while 2**digits < b["n_max"]:
        digits += 1
    width = 12 * d0 + 1 + R * (3 * d0 + 10 + 2 * K0) + K0 * 3 * d0 + 4 * K0
    width += R if n_teeth else 1 + digits
    assert net.layout.width == width


@pytest.mark.parametrize(("N", "d0"), [(3, 3), (5, 3), (7, 2)])
def test_markers_and_digits(N, d0):
    """(F), and the digits of a token's number, the last one first, 1 for 1 and -1 for 0."""
    net = SpectralTransformer(d0, 1, rng=np.random.default_rng(0), **BASE | {"n_max": N})
    H = net.encode(np.arange(N * d0).reshape(N, d0))
    p, code = (net.layout.read(H, name) for name in ("p", "code"))
    for a in range(d0):
        for b in range(d0):
            frame = sum(p[i][a] * p[i][b] for i in range(N)) / N
            assert abs(frame - (1 / d0 if a == b else 0.0)) < 1e-15
    for i in range(N):
        number = i
        for bit in code[i]:
            assert bit == (1.0 if number % 2 else -1.0)
            number //= 2
        assert number == 0
        assert p[i][i % d0] > 0


def test_starts_of_length_one_stay_as_they_are():
    a_little = math.nextafter(1.0, 2.0)
    net = SpectralTransformer(2, 1, starts=[[[a_little, 0.0], [3.0, 4.0]]], **BASE)
    assert net.starts.tolist() == [[[a_little, 0.0], [0.6, 0.8]]]
    with pytest.raises(ValueError, match="a start direction is zero"):
        SpectralTransformer(2, 1, starts=[[[1.0, 0.0], [0.0, 0.0]]], **BASE)


@pytest.mark.parametrize("R", [2, 3, 4, 5, 6, 8])
def test_the_tournament_in_numbers(R):
    """Restart a meets restart a + ceil(n / 2) of n; the winner is a + g (b - a), g = (t_b - t_a) / margin
    between 0 and 1.  With scores that are half the margin apart and in any order, most games are mixed."""
    margin = 0.25
    net = SpectralTransformer(
        2, 1, n_restarts=R, rng=np.random.default_rng(0), **BASE | {"n_max": 2, "margin": margin}
    )
    scores = [step.layer for step in net.steps if step.stage == "scores"]
    layers = [scores[-1], *(step.layer for step in net.steps if step.stage == "tournament")]
    for seed in range(4):
        rng = np.random.default_rng(seed)
        t = [2.0 + margin / 2 * float(x) for x in rng.permutation(R)]
        v = rng.standard_normal((R, 2))
        H = np.zeros((1, net.layout.width))
        net.layout.put(H, "one", 1.0)
        for r in range(R):  # the last layer of `scores` reads t = <v, y>
            net.layout.put(H, f"v{r}", v[r])
            net.layout.put(H, f"y{r}", t[r] * v[r] / (v[r] @ v[r]))
        players = [(t[r], *v[r]) for r in range(R)]
        while len(players) > 1:
            half = len(players) - len(players) // 2
            for a in range(len(players) - half):
                one, other = players[a], players[a + half]
                g = min(max((other[0] - one[0]) / margin, 0.0), 1.0)
                players[a] = tuple(x + g * (y - x) for x, y in zip(one, other, strict=True))
            players = players[:half]
        left = Transformer(layers).double()(torch.as_tensor(H), "dense")
        assert np.abs(net.layout.read(left, "v0")[0].numpy() - players[0][1:]).max() <= 1e-9
        names = [f"{name}{r}" for r in range(R) for name in "vtgy" if (name, r) != ("v", 0)]
        assert not any(net.layout.read(left, name).any() for name in names)


# ---- tensor power iteration


def test_tensor_sizes_at_their_ends(monkeypatch):
    monkeypatch.setattr(tensor_power, "MAX_D0", 3)
    assert TensorPowerTransformer(3).d0 == 3
    assert TensorPowerTransformer(1).run([[[2.0]]], [3.0], 1)[0].tolist() == [18.0]
    with pytest.raises(ValueError, match="d0 = 4 takes"):
        TensorPowerTransformer(4)
    with pytest.raises(ValueError, match="bound must be positive and finite, got 0"):
        TensorPowerTransformer(2, variant="one_layer", bound=0)
    assert TensorPowerTransformer(2, variant="one_layer", bound=7).bounds == {"bound": 7.0}


@pytest.mark.parametrize(("dtype", "least"), [("float64", -1022 + 52), ("float32", -126 + 23)])
def test_where_digits_are_lost(dtype, least):
    """The largest product T v v, against the least normal number over the machine epsilon, 2^least: above it
    products that are smaller by the epsilon are still normal.  At it nothing is lost."""
    net = TensorPowerTransformer(2, dtype=dtype)
    for T, v, power in ((1, 1, 0), (8, Fraction(1, 16), -5), (Fraction(1, 2), 4, 3), (1, 8, 6)):
        for factor in (Fraction(7, 8), 1, Fraction(9, 8)):
            top = float(factor * T * Fraction(2) ** (least - power))
            if factor == 1 and v != 1:
                continue  # two logarithms, rounded
            lost = net._underflows([[[top / 2, -top], [0.0, 0.0]]] * 2, [-float(v), 0.0])
            assert lost == (factor < 1)
    assert not net._underflows(np.zeros((2, 2, 2)), [1.0, 0.0])
    assert not net._underflows(np.full((2, 2, 2), 2.0**least / 8), [0.0, 0.0])


def test_digits_are_lost_in_the_step_after_the_last_iterate():
    """v^2 in one dimension, from 2^-100: 2^-200, 2^-400, 2^-800, and 2^-1600 is no float."""
    with pytest.raises(OverflowError, match=r"step 4 leaves float64 after \|v\| = 1\.5e-241"):
        TensorPowerTransformer(1).run([[[1.0]]], [2.0**-100], 5)
    assert TensorPowerTransformer(1).run([[[1.0]]], [2.0**-100], 3)[-1].tolist() == [2.0**-800]


def test_a_bound_is_for_the_step_after():
    """T(I, v, v) = 2 v^2 in one dimension, from 1: 2, 8, 128.  The bound holds at 8 and not at 128."""
    T = [[[2.0]]]
    net = TensorPowerTransformer(1, variant="one_layer", bound=8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [float(v[0]) for v in net.run(T, [1.0], 3)] == [2.0, 8.0, 128.0]
    with pytest.warns(UserWarning, match=r"step 3: max \|d v_m\| = 128 exceeds bound = 8"):
        net.run(T, [1.0], 4)
    with pytest.raises(ValueError, match=r"max \|d v_m\| = 9 exceeds bound = 8"):
        net.encode(T, [9.0])


@pytest.mark.parametrize(("pi_min", "delta"), [(0.2, 0.05), (1.0, 0.3), (0.03, 0.004)])
def test_the_range_of_the_inverse_root(pi_min, delta):
    """A start within delta of length one has |T(I, v, v)|^2 between (1 - delta)^4 and (1 + delta)^4 / pi_min.

    The MLP that measures it has its bends at points of equal ratio there, and is constant above.
    """
    net = TensorPowerTransformer(1, variant="normalised", pi_min=pi_min, delta=delta)
    low, high = (1 - delta) ** 4, (1 + delta) ** 4 / pi_min

    def gap_of(ratio):
        """By how much the chord of x^(-1/2) from 1 to `ratio` exceeds it at most, relatively; the chord
        has its greatest excess, as x^(1/2) times a line, where x = (1 + q + q^2) / 3."""
        q = math.sqrt(ratio)
        x = (1 + q + q * q) / 3
        return math.sqrt(x) * (1 - (1 - 1 / q) * (x - 1) / (ratio - 1)) - 1

    pieces = 1
    while (1 + gap_of((high / low) ** (1 / pieces))) > (1 + delta) / (1 - delta):
        pieces += 1
    measure, s, one = net.design.layers[2], net.layout.slice("s").start, net.layout.slice("one").start
    bends = sorted(row[one] for row in measure.W1 if row[one] != 0 and row[s] != 0)
    want = [low * (high / low) ** (i / pieces) for i in range(1, pieces + 1)]
    assert len(bends) == len(want)
    assert all(map(close, bends, want))
