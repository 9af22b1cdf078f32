"""Theorem D.8 and its variants: exact in rationals, an identity in symbols, stable in floats."""

import warnings
from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest
from sympy import QQ, ring

from constructions import Layer, TensorPowerTransformer, Transformer, load, save
from constructions.construction import Program
from constructions.exact import rational, symbolic
from constructions.piecewise import inverse_root_approximation, inverse_root_gap
from constructions.residual import clean, head, layer, sign_pair
from constructions.tensor_layers import attention_only, theorem
from constructions.weights import Head
from gmm import power_step
from tests import naive
from tests.compare import U, assert_bound, assert_exact, gap, slope

ANY_SIZE = ["theorem", "attention_only"]
BOUNDED = ["one_layer", "shifted_heads", "three_heads"]


def build(d0=4, variant="theorem", bound=2.0**20, **options):
    limits = {"bound": bound} if variant in BOUNDED else {}
    return TensorPowerTransformer(d0, variant=variant, **limits, **options)


def contract(T, v):
    """T(I, v, v) with loops; exact where the entries are."""
    d = len(v)
    return [sum(T[i][j][m] * v[j] * v[m] for j in range(d) for m in range(d)) for i in range(d)]


def fractions(values):
    """An array as nested lists of the fractions that its floats are."""
    return [fractions(x) for x in values] if np.ndim(values) else Fraction(float(values))


def random_problem(rng, d):
    """A tensor with no symmetry, and a start with entries of either sign."""
    return rng.standard_normal((d, d, d)) * rng.choice([0.3, 1.0, 3.0]), rng.standard_normal(d)


def dyadic_problem(rng, d):
    """The same with a few bits per entry, so that exact powers stay short."""
    return rng.integers(-8, 9, (d, d, d)) / 4, rng.integers(1, 5, d) * rng.choice([-1, 1], d) / 4


# ---- Theorem D.8


@pytest.mark.slow
@pytest.mark.parametrize("variant", ANY_SIZE)
def test_floats_are_within_the_conditioning_of_the_iteration(variant):
    """200 problems, one weight set: relative error at most 16 d 2^L u kappa."""
    rng = np.random.default_rng(0)
    network, used = build(8, variant), []
    for _ in range(200):
        d, n_iter = int(rng.integers(1, 9)), int(rng.integers(1, 6))
        T, v = random_problem(rng, d)
        size = np.linalg.norm(T.reshape(d, -1), 2)
        kappa, want = 1.0, v
        for step, got in enumerate(network.run(T, v, n_iter), start=1):
            after = power_step(T, want)
            kappa *= size * (want @ want) / np.linalg.norm(after)
            want = after
            bound = 16 * d * 2**step * U * kappa
            error = np.linalg.norm(got - want) / np.linalg.norm(want)
            assert_bound([error], [bound])
            used.append(error / bound)
    assert max(used) > 1e-3


@pytest.mark.parametrize("variant", ANY_SIZE + BOUNDED)
def test_rationals_are_equal_not_close(variant):
    rng = np.random.default_rng(1)
    for _ in range(200 if variant == "theorem" else 40):
        d0 = int(rng.integers(1, 5))
        d, n_iter = int(rng.integers(1, d0 + 1)), int(rng.integers(1, 6 if variant == "theorem" else 4))
        network = build(d0, variant, bound=2.0**40)
        T, v = dyadic_problem(rng, d)
        out = rational(network.layers(n_iter), network.encode(T, v))
        exact_T, want = fractions(T), fractions(v)
        for _ in range(n_iter):
            want = contract(exact_T, want)
        name, scale = ("u", d) if variant == "one_layer" else ("v", 1)
        for token in out:
            assert [token[i] for i in network.layout.indices(name)][:d] == [scale * x for x in want]


@pytest.mark.parametrize("variant", ["theorem", "attention_only"])
@pytest.mark.parametrize(("d0", "d"), [(2, 1), (2, 2), (3, 2), (3, 3)])
def test_one_step_is_an_identity_of_polynomials(d0, d, variant):
    """From symbols T_ijm, v_i to the encoding of T(I, v, v): with induction over steps, the theorem.

    The slot is a symbol too where the MLP does not clean it (attention only)."""
    names = [f"T{i}{j}{m}" for i in range(d) for j in range(d) for m in range(d)]
    _, *variables = ring([*names, *(f"v{i}" for i in range(d)), "left"], QQ)
    entries = iter(variables)
    T = [[[next(entries) for _ in range(d)] for _ in range(d)] for _ in range(d)]
    v = [next(entries) for _ in range(d)]
    network = build(d0, variant)

    def encoding(vector, slot):
        H = [[Fraction(0)] * network.layout.width for _ in range(d)]
        numbers = network.encode(np.ones((d, d, d)), np.ones(d))
        for j, token in enumerate(H):
            for c in range(network.layout.width):
                token[c] = Fraction(int(numbers[j, c]))
            for m in range(d):
                for a in range(d):
                    token[network.layout.indices("t")[m * d0 + a]] = T[a][j][m]
                token[network.layout.indices("v")[m]] = vector[m]
            token[network.layout.indices("slot")[0]] = slot[j]
        return H

    zero, rest = [Fraction(0)] * d, [variables[-1]] * d
    cleaned = variant == "theorem"
    out = symbolic(network.layers(1), encoding(v, zero if cleaned else rest))
    left = zero if cleaned else [d * x for x in v]
    assert out == encoding(contract(T, v), left)


def test_the_symbolic_pass_notices_a_relu_that_does_not_cancel():
    network = build(2)
    _, x = ring("x", QQ)
    one = layer("relu", [network.design.layers[0].heads[0]])
    numbers = network.encode(np.zeros((2, 2, 2)), [1.0, 1.0])
    H = [[Fraction(int(c)) if c != 1 else x for c in row] for row in numbers]
    with pytest.raises(ValueError, match="absolute values do not cancel"):
        symbolic([one], H)
    with pytest.raises(ValueError, match="softmax has no exact values"):
        rational([Layer("softmax", one.heads, one.W1, one.W2)], numbers)


def test_the_exact_pass_agrees_with_the_naive_one():
    rng = np.random.default_rng(2)
    D = 5
    draw = lambda *shape: rng.standard_normal(shape)  # noqa: E731
    layers = []
    for _ in range(2):
        heads = tuple(Head(draw(D, D), draw(D, D), draw(D, D)) for _ in range(2))
        layers.append(Layer("relu", heads, draw(4, D), draw(D, 4)))
    H = draw(3, D)
    want = naive.forward(Transformer(layers).matrices(), H)
    got = np.array([[float(x) for x in token] for token in rational(layers, H)])
    assert_exact(got, want, ulps=1e4, scale=np.abs(want).max())


@pytest.mark.parametrize("d0", [1, 2, 5, 8])
def test_sizes(d0):
    norm = 1 + 2 * np.sqrt(2)
    sizes = build(d0).sizes(3)
    assert sizes[:4] == (6, 2 * d0 + 1, d0**2 + 2 * d0 + 3, 2)
    assert_exact(sizes.norm, norm, ulps=100)
    assert sizes.heads_per_layer == (2, 2 * d0 + 1) * 3
    assert sizes.hidden_per_layer == (0, 2) * 3
    only = build(d0, "attention_only").sizes(3)
    assert only[:4] == (6, max(4, 2 * d0 + 1), d0**2 + 2 * d0 + 3, 0)
    assert only.heads_per_layer == (4, 2 * d0 + 1) * 3
    single = build(d0, "one_layer").sizes(3)
    assert single[:4] == (3, 2 * d0 + 1, d0**2 + 2 * d0 + 2, 2 * d0 + 2)
    assert build(d0, "shifted_heads").sizes(3)[:4] == (6, max(2, d0 + 1), d0**2 + 2 * d0 + 3, 2)
    assert build(d0, "three_heads").sizes(3)[:4] == (6, 3, 2 * d0**2 + 2 * d0 + 3, 4 * d0**2 + 2)


@pytest.mark.parametrize("variant", ANY_SIZE + BOUNDED)
def test_the_naive_loop_and_the_structured_pass_agree(variant):
    rng = np.random.default_rng(3)
    network = build(3, variant)
    for d in (1, 2, 3):
        T, v = dyadic_problem(rng, d)
        H = network.encode(T, v)
        model = network.transformer(2)
        want = naive.forward(model.matrices(), H)
        for mode in ("dense", "structured"):
            assert_exact(model(H, mode), want, ulps=1e4, scale=max(1, np.abs(want).max()) * 2**20)


def test_run_reads_the_networks_of_every_depth():
    rng = np.random.default_rng(4)
    for variant in ANY_SIZE + BOUNDED:
        network = build(4, variant)
        T, v = dyadic_problem(rng, 3)
        for depth, got in enumerate(network.run(T, v, 3), start=1):
            alone = network.readout(network.transformer(depth)(network.encode(T, v)), 3)
            size = 2**20 if variant in BOUNDED else np.abs(got).max() + np.abs(v).max()
            assert_exact(alone, got, ulps=1e3, scale=size)


def test_float32_differs_by_rounding_only():
    rng = np.random.default_rng(5)
    T, v = random_problem(rng, 4)
    double, single = (build(4, dtype=dtype).run(T, v, 3) for dtype in ("float64", "float32"))
    ratio = gap(double[-1], single[-1]) / np.abs(double[-1]).max()
    assert U * 2**29 / 1e3 < ratio < 1e3 * U * 2**29


# ---- the bounded variants


@pytest.mark.slow
@pytest.mark.parametrize("variant", BOUNDED)
def test_variants_step_within_their_bound(variant):
    """Float error grows with the bound, u B: small bounds are better."""
    rng = np.random.default_rng(6)
    for bound in (2.0**6, 2.0**20):
        worst = 0.0
        for _ in range(40):
            d = int(rng.integers(1, 5))
            q = np.linalg.qr(rng.standard_normal((d, d)))[0]
            T = np.einsum("k,ik,jk,mk->ijm", rng.uniform(0.5, 1, d), q, q, q)
            v = q @ (rng.dirichlet(np.ones(d)) * rng.choice([-1, 1], d))
            want = v
            for got in build(4, variant, bound=bound).run(T, v, 2):
                want = power_step(T, want)
                worst = max(worst, gap(got, want))
        assert worst <= 64 * 4 * U * bound


@pytest.mark.parametrize(
    ("variant", "bound", "message"),
    [
        ("one_layer", 3.0, r"step 1: max \|d v_m\| = 8 exceeds bound = 3"),
        ("shifted_heads", 3.0, r"step 1: max \|v_m d v_j\| = 32 exceeds bound = 3"),
        ("three_heads", 3.0, r"step 1: max \|v_m\| = 4 exceeds bound = 3"),
    ],
)
def test_leaving_the_bound_warns_while_steps_follow(variant, bound, message):
    T, v = np.zeros((2, 2, 2)), np.array([1.0, 0.0])
    T[0, 0, 0] = 4
    network = build(2, variant, bound=bound)
    with pytest.warns(UserWarning, match=message):
        network.run(T, v, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert network.run(T, v, 1)[0].tolist() == [4, 0]
    with pytest.raises(ValueError, match=f"this start is outside what variant '{variant}' holds: max"):
        network.run(T, 9 * v, 1)


def test_beyond_its_bound_a_variant_is_wrong():
    """The warning has a reason."""
    rng = np.random.default_rng(7)
    T, v = np.abs(rng.standard_normal((3, 3, 3))) * 5, np.array([0.5, -0.4, 0.3])
    want = build(3).run(T, v, 3)
    for variant in BOUNDED:
        with pytest.warns(UserWarning, match="exceeds bound = 2"):
            got = build(3, variant, bound=2.0).run(T, v, 3)
        assert gap(got[0], want[0]) < 1e-12
        assert gap(got[2], want[2]) > 1e-3 * np.abs(want[2]).max()


# ---- normalisation


def mixture_tensor(rng, K, pi_min):
    """A whitened mixture tensor: orthonormal v_k, lambda_k = pi_k^(-1/2)."""
    pi = pi_min + (1 - K * pi_min) * rng.dirichlet(np.ones(K))
    q = np.linalg.qr(rng.standard_normal((K, K)))[0]
    return np.einsum("k,ik,jk,mk->ijm", pi**-0.5, q, q, q)


@pytest.mark.slow
@pytest.mark.parametrize(("delta", "pi_min"), [(1e-2, 0.02), (1e-3, 0.1), (1e-5, 0.05)])
def test_normalised_iteration_has_the_exact_direction_and_norm_within_delta(delta, pi_min):
    rng = np.random.default_rng(8)
    network = TensorPowerTransformer(6, variant="normalised", pi_min=pi_min, delta=delta)
    worst = 0.0
    for _ in range(20):
        K = int(rng.integers(1, 7))
        T = mixture_tensor(rng, K, pi_min)
        v = rng.standard_normal(K)
        v /= np.linalg.norm(v)
        want = v
        for got in network.run(T, v, 12):
            want = power_step(T, want)
            want /= np.linalg.norm(want)
            norm = np.linalg.norm(got)
            assert abs(norm - 1) <= delta * (1 + 1e-9)
            worst = max(worst, abs(norm - 1))
            assert gap(got / norm, want) < 1e4 * U
    assert worst > delta / 10
    pieces = len(network.design.layers[2].W1) - 2
    assert network.sizes().hidden_width == pieces + 2


def test_the_norm_of_a_power_step_is_between_its_bounds():
    """1 <= |T(I, v, v)| <= pi_min^(-1/2), both attained: at v_k^2 = pi_k and at a v_k."""
    rng = np.random.default_rng(9)
    for _ in range(200):
        K = int(rng.integers(1, 7))
        pi = 0.05 + (1 - K * 0.05) * rng.dirichlet(np.ones(K))
        q = np.linalg.qr(rng.standard_normal((K, K)))[0]
        T = np.einsum("k,ik,jk,mk->ijm", pi**-0.5, q, q, q)
        v = rng.standard_normal(K)
        norm = np.linalg.norm(power_step(T, v / np.linalg.norm(v)))
        assert 1 - 1e-12 <= norm <= pi.min() ** -0.5 + 1e-12
        assert_exact(np.linalg.norm(power_step(T, q @ np.sqrt(pi))), 1.0, ulps=1e3)
        assert_exact(power_step(T, q @ np.sqrt(pi)), q @ np.sqrt(pi), ulps=1e3)
        k = int(pi.argmin())
        assert_exact(np.linalg.norm(power_step(T, q[:, k])), pi.min() ** -0.5, ulps=1e3, scale=5)


def test_normalisation_outside_its_range_warns():
    network = TensorPowerTransformer(3, variant="normalised", pi_min=0.25, delta=1e-2)
    T = np.zeros((3, 3, 3))
    T[0, 0, 0] = 9.0  # lambda = 9 means a weight of 1/81
    with pytest.warns(UserWarning, match=r"step 1: \|v\| = .* is not within delta = 0.01 of 1"):
        network.run(T, np.array([1.0, 0, 0]), 1)
    with pytest.raises(ValueError, match=r"\|v\| = 2 is not within delta"):
        network.run(T, np.array([2.0, 0, 0]), 1)


@pytest.mark.parametrize("delta", [0.3, 1e-2, 1e-4, 1e-7])
@pytest.mark.parametrize(("low", "high"), [(0.96, 50.0), (1.0, 1.5), (0.5, 1e4)])
def test_inverse_roots_are_within_delta(low, high, delta):
    f = inverse_root_approximation(low, high, delta)
    assert f.closed_form <= delta * (1 + 1e-9)
    ends = f.b[f.w < 0]
    m = lambda q: q * q + q + 1  # noqa: E731
    inner = np.concatenate([[low], ends[:-1]]) * m(np.sqrt(ends / np.concatenate([[low], ends[:-1]]))) / 3
    x = np.concatenate([[low], ends, inner, np.geomspace(low, high, 500)])
    x = x[x <= high]
    relative = np.abs(f(x) * np.sqrt(x) - 1)
    assert relative.max() <= f.closed_form + f.rounding
    assert relative.max() >= 0.999 * f.closed_form
    assert f.units <= 2 + np.ceil(np.log(high / low) / np.sqrt(64 / 3 * delta) * 1.1)


def test_the_width_of_inverse_roots_is_optimal_in_order():
    deltas = np.geomspace(1e-7, 1e-2, 6)
    units = [inverse_root_approximation(1, 100, delta).units for delta in deltas]
    assert abs(slope(deltas, units) + 0.5) < 0.05
    assert_exact(inverse_root_gap(1e-3), 3 / 32 * 1e-6, ulps=1e12, scale=1e-6)


# ---- what is printed


def with_layers(network, *layers):
    return network.with_program(Program((), layers, layers))


def test_the_printed_last_head_leaves_a_multiple_of_v():
    """Erratum A3: with key d instead of 1 the result is T(I, v, v) - (d - 1) v, exactly."""
    rng = np.random.default_rng(10)
    for d in (1, 2, 3):
        network = build(3)
        s, (odd, even) = network.layout, network.design.layers
        printed = head(s, query=[s["one"]], key=[s["count"]], value={"v": -s["v"]})
        twin = with_layers(network, odd, Layer("relu", (printed, *even.heads[1:]), even.W1, even.W2))
        T, v = dyadic_problem(rng, d)
        token = rational(twin.layers(1), twin.encode(T, v))[0]
        got = [token[i] for i in s.indices("v")][:d]
        exact_T, exact_v = fractions(T), fractions(v)
        want = [x - (d - 1) * y for x, y in zip(contract(exact_T, exact_v), exact_v, strict=True)]
        assert got == want
        assert (got == contract(exact_T, exact_v)) == (d == 1)


def test_without_unit_vectors_in_the_stream_the_third_layer_writes_nothing():
    """Erratum A4: the displayed states lose e_i; the slot, which should hold d v_i, stays 0."""
    rng = np.random.default_rng(11)
    T, v = dyadic_problem(rng, 2)
    network = build(2)
    s, (odd, even) = network.layout, network.design.layers
    forgets = layer("relu", odd.heads, clean(s, "e"))
    printed = rational([forgets, even, odd], network.encode(T, v))
    right = rational([odd, even, odd], network.encode(T, v))
    (slot,) = s.indices("slot")
    assert [token[slot] for token in printed] == [0, 0]
    want = contract(*map(fractions, (T, v)))
    assert [token[slot] for token in right] == [2 * x for x in want]
    assert any(want)


# ---- broken twins


def twins(d0=4):
    """One mistake each, over the shipped builders."""
    s, (odd, even) = theorem(d0).layout, theorem(d0).layers
    remove, *contract_heads = even.heads
    flipped = contract_heads[1]._replace(V=-contract_heads[1].V)
    wrong_scale = sign_pair(head(s, query=[s["e"]], key=[s["v"]], value={"slot": s["one"]}))
    only = attention_only(d0).layers
    yield (
        "sign of a pair",
        (odd, Layer("relu", (contract_heads[0], flipped, *even.heads[2:]), even.W1, even.W2)),
    )
    yield "a missing pair", (odd, Layer("relu", (*contract_heads[2:], remove), even.W1, even.W2))
    yield "half a pair", (odd, Layer("relu", (*contract_heads[1:], remove), even.W1, even.W2))
    yield "no clean head", (odd, Layer("relu", tuple(contract_heads), even.W1, even.W2))
    yield "wrong 1/N", (layer("relu", wrong_scale), even)
    yield "slot not cleaned", (odd, layer("relu", even.heads))
    yield "attention only without its fourth head", (layer("relu", only[0].heads[1:]), only[1])


@pytest.mark.parametrize("name", [name for name, _ in twins()])
def test_broken_twins_fail(name):
    rng = np.random.default_rng(12)
    network, broken = build(4), with_layers(build(4), *dict(twins())[name])
    excess = []
    for _ in range(10):
        d = int(rng.integers(2, 5))
        T, v = dyadic_problem(rng, d)
        want = power_step(T, power_step(T, v))
        tolerance = 1e3 * U * np.abs(want).max() * 8
        assert gap(network.run(T, v, 2)[-1], want) <= tolerance
        excess.append(gap(broken.run(T, v, 2)[-1], want) / tolerance)
    assert max(excess) > 100


def test_a_transposed_column_fails():
    """t_j with T_{m,j,:} in place of T_{:,j,m}: right for symmetric tensors only."""
    rng = np.random.default_rng(13)
    T, v = dyadic_problem(rng, 3)
    network = build(3)
    assert gap(network.run(T, v, 1)[0], power_step(T, v)) < 1e-12
    assert gap(network.run(T.transpose(2, 1, 0), v, 1)[0], power_step(T, v)) > 1e-2
    symmetric = sum(T.transpose(order) for order in permutations(range(3)))
    assert gap(network.run(symmetric.transpose(2, 1, 0), v, 1)[0], power_step(symmetric, v)) < 1e-10


# ---- growth and bad input


def test_overflow_names_the_step_and_the_norm():
    T, v = np.ones((2, 2, 2)), np.array([1.0, 1.0])
    message = (
        r"step 10 leaves float64 after \|v\| = 6\.36e\+307: without normalisation the iteration is "
        r'double-exponential; .* use variant="normalised"'
    )
    with pytest.raises(OverflowError, match=message):
        build(2).run(T, v, 12)
    assert len(build(2).run(T, v, 9)) == 9


T2, V2 = np.zeros((2, 2, 2)), np.ones(2)


@pytest.mark.parametrize(
    ("T", "v", "message"),
    [
        (T2 * np.nan, V2, r"T must be finite, got nan at \[0, 0, 0\]"),
        (T2, V2 * np.inf, r"v must be finite, got inf at \[0\]"),
        (np.zeros((2, 2, 3)), V2, r"T must be \(d, d, d\) for v of length d = 2, got \(2, 2, 3\)"),
        (np.zeros((2, 2)), V2, r"T must have 3 axes and not be empty, got shape \(2, 2\)"),
        (T2, np.ones(3), r"T must be \(d, d, d\) for v of length d = 3, got \(2, 2, 2\)"),
        (np.zeros((5, 5, 5)), np.ones(5), "this network holds dimension up to d0 = 4, got 5"),
        (T2, np.zeros(2), "the start v is zero"),
        ([["a"]], V2, "T must be a rectangular array of numbers"),
    ],
)
def test_bad_problems_are_refused(T, v, message):
    with pytest.raises(ValueError, match=message):
        build().run(T, v, 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: TensorPowerTransformer(0), "d0 must be a positive integer, got 0"),
        (lambda: TensorPowerTransformer(2, variant="best"), "variant must be one of theorem, attention_only"),
        (lambda: TensorPowerTransformer(2, bound=3), "options of variant 'theorem': .*unexpected keyword"),
        (lambda: TensorPowerTransformer(2, variant="normalised"), "missing 1 required keyword-only .*pi_min"),
        (lambda: TensorPowerTransformer(2, variant="one_layer", bound=-1), "bound must be positive"),
        (lambda: TensorPowerTransformer(2, dtype="float16"), "dtype must be float64 or float32, got float16"),
        (
            lambda: TensorPowerTransformer(2, attention_only=True, variant="one_layer"),
            "attention_only=True means",
        ),
        (lambda: build(2).run(T2, V2, 0), "n_iter must be at least 1, got 0"),
        (lambda: build(2).readout(np.zeros((2, 11)), 3), "need 1 <= d <= 2, got 3"),
        (lambda: inverse_root_approximation(2, 1, 0.1), "need low < high and delta < 1"),
    ],
)
def test_bad_options_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("variant", [*ANY_SIZE, *BOUNDED, "normalised"])
def test_saving_and_loading(tmp_path, variant):
    options = {"pi_min": 0.1} if variant == "normalised" else {}
    network = build(3, variant, **options)
    save(network, tmp_path / "w")
    again = load(tmp_path / "w")
    T, v = mixture_tensor(np.random.default_rng(0), 3, 0.2), np.array([1.0, 0, 0])
    for one, other in zip(network.run(T, v, 2), again.run(T, v, 2), strict=True):
        assert gap(one, other) == 0
    assert again.config == network.config


def test_the_flag_is_the_variant():
    assert TensorPowerTransformer(2, attention_only=True).variant == "attention_only"
    assert TensorPowerTransformer(2).variant == "theorem"


def test_the_trace_names_the_slot():
    T, v = dyadic_problem(np.random.default_rng(0), 3)
    run = build(4).run(T, v, 2, trace=True)
    assert_exact(run.trace[1, "slot"][:, 0], 3 * v, ulps=8, scale=3)
    assert_exact(run.trace[3, "slot"][:, 0], 3 * power_step(T, v), ulps=64, scale=100)
    assert (run.trace[2, "slot"] == 0).all()


def test_what_is_neither_too_large_nor_too_small_is_computed():
    """Products of entries of T with each other are not formed: T may be near the ends of float64."""
    rng = np.random.default_rng(0)
    T, v = rng.standard_normal((3, 3, 3)), rng.standard_normal(3)
    for scale in (1e160, 1e-200):
        for mode in ("structured", "dense") if scale > 1 else ("structured",):
            (got,) = TensorPowerTransformer(3).run(scale * T, v, 1, mode=mode)
            assert_exact(got / scale, power_step(T, v), ulps=1e3, scale=float(np.abs(T).sum()))


def test_digits_lost_below_the_dtype_are_reported():
    rng = np.random.default_rng(0)
    T, v = rng.standard_normal((3, 3, 3)), rng.standard_normal(3)
    with pytest.raises(OverflowError, match=r"step 2 leaves float64 after \|v\| = .*e-15"):
        TensorPowerTransformer(3).run(1e-150 * T, v, 4)
    with pytest.raises(OverflowError, match="step 1 leaves float32"):
        TensorPowerTransformer(3, dtype="float32").run(T, 1e-20 * v, 1)
    assert not TensorPowerTransformer(3).run(0 * T, v, 2)[-1].any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TensorPowerTransformer(120), "d0 = 120 takes more than a gibibyte .* at most 64"),
        (lambda: TensorPowerTransformer("3"), "d0 must be a positive integer, got '3'"),
        (lambda: TensorPowerTransformer(2, variant="normalised", pi_min=2),
         r"pi_min must be in \(0, 1\], got 2"),
        (lambda: TensorPowerTransformer(2, variant="normalised", pi_min=0.1, delta=1e-14),
         r"delta must be in \[1e-10, 1\), got 1e-14"),
        (lambda: TensorPowerTransformer(2).run(np.full((2, 2, 2), 1j), [1.0, 1.0], 1),
         "T must be .* complex128"),
    ],
)  # fmt: skip
def test_networks_and_tensors_that_cannot_be(make, message):
    with pytest.raises(ValueError, match=message):
        make()
