"""EM for Gaussian mixtures with diagonal covariances as a softmax transformer: the layers.

Statement.  For sizes d0, K0, bounds met and eps > 0 there are a layer 0 and three layers E, M1, M2 such
that, for every d <= d0, K <= K0, N >= K and every sample X_1..X_N in R^d, layer 0 and then E, M1, M2
run L times carry out L steps of EM for the mixture sum_k pi_k N(mu_k, diag(v_k)), variances clipped to
[scale_min^2, scale_max^2] in the E-step, up to piecewise-linear approximation (`diagonal_bounds`).

| symbol              | name     | size  | the token of sample i holds                              |
|---------------------|----------|-------|----------------------------------------------------------|
| X_i                 | `x`      | d0    | the sample                                               |
| log pi              | `log_pi` | K0    | log of all weights                                       |
| w_i                 | `w`      | K0    | responsibilities of sample i                             |
| log w_i             | `log_w`  | K0    | their logs                                               |
| pi                  | `pi`     | K0    | all weights                                              |
| e_i                 | `e`      | K0    | the i-th unit vector for i <= K ("key tokens"), else 0   |
| 1                   | `one`    | 1     | 1, which carries the biases                              |
| mu_kj               | `mu`     | K0 d0 | all means, (k, j) at k d0 + j                            |
| (X_ij - mu_kj)^2    | `r2`     | K0 d0 | squared residuals to all means                           |
| v_kj                | `v`      | K0 d0 | on key token k in block k: variances of component k      |
| t_kj = 1 / v_kj     | `te`     | K0 d0 | on key token k in block k, else 0: precisions            |
| -sum_j log(v_kj) / 2| `g`      | 1     | on key token k, else 0                                   |

E.  The score of key token k for token i is
    sum_j -(t_kj / 2) r2_ikj + log pi_k + g_k,
a product of the query's r2 and the key's precisions, so no three-way product is ever formed in an
MLP.  Tokens without a component score -B, below all others by a margin, and get no weight; on key
tokens the entry -B (1 - sum e) of the key is exactly 0.  The value e_k collects w_ik.  The MLP writes log w
and cleans log_pi, pi, mu, r2, v, te, g.

M1.  Head k <= K0, query 1, key log w_k, value x, attends with weights w_ik / sum_i w_ik: every token gets
every new mean.  One more head averages w: the new pi.  The MLP writes log pi and the square of x - mu, a
pre-activation by now, and cleans w.

M2.  Query e, key log w, value r2: key token k gets sum_i p_ik r2_i, the new variances, in block k.
(The other blocks hold cross moments; tokens without a component hold plain averages.  Nobody reads them.)
The MLP writes t and g and cleans log_w.  Both come from the same units relu(b_j e_k - v_kj): for
e_k = 1 they are functions of v_kj, for e_k = 0 they are 0, as v >= 0.

Layer 0 has no head.  Its MLP makes log pi, r2, t and g of the encoded pi, mu and v.

mu, pi and v stay until the next E-layer cleans them, so the end of any iteration can be read out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from constructions.construction import Program
from constructions.residual import Layout, ReluSum, Units, apply, clean, head, layer, share
from constructions.weights import Head


def diagonal_layout(d0: int, K0: int) -> Layout:
    """The residual stream: D = 4 K0 d0 + d0 + 5 K0 + 2."""
    small = [("x", d0), ("log_pi", K0), ("w", K0), ("log_w", K0), ("pi", K0), ("e", K0), ("one", 1)]
    return Layout([*small, *((name, K0 * d0) for name in ("mu", "r2", "v", "te")), ("g", 1)])


class DiagonalParts(NamedTuple):
    """Heads and hidden units of the layers 0, E, M1 and M2."""

    start_units: Sequence[Units]
    e_heads: Sequence[Head]
    e_units: Sequence[Units]
    mean_heads: Sequence[Head]
    mean_units: Sequence[Units]
    variance_heads: Sequence[Head]
    variance_units: Sequence[Units]

    def program(self) -> Program:
        """The layers: 0, then E, M1, M2 in every iteration."""
        step = (
            layer("softmax", self.e_heads, *self.e_units),
            layer("softmax", self.mean_heads, *self.mean_units),
            layer("softmax", self.variance_heads, *self.variance_units),
        )
        return Program((layer("softmax", (), *self.start_units),), step, step)


def diagonal_parts(
    stream: Layout,
    log_w: ReluSum,
    log_pi: ReluSum,
    square: ReluSum,
    of_variance: Sequence[ReluSum],
    silence: float,
) -> DiagonalParts:
    """The construction itself, for any approximations; `of_variance`: 1/v and log v; `silence`: B."""
    precision, log_v = of_variance
    d0, K0 = stream.sizes["x"], stream.sizes["e"]
    x, e, one = stream["x"], stream["e"], stream["one"]
    own = e.repeat(d0)
    weights = apply(stream, log_pi, read="pi", write="log_pi")
    residuals = apply(stream, square, read=x.tile(K0) - stream["mu"], write="r2")
    variances = share(
        apply(stream, precision, read="v", write="te", one=own),
        apply(stream, log_v, read="v", write=-stream["g"] / 2, one=own),
    )
    return DiagonalParts(
        start_units=[weights, residuals, variances],
        e_heads=[
            head(
                stream,
                query=[stream["r2"], stream["log_pi"], one, one],
                key=[-stream["te"] / 2, e, stream["g"], silence * (e.sum() - one)],
                value={"w": e},
            )
        ],
        e_units=[
            apply(stream, log_w, read="w", write="log_w"),
            clean(stream, "log_pi", "pi", "mu", "r2", "v", "te", "g"),
        ],
        mean_heads=[
            *(
                head(stream, query=[one], key=[stream["log_w"][k]], value={"mu": x.at(k, K0)})
                for k in range(K0)
            ),
            head(stream, query=[], key=[], value={"pi": stream["w"]}),
        ],
        mean_units=[weights, residuals, clean(stream, "w")],
        variance_heads=[head(stream, query=[e], key=[stream["log_w"]], value={"v": stream["r2"]})],
        variance_units=[variances, clean(stream, "log_w")],
    )
