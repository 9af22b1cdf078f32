"""Claims 87-100: cubic tensor power iteration (Theorem D.8), over fractions and polynomials."""

from fractions import Fraction

import numpy as np
import pytest
from sympy import QQ, ring

from constructions import Layer, TensorPowerTransformer, Transformer
from constructions.exact import rational, symbolic
from constructions.residual import clean, head, layer
from gmm import power_step
from tests import naive
from tests.claims.evidence import Found
from tests.compare import gap
from tests.constructions.test_tensor_power import (
    build,
    contract,
    dyadic_problem,
    fractions,
    random_problem,
    twins,
    with_layers,
)

TWINS = dict(twins())


def broken(name):
    return with_layers(build(4), *TWINS[name])


def problems(rng, count, most=4):
    """Tensors without symmetry and starts, of few binary digits, d = 2..most."""
    return [dyadic_problem(rng, int(rng.integers(2, most + 1))) for _ in range(count)]


def wrong_iterates(network, rng, n_iter, count=6, most=3, least=2):
    """How many entries of v differ from exact power iteration, over all tokens, in fractions."""
    off = 0
    for _ in range(count):
        d = int(rng.integers(least, most + 1))
        T, v = dyadic_problem(rng, d)
        want = fractions(v)
        for _ in range(n_iter):
            want = contract(fractions(T), want)
        for token in rational(network.layers(n_iter), network.encode(T, v)):
            off += [token[i] for i in network.layout.indices("v")][:d] != want
    return off


@pytest.mark.claim(87)
def test_the_encoding(claim):
    def check(axes):
        worst, count = 0.0, 0
        for d0 in (2, 4):
            network = build(d0)
            for T, v in problems(claim.rng, 4, d0):
                d, H = len(v), network.encode(T, v)
                blocks = network.layout.read(H, "t").reshape(d, d0, d0)
                want = np.zeros((d, d0, d0))
                want[:, :d, :d] = T.transpose(axes)
                worst, count = max(worst, gap(blocks, want), gap(H.shape, (d, d0**2 + 2 * d0 + 3))), count + 1
        return Found(worst, 0, count)

    claim.holds(check, (1, 2, 0))
    claim.twin("T_{m,j,:} for T_{:,j,m}", check, (1, 0, 2))


@pytest.mark.claim(88)
def test_the_contraction(claim):
    """The reference and the network against loops over fractions."""

    def check(subscripts):
        worst, count = 0.0, 0
        for T, v in problems(claim.rng, 10):
            want = [float(x) for x in contract(fractions(T), fractions(v))]
            worst = max(worst, gap(np.einsum(subscripts, T, v, v), want), gap(power_step(T, v), want))
            worst, count = max(worst, gap(build(4).run(T, v, 1)[0], want)), count + 1
        return Found(worst, 1e-9, count)

    claim.holds(check, "ijm,j,m->i")
    claim.twin("contracted over the first index", check, "jim,j,m->i")


@pytest.mark.claim(89)
def test_the_odd_layer(claim):
    def check(network):
        off, count = 0, 0
        for T, v in problems(claim.rng, 8):
            tokens = rational(network.layers(1)[:1], network.encode(T, v))
            (slot,) = network.layout.indices("slot")
            off += [token[slot] for token in tokens] != [len(v) * Fraction(float(x)) for x in v]
            count += 1
        return Found(off, 0, count)

    claim.holds(check, build(4))
    claim.twin("1 for d as the value", check, broken("wrong 1/N"))


@pytest.mark.claim(90)
def test_unit_vectors_stay_in_the_stream(claim):
    """Slots after the third layer; T = 1 everywhere, v = (1, 1), d = 2 is enough."""
    network = build(2)
    s, (odd, even) = network.layout, network.design.layers
    T, v = np.ones((2, 2, 2)), np.ones(2)

    def check(first):
        tokens = rational([first, even, odd], network.encode(T, v))
        (slot,) = s.indices("slot")
        want = [2 * x for x in contract(fractions(T), fractions(v))]
        return Found(sum(token[slot] != x for token, x in zip(tokens, want, strict=True)), 0, 2)

    claim.holds(check, odd)
    claim.printed("states without e_i", check, layer("relu", odd.heads, clean(s, "e")))


@pytest.mark.claim(91)
def test_the_even_layer(claim):
    def check(network):
        return Found(wrong_iterates(network, claim.rng, 1), 0, 6)

    claim.holds(check, build(4))
    for name in ("sign of a pair", "a missing pair"):
        claim.twin(name, check, broken(name))


@pytest.mark.claim(92)
def test_the_last_head(claim):
    """d = 2, T = 0, v = (1, 1): what is left of v, which should be 0, is (1 - d) v = -v."""
    network = build(2)
    s, (odd, even) = network.layout, network.design.layers

    def check(key):
        last = head(s, query=[s["one"]], key=[s[key]], value={"v": -s["v"]})
        twin = with_layers(network, odd, Layer("relu", (last, *even.heads[1:]), even.W1, even.W2))
        tokens = rational(twin.layers(1), network.encode(np.zeros((2, 2, 2)), np.ones(2)))
        left = [abs(token[i]) for token in tokens for i in s.indices("v")]
        shipped = rational(network.layers(1), network.encode(np.zeros((2, 2, 2)), np.ones(2)))
        return Found(float(max(left) + sum(abs(t[i]) for t in shipped for i in s.indices("v"))), 0, 1)

    claim.holds(check, "one")
    claim.printed("key d", check, "count")


@pytest.mark.claim(92)
def test_what_the_printed_head_leaves(claim):
    """It is T(I, v, v) - (d - 1) v, for d = 1, 2, 3."""
    network = build(3)
    s, (odd, even) = network.layout, network.design.layers
    last = head(s, query=[s["one"]], key=[s["count"]], value={"v": -s["v"]})
    printed = with_layers(network, odd, Layer("relu", (last, *even.heads[1:]), even.W1, even.W2))

    def check(multiple):
        off = 0
        for d in (1, 2, 3):
            T, v = dyadic_problem(claim.rng, d)
            token = rational(printed.layers(1), network.encode(T, v))[0]
            exact = fractions(v)
            want = [x - multiple(d) * y for x, y in zip(contract(fractions(T), exact), exact, strict=True)]
            off += [token[i] for i in s.indices("v")][:d] != want
        return Found(off, 0, 3)

    claim.holds(check, lambda d: d - 1)
    claim.printed("nothing", check, lambda d: 0)


@pytest.mark.claim(93)
def test_pairs_of_relu_heads(claim):
    def check(subject):
        network, heads = subject
        off = wrong_iterates(network, claim.rng, 1)
        off += network.sizes(1).heads_per_layer != heads
        return Found(off, 0, 7)

    claim.holds(check, (build(4), (2, 9)))
    claim.twin("half of a pair", check, (broken("half a pair"), (2, 8)))


@pytest.mark.claim(94)
def test_smaller_dimensions(claim):
    """d = 1, 2, 3 on d0 = 4; the value d0 for d is wrong for d < d0."""
    network = build(4)
    s, even = network.layout, network.design.layers[1]
    from constructions.residual import sign_pair

    fixed = sign_pair(head(s, query=[s["e"]], key=[s["v"]], value={"slot": 4 * s["one"]}))

    def check(subject):
        return Found(wrong_iterates(subject, claim.rng, 1, least=1), 0, 6)

    claim.holds(check, network)
    claim.twin("d0 for d", check, with_layers(network, layer("relu", fixed), even))


@pytest.mark.claim(95)
def test_sizes(claim):
    def check(hidden):
        worst = 0.0
        for d0 in (1, 2, 5):
            network = build(d0)
            sizes, matrices = network.sizes(2), network.transformer(2).matrices()
            norms = [
                max(np.linalg.norm(M, 2) for name in "QKV" for M in one[name])
                + sum(np.linalg.norm(one[name], 2) for name in ("W1", "W2") if one[name].size)
                for one in matrices
            ]
            worst = max(worst, abs(max(norms) - 1 - 2 * 2**0.5), abs(sizes.hidden_width - hidden))
            worst = max(worst, abs(sizes.width - d0**2 - 2 * d0 - 3))
        return Found(worst, 1e-9, 3)

    claim.holds(check, 2)
    claim.twin("no hidden units", check, 0)


def identity(variant, d0, d):
    """(encoding as a function of v and the slot, T, v, symbols left in the slot, network)."""
    names = [f"T{i}{j}{m}" for i in range(d) for j in range(d) for m in range(d)]
    _, *variables = ring([*names, *(f"v{i}" for i in range(d)), "left"], QQ)
    entries = iter(variables)
    T = [[[next(entries) for _ in range(d)] for _ in range(d)] for _ in range(d)]
    v = [next(entries) for _ in range(d)]
    network = build(d0, variant)
    numbers = network.encode(np.ones((d, d, d)), np.ones(d))

    def encoding(vector, slot):
        H = [[Fraction(int(x)) for x in row] for row in numbers]
        place = {name: network.layout.indices(name) for name in ("t", "v", "slot")}
        for j, token in enumerate(H):
            token[place["slot"][0]] = slot[j]
            for m in range(d):
                token[place["v"][m]] = vector[m]
                for a in range(d):
                    token[place["t"][m * d0 + a]] = T[a][j][m]
        return H

    return encoding, T, v, [variables[-1]] * d, network


@pytest.mark.claim(96)
def test_one_step_as_polynomials(claim):
    """From symbols T_ijm, v_i to the encoding of T(I, v, v): with induction over steps, the theorem."""

    def check(index):
        off, cases = 0, [(2, 1), (2, 2), (3, 2)]
        for d0, d in cases:
            encoding, T, v, _, network = identity("theorem", d0, d)
            zero = [Fraction(0)] * d
            out = symbolic(network.layers(1), encoding(v, zero))
            off += out != encoding(index(contract(T, v), v), zero)
        return Found(off, 0, len(cases))

    claim.holds(check, lambda after, v: after)
    claim.twin("the iterate itself", check, lambda after, v: v)


@pytest.mark.claim(96)
def test_several_steps_in_fractions(claim):
    def check(network):
        return Found(wrong_iterates(network, claim.rng, 3), 0, 6)

    claim.holds(check, build(4))
    claim.twin("slot not cleaned", check, broken("slot not cleaned"))
    claim.twin("no clean head", check, broken("no clean head"))


@pytest.mark.claim(97)
def test_attention_only(claim):
    """One step as polynomials, with any number left in the slot; three in fractions."""

    def check(network):
        encoding, T, v, left, _ = identity("attention_only", 2, 2)
        out = symbolic(network(2).layers(1), encoding(v, left))
        off = out != encoding(contract(T, v), [2 * x for x in v])
        off += sum(len(one.W1) for one in network(2).layers(1))
        return Found(off + wrong_iterates(network(4), claim.rng, 3), 0, 7)

    def without_fourth_head(d0):
        net = build(d0, "attention_only")
        odd, even = net.design.layers
        return with_layers(net, layer("relu", odd.heads[1:]), even)

    def three_heads(d0):
        net = build(d0, "attention_only")
        odd, even = net.design.layers
        return with_layers(net, layer("relu", odd.heads[2:]), even)

    claim.holds(check, lambda d0: build(d0, "attention_only"))
    claim.twin("old slot not removed", check, three_heads)
    with pytest.raises(ValueError, match="absolute values do not cancel"):
        check(without_fourth_head)


@pytest.mark.claim(98)
def test_norms_have_a_lower_bound(claim):
    """Smallest |T(I, v, v)| over unit v of tensors with lambda_k = pi_k^(-1/2), a whitened mixture's."""

    def check(power):
        smallest = np.inf
        for _ in range(300):
            K = int(claim.rng.integers(1, 6))
            pi = claim.rng.dirichlet(np.ones(K)) * (1 - 0.05 * K) + 0.05
            q = np.linalg.qr(claim.rng.standard_normal((K, K)))[0]
            T = np.einsum("k,ik,jk,mk->ijm", pi**power, q, q, q)
            for v in (q @ np.sqrt(pi), claim.rng.standard_normal(K)):
                smallest = min(smallest, np.linalg.norm(power_step(T, v / np.linalg.norm(v))))
        return Found(1 - smallest, 1e-9, 600)

    claim.holds(check, -0.5)
    claim.twin("lambda_k = pi_k^(1/2), no whitened mixture", check, 0.5)


@pytest.mark.claim(98)
def test_normalisation_is_feasible(claim):
    """8 normalised steps by the built network: |v| within delta of 1; without normalisation it leaves."""

    def check(variant):
        worst = 0.0
        for _ in range(5):
            pi = 0.1 + 0.7 * claim.rng.dirichlet(np.ones(3))
            q = np.linalg.qr(claim.rng.standard_normal((3, 3)))[0]
            T = np.einsum("k,ik,jk,mk->ijm", pi**-0.5, q, q, q)
            v = claim.rng.standard_normal(3)
            options = {"pi_min": 0.1, "delta": 1e-2} if variant == "normalised" else {}
            network = TensorPowerTransformer(3, variant=variant, **options)
            path = network.run(T, v / np.linalg.norm(v), 4)
            worst = max(worst, *(abs(np.linalg.norm(x) - 1) for x in path))
        return Found(worst, 1e-2 * (1 + 1e-6), 20)

    claim.holds(check, "normalised")
    claim.printed("no normalisation (Theorem D.8)", check, "theorem")


@pytest.mark.claim(99)
def test_relu_attention(claim):
    """The runner against the definition by loops; with weights that are normalised over j it is another."""

    def normalised(one, tokens):
        out = []
        for h in tokens:
            total = h.copy()
            for Q, K, V in zip(one["Q"], one["K"], one["V"], strict=True):
                weights = np.array([max((Q @ h) @ (K @ x), 0.0) for x in tokens])
                total += sum(
                    w * (V @ x) for w, x in zip(weights / max(weights.sum(), 1e-300), tokens, strict=True)
                )
            out.append(total)
        return out

    def check(attention):
        worst = 0.0
        for _ in range(6):
            T, v = random_problem(claim.rng, 3)
            network = build(3).transformer(1)
            one = network.matrices()[0]
            H = build(3).encode(T, v)
            alone = Transformer([{**one, "W1": np.zeros((0, H.shape[1])), "W2": np.zeros((H.shape[1], 0))}])
            worst = max(worst, gap(alone(H), np.array(attention(one, list(H)))))
        return Found(worst, 1e-9, 6)

    claim.holds(check, naive.attention)
    claim.twin("normalised over the keys", check, normalised)
