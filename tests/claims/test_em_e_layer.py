"""Claims 28-33: the E-layer."""

import math

import numpy as np
import pytest

from constructions import Transformer
from tests import naive
from tests.claims.em_problems import cases, network, responsibilities
from tests.claims.evidence import Found
from tests.compare import gap
from tests.constructions.twins import broken

pytestmark = pytest.mark.filterwarnings("ignore:.*leaves the bound")  # twins and overlapping mixtures do


@pytest.mark.claim(28)
def test_the_attention_is_the_e_step(claim):
    """Against the posterior; the attention by the naive loop over Definition 1, too."""

    def check(em):
        worst = 0.0
        for case in cases(claim.rng, 6):
            want, K = case.init.responsibilities(case.X), case.init.n_components
            H = em.encode(case.X, case.init)
            loop = np.array(naive.attention(em.transformer(1).matrices()[0], list(H)))
            worst = max(worst, gap(responsibilities(em, case), want))
            worst = max(worst, gap(em.layout.read(loop, "w")[:, :K], want))
        return Found(worst, 1e-11, 12)

    claim.holds(check, network())
    claim.printed("key [-mu; e; +c/2]", check, broken(network(), "printed E-step sign"))
    claim.twin("c without its half", check, broken(network(), "c without its half"))
    claim.twin("no log weights", check, broken(network(), "no log weights"))


@pytest.mark.claim(29)
def test_the_normaliser(claim):
    """sum over tokens j of e^score = B sum over components, with the scores of the built head."""

    def check(factor):
        worst = 0.0
        for case in cases(claim.rng, 5, divides=True):
            em = network(remainder="drop")
            (head,) = em.layers(1)[0].heads
            H, K = em.encode(case.X, case.init), case.init.n_components
            weights = np.exp((H @ head.Q.T) @ (H @ head.K.T).T)
            sums = weights.sum(axis=1), weights[:, :K].sum(axis=1)
            worst = max(worst, np.abs(sums[0] / sums[1] / factor(len(H), K) - 1).max())
        return Found(worst, 1e-12, 5)

    claim.holds(check, lambda N, K: N / K)
    claim.twin("B = N", check, lambda N, K: N)


@pytest.mark.claim(30)
def test_numbers_of_heads(claim):
    def check(em):
        off = [count - want for count, want in zip(em.sizes(3).heads_per_layer, (1, 2) * 3, strict=True)]
        return Found(np.abs(off).max(), 0, 6)

    claim.holds(check, network())
    claim.holds(check, network(remainder="drop"))
    claim.twin("a head of the M-layer removed", check, broken(network(), "weight head removed"))


@pytest.mark.claim(31)
def test_rows_of_the_value_matrices(claim):
    """Rows of V that are not zero in the (D, D) matrices of the network, from the displays' offsets."""

    def check(shift):
        em = network(remainder="drop")
        d0, K0, D = em.d0, em.K0, em.layout.width
        e_layer, m_layer = em.transformer(1).matrices()
        want = [
            (e_layer["V"][0], range(2 * d0 + K0 + 1, 2 * d0 + 2 * K0 + 1)),
            (m_layer["V"][0], range(d0 + K0, 2 * d0 + K0)),
            (m_layer["V"][1], range(2 * d0 + 3 * K0 + 1, 2 * d0 + 4 * K0 + 1)),
        ]
        off = 0
        for V, rows in want:
            assert V.shape == (D, D)
            off += list(np.flatnonzero(V.any(axis=1))) != [row + shift for row in rows]
        return Found(off, 0, 3)

    claim.holds(check, 0)
    claim.twin("one row further", check, 1)


@pytest.mark.claim(32)
def test_the_mlp_writes_logs_and_cleans(claim):
    def check(em):
        worst, count = 0.0, 0
        log_w = em.approximations[0]
        for case in cases(claim.rng, 4):
            trace = em.run(case.X, case.init, 1, mode="dense", trace=True).trace
            worst = max(worst, *(np.abs(trace[1, name]).max() for name in ("log_pi", "mu", "c")))
            written = log_w(trace.at(1, "w", "attention"))
            worst = max(worst, gap(trace[1, "log_w"], written) / 1e6)  # rounding of the sum of units
            count += 1
        units = em.K0 * log_w.units + 2 * (em.K0 + em.d0 + 1)
        return Found(max(worst, abs(em.sizes(1).hidden_per_layer[0] - units)), 1e-15, count)

    claim.holds(check, network())
    claim.twin("means not cleaned", check, broken(network(), "means not cleaned"))
    claim.twin("norms not cleaned", check, broken(network(), "norms not cleaned"))


@pytest.mark.claim(33)
def test_logs_of_padded_components_are_finite_and_not_read(claim):
    """Other numbers in the padded slots of w_log change nothing; in a slot that is used they do."""

    def check(padded):
        em, worst = network(), 0.0
        for case in cases(claim.rng, 4, K=2):
            trace = em.run(case.X, case.init, 1, mode="dense", trace=True).trace
            H, K = trace.state(1), case.init.n_components
            last = Transformer(em.layers(1)[1:])
            changed = H.copy()
            em.layout.read(changed, "log_w")[:, K:] = 7.0
            if not padded:
                em.layout.read(changed, "log_w")[::2, 0] += 1.0
            d = case.X.shape[1]
            one, other = (em.readout(last(tokens), d, K) for tokens in (H, changed))
            worst = max(worst, gap(one.means, other.means))
        return Found(worst, 1e-12, 4)

    claim.holds(check, True)
    claim.twin("a slot that is read", check, False)


@pytest.mark.claim(33)
def test_the_log_of_zero(claim):
    """f(0) of the interpolating approximation with n pieces of log-length h = log A / n, extended to 0 in a
    straight line: -log A - h / (e^h - 1); the built one's up to its shift."""

    def check(tail):
        worst = 0.0
        for log_A, pieces in ((10.0, 40), (20.0, 100), (200.0, 400)):
            h = log_A / pieces
            b = np.exp(-log_A + h * np.arange(pieces + 1))
            s = np.diff(np.log(b)) / np.diff(b)
            at_zero = -log_A - s[0] * b[0]
            worst = max(worst, abs(at_zero - tail(log_A, h)))
        value = float(network().approximations[0](np.zeros(1))[0])
        log_A, f = network().range_log, network().approximations[0]
        h = log_A / f.units
        return Found(max(worst, abs(value + f.dropped - tail(log_A, h)) / 100), 1e-2, 4)

    claim.holds(check, lambda log_A, h: -log_A - h / math.expm1(h))
    claim.twin("without the last piece's slope", check, lambda log_A, h: -log_A)
