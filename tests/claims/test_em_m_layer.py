"""Claims 34-40: the M-layer, the loop, and the readout."""

import numpy as np
import pytest

from constructions import Transformer
from constructions.report import em_report
from gmm import em_step
from tests.claims.em_problems import cases, network, share_of_bound
from tests.claims.evidence import Found
from tests.compare import gap
from tests.constructions.twins import broken

pytestmark = pytest.mark.filterwarnings("ignore:.*leaves the bound")  # twins and overlapping mixtures do


def m_step_with_exact_logs(em, case):
    """The M-layer alone, on tokens with the exact log w in them; (weights, means) of the new state."""
    trace = em.run(case.X, case.init, 1, mode="dense", trace=True).trace
    K, d = case.init.n_components, case.X.shape[1]
    H = trace.state(1)
    em.layout.read(H, "log_w")[:, :K] = np.log(case.init.responsibilities(case.X))
    return em.readout(Transformer(em.layers(1)[1:])(H), d, K)


@pytest.mark.claim(34)
def test_the_softmax_is_over_the_tokens_read(claim):
    """The display's weights, normalised over either index, with the scores of the built head."""

    def check(axis):
        worst = 0.0
        for case in cases(claim.rng, 6):
            em = network()
            trace = em.run(case.X, case.init, 1, mode="dense", trace=True).trace
            H, K, d = trace.state(1), case.init.n_components, case.X.shape[1]
            head = em.layers(1)[1].heads[0]
            scores = (H @ head.Q.T) @ (H @ head.K.T).T  # (reading j, read i)
            weights = np.exp(scores - scores.max())
            weights /= weights.sum(axis=axis, keepdims=True)
            want = em.run(case.X, case.init, 1)[0].means
            worst = max(worst, gap((weights @ case.X)[:K, :d], want))
        return Found(worst, 1e-9, 6)

    claim.holds(check, 1)
    claim.printed("normalised over the reading tokens", check, 0)


@pytest.mark.claim(34)
def test_printed_roles_are_not_the_m_step(claim):
    """The built head, and one with query and key exchanged, on exact logs against EM."""

    def check(em):
        worst = max(
            gap(m_step_with_exact_logs(em, case).means, em_step(case.X, case.init).means)
            for case in cases(claim.rng, 4)
        )
        return Found(worst, 1e-9, 4)

    claim.holds(check, network())
    claim.printed("query and key exchanged", check, broken(network(), "roles of query and key swapped"))


@pytest.mark.claim(35)
def test_with_exact_logs_the_m_layer_is_the_m_step(claim):
    def check(em):
        worst = 0.0
        for case in cases(claim.rng, 6):
            got, want = m_step_with_exact_logs(em, case), em_step(case.X, case.init)
            worst = max(worst, gap(got.means, want.means), gap(got.weights, want.weights))
        return Found(worst, 1e-9, 6)

    claim.holds(check, network())
    for name in ("weight head removed", "mean head removed", "mean head weighs by w"):
        claim.twin(name, check, broken(network(), name))


@pytest.mark.claim(36)
def test_the_mlp_writes_logs_and_norms_and_cleans(claim):
    """In the middle of a network: layer 2 of 4."""

    def check(em):
        _, log_pi, square = em.approximations
        worst = 0.0
        for case in cases(claim.rng, 4):
            trace = em.run(case.X, case.init, 2, mode="dense", trace=True).trace
            worst = max(worst, *(np.abs(trace[2, name]).max() for name in ("w", "log_w", "pi")))
            pi, mu = (trace.at(2, name, "attention") for name in ("pi", "mu"))
            worst = max(worst, gap(trace[2, "log_pi"], log_pi(pi)) / 1e6)
            worst = max(worst, gap(trace[2, "c"][:, 0], square(mu).sum(axis=1)) / 1e6)
        units = em.K0 * log_pi.units + em.d0 * square.units + 6 * em.K0
        return Found(max(worst, abs(em.sizes(2).hidden_per_layer[1] - units)), 1e-15, 4)

    claim.holds(check, network())
    for name in ("old weights not cleaned", "responsibilities not cleaned", "norms not written"):
        claim.twin(name, check, broken(network(), name))


@pytest.mark.claim(37)
def test_every_iteration_is_em_within_its_bound(claim):
    """Step by step from the network's own state, and the gap to EM's own path within the bound carried on."""

    def check(em):
        worst = 0.0
        for case in cases(claim.rng, 6):
            worst = max(worst, share_of_bound(em, case, 3))
            rows = em_report(network(), case.X, case.init, em.run(case.X, case.init, 4))
            worst = max(worst, *(row.em_gap / row.bound for row in rows))
        return Found(worst, 1, 12)

    claim.holds(check, network())
    for name in ("log weights not written", "norms not cleaned", "log responsibilities not cleaned"):
        claim.twin(name, check, broken(network(), name))


@pytest.mark.claim(37)
def test_the_network_is_looped(claim):
    """Layers of 8 iterations that are neither the first pair nor the last MLP; and their number."""

    def check(n_layers):
        layers = network().layers(8)
        other = [one for one in layers[:-1] if one is not layers[0] and one is not layers[1]]
        off = np.abs(layers[-1].W1 - layers[1].W1).max() + abs(len(layers) - n_layers)
        off += any(a is not b for a, b in zip(layers[-1].heads, layers[1].heads, strict=True))
        return Found(len(other) + off, 0, 16)

    claim.holds(check, 16)
    claim.twin("one layer an iteration", check, 8)


@pytest.mark.claim(38)
def test_shapes_of_the_readout(claim):
    """Ko H with H of shape D x N, for the built matrices."""

    def check(columns):
        off = 0
        for case in cases(claim.rng, 5):
            em = network()
            (N, d), K = case.X.shape, case.init.n_components
            pooling = em.pooling(d, K, N)
            off += pooling.Ko.shape != (d + K, columns(em.layout.width, N))
            off += pooling.Vo.shape != (d + K, columns(em.layout.width, N))
            off += pooling.Qo.shape != (d + K, K)
        return Found(off, 0, 15)

    claim.holds(check, lambda D, N: D)
    claim.printed("(d + K) x N", check, lambda D, N: N)


@pytest.mark.claim(38)
def test_linear_pooling_where_k_divides(claim):
    """o_k = (K/N) sum over the N/K tokens of component k; with the matrices of the linear readout."""

    def check(divides):
        worst = 0.0
        for case in cases(claim.rng, 5, divides=divides):
            em = network(pooling_kind="linear")
            (N, d), K = case.X.shape, case.init.n_components
            H = em.transformer(1)(em.encode(case.X, case.init))
            O = em.pool(H, em.pooling(d, K, N - N % K))
            want = network().readout(H, d, K)
            worst = max(worst, gap(O[K:].T, want.means))
        return Found(worst, 1e-9, 5)

    claim.holds(check, True)
    claim.printed("any N", check, False)


@pytest.mark.claim(39)
def test_one_backbone_and_many_readouts(claim):
    """The same network read out for the problem's own (d, K), or for another K."""
    em = network()

    def check(change):
        worst = 0.0
        for K in (2, 3, 3, 2):
            (case,) = cases(claim.rng, 1, K=K)
            d = case.X.shape[1]
            H = em.transformer(1)(em.encode(case.X, case.init))
            found = em.readout(H, d, K + change)
            want = em_step(case.X, case.init)
            first = slice(None) if change == 0 else slice(K)
            off = gap(found.means[first], want.means) + abs(found.weights.sum() - 1)
            off += 0 if change == 0 else float(np.abs(found.means[K:]).min())
            worst = max(worst, off)
        return Found(worst, 0.1, 4)

    claim.holds(check, 0)
    claim.twin("readout for one component more", check, 1)


@pytest.mark.claim(40)
def test_constants_in_c_cancel(claim):
    """The E-layer on tokens with c shifted; phi(0) of the square is not 0."""

    def check(shift):
        em, worst = network(), 0.0
        for case in cases(claim.rng, 5):
            K = case.init.n_components
            square = em.approximations[2]
            phi = float(square(np.zeros(1))[0]) + square.dropped
            H = em.encode(case.X, case.init)
            moved = H.copy()
            component = np.arange(len(H)) % K
            em.layout.read(moved, "c")[:, 0] += (em.d0 - 1) * (phi + 1) * shift(component)
            first = Transformer(em.layers(1)[:1])
            worst = max(worst, gap(*(em.layout.read(first(tokens), "log_w") for tokens in (H, moved))))
        return Found(worst, 1e-9, 5)

    claim.holds(check, lambda k: np.ones(len(k)))
    claim.twin("another constant for each component", check, lambda k: k.astype(float))
