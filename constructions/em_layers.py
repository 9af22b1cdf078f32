"""EM for unit-variance Gaussian mixtures as a softmax transformer (Theorem C.1, Appendix C.2).

Statement.  For sizes d0, K0, bounds on the means and weights met, and eps > 0 there is one pair of
layers such that, for every d <= d0, K <= K0, N >= K and every sample X_1..X_N in R^d, running the
pair L times on the encoding (7) of X and a start carries out L steps of EM, up to the error of
approximating log and x^2 by ReLUs (`bounds` has the inequality).

| paper        | name     | size | the token of sample i holds, with k = ((i - 1) mod K) + 1 |
|--------------|----------|------|-----------------------------------------------------------|
| X_i          | `x`      | d0   | the sample                                                |
| pi_log       | `log_pi` | K0   | log of all weights                                        |
| mu_{i%K}     | `mu`     | d0   | the mean of component k                                   |
| c_{i%K}      | `c`      | 1    | |mu_k|^2                                                  |
| w_i          | `w`      | K0   | responsibilities of sample i                              |
| w_{i log}    | `log_w`  | K0   | their logs                                                |
| pi           | `pi`     | K0   | all weights                                               |
| --           | `log_n`  | 1    | log n_k, n_k the number of tokens of component k          |
| 1            | `one`    | 1    | 1, which carries the biases                               |
| e_{i%K}      | `e`      | K0   | the k-th unit vector                                      |

E-layer.  The score of token j for token i is x_i . mu_k + log pi_k - c_k / 2 - log n_k, with k the
component of j.  Over the n_k tokens of each component the softmax adds up
    n_k exp(x_i . mu_k + log pi_k - |mu_k|^2/2 - log n_k) = pi_k exp(x_i . mu_k - |mu_k|^2/2),
so that the value e_k gets the weight w_ik in all.  (Printed: K h = [-mu; e; +c/2].)  The MLP writes
log w and cleans log_pi, mu, c.

M-layer.  Head 1, query e_k, key log w, value x, attends with weights w_ik / sum_i w_ik, normalised
over the tokens i that are read: its output is the new mean of component k.  (Printed: normalised
over the reading tokens.)  Head 2 averages w over all tokens.  The MLP writes log pi and |mu|^2 and
cleans w, log_w, pi; in the last layer of a network the units that clean pi write nothing, which
keeps pi for the readout.

The additive constants of the approximate log and square are left out: they are equal for all tokens
or all components, and every use is inside a softmax.

When K divides N all n_k are equal and `log_n` changes nothing; the paper has no such coordinate and
drops the last N mod K samples instead (`remainder="drop"`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from constructions.construction import Program
from constructions.residual import Layout, ReluSum, Units, apply, clean, head, layer
from constructions.weights import Head


def em_layout(d0: int, K0: int, *, counted: bool) -> Layout:
    """The residual stream of equation (7), without its idle coordinates; `counted`: with log_n."""
    counts = [("log_n", 1)] if counted else []
    blocks = [("x", d0), ("log_pi", K0), ("mu", d0), ("c", 1), ("w", K0), ("log_w", K0)]
    return Layout([*blocks, ("pi", K0), *counts, ("one", 1), ("e", K0)])


class EMParts(NamedTuple):
    """Heads and hidden units of the E-layer and of the M-layer; `last_units`: the last M-layer's."""

    e_heads: Sequence[Head]
    e_units: Sequence[Units]
    m_heads: Sequence[Head]
    m_units: Sequence[Units]
    last_units: Sequence[Units]

    def program(self) -> Program:
        """The layers: E, M, E, M, ..., with the last units in the last M."""
        e_layer = layer("softmax", self.e_heads, *self.e_units)
        m_layer = layer("softmax", self.m_heads, *self.m_units)
        last = layer("softmax", self.m_heads, *self.last_units)
        return Program((), (e_layer, m_layer), (e_layer, last))


def em_parts(stream: Layout, log_w: ReluSum, log_pi: ReluSum, square: ReluSum) -> EMParts:
    """The construction itself, for any approximations of log on weights and of x^2."""
    norm = -stream["c"] / 2
    if "log_n" in stream.names:
        norm -= stream["log_n"]
    writes = [
        apply(stream, log_pi, read="pi", write="log_pi"),
        apply(stream, square, read="mu", write="c"),
        clean(stream, "w", "log_w"),
    ]
    clean_pi = clean(stream, "pi")
    return EMParts(
        e_heads=[
            head(
                stream,
                query=[stream["x"], stream["log_pi"], stream["one"]],
                key=[stream["mu"], stream["e"], norm],
                value={"w": stream["e"]},
            )
        ],
        e_units=[
            apply(stream, log_w, read="w", write="log_w"),
            clean(stream, "log_pi", "mu", "c"),
        ],
        m_heads=[
            head(stream, query=[stream["e"]], key=[stream["log_w"]], value={"mu": stream["x"]}),
            head(stream, query=[], key=[], value={"pi": stream["w"]}),
        ],
        m_units=[*writes, clean_pi],
        last_units=[*writes, clean_pi._replace(W2=0 * clean_pi.W2)],
    )
