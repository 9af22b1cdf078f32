"""Tensor power iteration with every number written out: what tokens hold, a step, and the ends of bounds."""

import math
import warnings

import numpy as np
import pytest
import torch

from constructions import TensorPowerTransformer, Transformer, tensor_layers
from tests.constructions.test_tensor_power import contract

VARIANTS = ["theorem", "attention_only", "one_layer", "shifted_heads", "three_heads"]
D0 = 3
T3 = [
    [[2, -1, 3], [4, 0, -2], [1, 5, -3]],
    [[-4, 1, 2], [3, -5, 1], [0, 2, 4]],
    [[1, 3, -1], [-2, 6, 2], [5, -3, 7]],
]
V3 = [2, -3, 1]


def problem(d):
    """A tensor of whole numbers without a symmetry, and a start with entries that are all different."""
    return [[row[:d] for row in block[:d]] for block in T3[:d]], V3[:d]


def build(variant, d0=D0, bound=2.0**12, **options):
    return TensorPowerTransformer(
        d0, variant=variant, **({"bound": bound} if variant in tuple(VARIANTS[2:]) else {}), **options
    )


def held(T, v, name, i):
    """What token i holds, by the table of `tensor_layers`, with zeros where d < d0."""
    d, square = len(v), [0] * D0**2
    if name == "t":  # block m is T_{:,i,m}
        for m in range(d):
            for a in range(d):
                square[D0 * m + a] = T[a][i][m]
        return square
    if name == "g":  # block m is v_m e_i
        for m in range(d):
            square[D0 * m + i] = v[m]
        return square
    vectors = {"v": v, "u": [d * x for x in v], "e": [int(a == i) for a in range(d)]}
    if name in vectors:
        return vectors[name] + [0] * (D0 - d)
    return {"one": [1], "count": [d], "count2": [d**2], "own": [d * v[i]]}.get(name, [0])


def tokens(net, T, v, **others):
    """All tokens, as lists; `others`: what a subspace holds instead."""
    rows = []
    for i in range(len(v)):
        rows.append([])
        for name in net.layout.names:
            rows[-1] += [others[name][i]] if name in others else held(T, v, name, i)
    return rows


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("variant", VARIANTS)
def test_tokens_and_what_is_read_from_them(variant, d):
    T, v = problem(d)
    net = build(variant)
    H = net.encode(T, v)
    assert H.tolist() == tokens(net, T, v)
    assert np.allclose(net.readout(H, d), v, rtol=1e-15, atol=0)
    for wrong in (0, D0 + 1):
        with pytest.raises(ValueError, match=f"need 1 <= d <= 3, got {wrong}"):
            net.readout(H, wrong)


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("variant", VARIANTS)
def test_two_steps_in_whole_numbers(variant, d):
    """Each takes the tokens of (T, v) to those of (T, T(I, v, v)); without MLPs the slot of step n holds d
    times the vector that the step began with."""
    T, v = problem(d)
    net = build(variant, bound=2.0**20)
    H = net.encode(T, v)
    for _ in range(2):
        before, v = v, contract(T, v)
        H = Transformer(net.layers(1)).double()(torch.as_tensor(H), "dense").numpy()
        slot = {"slot": [d * x for x in before]} if variant == "attention_only" else {}
        assert np.abs(H - tokens(net, T, v, **slot)).max() <= 1e-5
        assert all(x == round(x) for x in v)


@pytest.mark.parametrize(
    ("variant", "reach", "name"),
    [("one_layer", 6, "|d v_m|"), ("shifted_heads", 18, "|v_m d v_j|"), ("three_heads", 3, "|v_m|")],
)
def test_bounds_hold_at_their_ends(variant, reach, name):
    """v = (2, -3) has d |v_m| up to 6, |v_m d v_j| up to 18 and |v_m| up to 3, entries of either sign."""
    T, v = problem(2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (step,) = build(variant, bound=float(reach)).run(T, v, 1)
    assert np.allclose(step, contract(T, v), rtol=1e-12, atol=0)
    with pytest.raises(ValueError, match="outside") as refusal:
        build(variant, bound=reach - 0.5).encode(T, v)
    assert str(refusal.value) == (
        f"this start is outside what variant '{variant}' holds: max {name} = {reach} exceeds bound = "
        f"{reach - 0.5:g}"
    )


def test_one_dimension_is_enough():
    """c v^2, for the least d0 there is."""
    for variant in VARIANTS:
        assert build(variant, d0=1).run([[[5.0]]], [-3.0], 1)[0].tolist() == [45.0]


# ---- normalisation


@pytest.mark.parametrize(("pi_min", "delta"), [(0.3, 0.02), (0.11, 0.3)])
def test_a_normalised_step(pi_min, delta):
    """The direction of T(I, v, v) and a length within delta of one, in all tokens; the rest stays."""
    a, b = pi_min**-0.5, 0.6**-0.5  # lambda of (3, 4) / 5 and of (4, -3) / 5
    e, f = (0.6, 0.8), (0.8, -0.6)
    T = [
        [[a * e[i] * e[j] * e[m] + b * f[i] * f[j] * f[m] for m in range(2)] for j in range(2)]
        for i in range(2)
    ]
    v = [math.sin(0.4), math.cos(0.4)]
    net = build("normalised", pi_min=pi_min, delta=delta)
    H = net.encode(T, v)
    assert H.tolist() == tokens(net, T, v)
    step = contract(T, v)
    length = math.hypot(*step)
    out = Transformer(net.layers(1)).double()(torch.as_tensor(H), "dense").numpy()
    got = net.readout(out, 2)
    norm = math.hypot(*got)
    assert abs(norm - 1) <= delta
    assert all(math.isclose(x / norm, y / length, rel_tol=1e-12) for x, y in zip(got, step, strict=True))
    assert np.abs(out - tokens(net, T, got.tolist())).max() <= 1e-12


def test_options_of_normalisation_at_their_ends():
    for pi_min in (0.0, math.nextafter(1, 2)):
        with pytest.raises(ValueError, match=r"pi_min must be in \(0, 1\], got"):
            tensor_layers.normalised(1, pi_min=pi_min)
    for delta in (math.nextafter(1e-10, 0), 1.0):
        with pytest.raises(ValueError, match=r"delta must be in \[1e-10, 1\), got"):
            tensor_layers.normalised(1, pi_min=0.5, delta=delta)
    for pi_min, delta in ((1.0, 1e-10), (0.5, 0.999)):
        assert tensor_layers.normalised(1, pi_min=pi_min, delta=delta).complaint(np.array([1.0])) is None


def test_a_length_may_be_off_by_delta_and_a_thousandth_of_it():
    """1.001 times a delta near 2000 / 8192 is 2001 / 8192 to the last bit, so that both ends are floats."""
    reach, step = 2001 / 8192, 2.0**-55
    delta = next(x for x in (reach / 1.001 + n * step for n in range(-4, 5)) if 1.001 * x == reach)
    complaint = tensor_layers.normalised(2, pi_min=0.5, delta=delta).complaint
    for sign in (1, -1):
        assert complaint(np.array([0.0, 1 + sign * reach])) is None
        assert "is not within delta = 0.244" in complaint(np.array([0.0, 1 + sign * 2002 / 8192]))


# ---- running


def test_the_length_in_the_message_is_that_of_the_last_iterate():
    """2^-260 v_i^2: from (3, 0, 4) 2^-99 to (9, 0, 16) 2^-458, and then to what is no float."""
    T = np.zeros((3, 3, 3))
    for i in range(3):
        T[i, i, i] = 2.0**-260
    v = [3 * 2.0**-99, 0.0, 4 * 2.0**-99]
    got = TensorPowerTransformer(3).run(T, v, 1)[-1]
    assert got.tolist() == [9 * 2.0**-458, 0.0, 16 * 2.0**-458]
    length = math.sqrt(337) * 2.0**-458
    with pytest.raises(OverflowError, match="step 2") as refusal:
        TensorPowerTransformer(3).run(T, v, 2)
    assert str(refusal.value).startswith(f"step 2 leaves float64 after |v| = {length:.3g}: without")
