"""The whole spectral algorithm (Algorithms A.2 and A.3) as ReLU-attention layers.

Every data token is also workspace.  Token i carries a marker p_i with
    (F)    (1/N) sum_i p_i p_i^T = I / d0.
A d0 x d0 matrix M is *stored* in a block if the block of token i holds M p_i; a vector or scalar is
*replicated* if every token holds it.  `pair(A, B, y=C)` is two heads that add
(1/N) sum_j <A_i, B_j> C_j to block y.

Lemma 1 (from (F), exact).  With blocks A, B, C storing matrices of the same names, u replicated:
 (a) pair(d0 A, B, y=C) stores C B^T A;          (b) pair(d0 u, M, y=p) replicates M^T u;
 (c) pair(d0 x, M, y=p) gives y_i = M^T x_i;     (d) pair(p, x, A=x) stores (1/N) sum_j x_j x_j^T;
 (e) pair(a, b, s=1) gives <a_i, b>, b replicated;   (f) pair(s, t, y=z) gives s t z, all replicated.
Proof.  (1/N) sum_j <d0 A p_i, B p_j> C p_j = d0 C ((1/N) sum_j p_j p_j^T) B^T A p_i = C B^T A p_i; the
identity is stored by p itself; the others are the same line with fewer matrices.  QED

| symbol          | name          | size     | meaning                                                |
|-----------------|---------------|----------|--------------------------------------------------------|
| X_i, p_i        | `x`, `p`      | d0       | the sample, the marker                                 |
| 1, N            | `one`, `count`| 1        |                                                        |
| code of i       | `code`        | bits     | +-1 digits of i, for selecting a token's own value     |
| M1              | `m1`          | d0       | mean, replicated                                       |
| M2              | `A`           | d0       | stored; padding coordinates get the eigenvalue -1      |
| S, P            | `S`, `P`      | d0       | matrix sign of M2 - tau, projector on its positive part|
| B, W            | `Y`, `Z`      | d0       | U D^{1/2} U^T and U D^{-1/2} U^T, stored               |
| W X_i, W M1     | `xt`, `mt`    | d0       | whitened sample and mean                               |
| W W^T           | `G`           | d0       | covariance of the whitened noise, stored               |
| v, T(I,v,v)     | `v0`, `y0`    | d0       | iterate and step of restart 0 (1, 2, ...)              |
| v_k, B v_k, mu_k| `V0`, `bv0`, `mu0` | d0  | component 0 (1, 2, ...), replicated                    |
| lambda_k, pi_k  | `lam`, `pi`   | K0       | eigenvalues and weights, replicated                    |

Stages.
`moments`   A <- M2 = (1/N) sum x x^T - I, S <- (M2 - tau) / s with s such that |S| <= 1.
`sign`      S <- 1.5 a S - 0.5 a^3 S^3, a from `newton_schulz`; then P = (I + S) / 2.
`project`   Y <- P A P / sigma_max, Z <- P.
`root`      Y <- 1.5 a Y - 0.5 a^3 Y Z Y, Z <- 1.5 a Z - 0.5 a^3 Z Y Z: Y / Z stays, Y Z -> projector.
`whiten`    xt, mt, G.
then for each component k, `start` v = P g; `power` steps
    v <- f2(|v|^2) T_k(I, v, v),
    T_k(I, v, v) = (1/N) sum_j <v, xt_j>^2 xt_j - (v . G v) mt - 2 (mt . v) G v
                   - sum_{q<k} lambda_q (v . v_q)^2 v_q,
three layers each: the tensor is never formed.  f2 is a crude piecewise-linear 1/x: T is homogeneous, so
any positive factor keeps the direction exactly, and |v| stays between bounds.  `normalise` brings |v| to
1 by Newton-Schulz on the norm.  With several restarts, T(v, v, v) and a `tournament`.  `value`
lambda_k = T_k(v, v, v).  Finally `recover`: pi_k = lambda_k^-2 (Newton's reciprocal), mu_k = lambda_k B v_k.

The square <v, xt_j>^2 of a token's own number c_j is the one step on data that is not linear.
"select": score sg c_i - (C/2)(bits - <code_i, code_j>) is sg c_i for j = i and at most |c_i| - C <= 0
otherwise, so two heads with value sg c_j, sg = +-1, give c_i^2 / N exactly.  "teeth": with u = |c| / C,
x^2 = x - sum_s g_s(x) / 4^s for the s-fold tent map g_s; m teeth err by C^2 4^{-m-1} and need no N.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from constructions.newton_schulz import schedule
from constructions.residual import Layout, Linear, Units, add, apply, clean, head, layer, sign_pair
from constructions.spectral_bounds import SpectralBounds
from constructions.spectral_units import balanced, clipped, magnitude, tooth
from constructions.weights import Array, Head, Layer


class Step(NamedTuple):
    """One layer of the network, the stage that it belongs to, and the component, if it is of one."""

    stage: str
    component: int | None
    layer: Layer


class SpectralLayers:
    """Writes the layers for given sizes, bounds and start directions (K0, R, d0)."""

    def __init__(self, bounds: SpectralBounds, starts: Array) -> None:
        self.bounds, self.starts = bounds, starts
        self.K0, self.R, self.d0 = starts.shape
        self.stream = s = spectral_layout(bounds, self.K0, self.R, self.d0)
        self.one, self.p = s["one"], s["p"]
        self._made: dict[tuple[str, int, int], list[Layer]] = {}

    def steps(self) -> list[Step]:
        """All layers in order."""
        b = self.bounds
        out = [Step(stage, None, made) for stage, made in self._matrix_layers()]
        for k in range(self.K0):
            every, first = range(self.R), range(1)
            parts: list[tuple[str, Iterable[Layer]]] = [("start", self._start(k))]
            parts += [("power", self._power(k, every))] * b.n_power
            if self.R > 1:
                parts += [("normalise", self._normalise(every)), ("scores", self._values(k, every))]
                parts += [("tournament", self._tournament())]
            parts += [("power", self._power(k, first))] * b.n_polish
            parts += [("normalise", self._normalise(first)), ("value", self._values(k, first))]
            parts += [("eigenpair", self._eigenpair(k))]
            out += [Step(stage, k, made) for stage, layers in parts for made in layers]
        return out + [Step(stage, None, made) for stage, made in self._recovery()]

    # ---- heads

    def _pair(self, query: Linear, key: Linear, **value: Linear) -> list[Head]:
        return sign_pair(head(self.stream, query=[query], key=[key], value=value))

    def _single(self, query: Linear, key: Linear, **value: Linear) -> list[Head]:
        """For scores that are never negative."""
        return [head(self.stream, query=[query], key=[key], value=value)]

    # ---- moments to whitened data

    def _matrix_layers(self) -> Iterable[tuple[str, Layer]]:
        s, b, d0, p, one = self.stream, self.bounds, self.d0, self.p, self.one
        scale = b.sign_scale
        heads = [*self._single(one, one, m1=s["x"]), *self._pair(p, s["x"], A=s["x"])]
        yield "moments", layer("relu", heads, add(s, A=-p, S=(s["A"] - (1 + b.tau) * p) / scale))
        signs = schedule(b.gap / scale, b.eps)
        for t, a in enumerate(signs, start=1):
            heads = self._pair(d0 * s["S"], s["S"], S=-(a * a / 3) * s["S"])
            changes = {"S": (1.5 * a - 1) * s["S"]}
            if t == len(signs):
                changes["P"] = (p + 1.5 * a * s["S"]) / 2
            yield "sign", layer("relu", heads, add(s, **changes))
        heads = self._pair(d0 * s["P"], s["A"], Y=s["P"])
        yield "project", layer("relu", heads, add(s, Y=(1 / b.sigma_max - 1) * s["Y"], Z=s["P"]))
        roots = schedule((b.sigma_min / b.sigma_max) ** 0.5, b.eps)
        for t, a in enumerate(roots, start=1):
            heads = [
                *self._pair(d0 * s["Y"], s["Z"], Y=-(a * a / 3) * s["Y"]),
                *self._pair(d0 * s["Z"], s["Y"], Z=-(a * a / 3) * s["Z"]),
            ]
            last = b.sigma_max**0.5 if t == len(roots) else 1.0
            mlp = add(s, Y=(1.5 * a * last - 1) * s["Y"], Z=(1.5 * a / last - 1) * s["Z"])
            yield "root", layer("relu", heads, mlp)
        heads = [
            *self._pair(d0 * s["x"], s["Z"], xt=p),
            *self._pair(d0 * s["m1"], s["Z"], mt=p),
            *self._pair(d0 * s["Z"], p, G=s["Z"]),
        ]
        yield "whiten", layer("relu", heads)

    # ---- one component

    def _start(self, k: int) -> list[Layer]:
        s, heads = self.stream, []
        for r, g in enumerate(self.starts[k]):
            heads += self._pair(self.one.along(self.d0 * g), s["P"], **{f"v{r}": self.p})
        return [layer("relu", heads)]

    def _power(self, k: int, restarts: range) -> list[Layer]:
        """v <- f2(|v|^2) T_k(I, v, v)."""
        s = self.stream
        steps = {f"v{r}": s[f"y{r}"] - s[f"v{r}"] for r in restarts}
        scratch = [f"{name}{r}" for r in restarts for name in self._scratch]
        done = [add(s, **steps), clean(s, *scratch, *(f"y{r}" for r in restarts))]
        return self._evaluation(k, restarts, True, done)

    def _values(self, k: int, restarts: range) -> list[Layer]:
        """t = T_k(v, v, v) for |v| = 1."""
        s = self.stream
        scratch = [f"{name}{r}" for r in restarts for name in self._scratch]
        layers = self._evaluation(k, restarts, False, [clean(s, *scratch)])
        heads = [h for r in restarts for h in self._pair(s[f"v{r}"], s[f"y{r}"], **{f"t{r}": self.one})]
        units = [clean(s, *(f"y{r}" for r in restarts))]
        if len(restarts) > 1:
            units += self._challenges(range(self.R))
        return [*layers, layer("relu", heads, *units)]

    @property
    def _scratch(self) -> list[str]:
        teeth = ["u"] if self.bounds.square == "teeth" else []
        return ["c", "c2", "mv", "mvf", "vgv", "f", "nf", "gv", "a", "b", *teeth]

    def _evaluation(self, k: int, restarts: range, scaled: bool, done: list[Units]) -> list[Layer]:
        """y = f T_k(I, v, v), with f = f2(|v|^2) if `scaled`, else 1; tied where it recurs."""
        key = ("scaled" if scaled else "plain", k, len(restarts))
        if key not in self._made:
            first, *squares = self._square_layers(k, restarts, scaled)
            heads = [h for r in restarts for h in self._sum_heads(k, r)]
            self._made[key] = [first, *squares, layer("relu", heads, *done)]
        return self._made[key]

    def _square_layers(self, k: int, restarts: range, scaled: bool) -> list[Layer]:
        s, b = self.stream, self.bounds
        products: list[Head] = []
        squares: list[Head] = []
        before: list[Units] = []
        teeth: list[list[Units]] = [[] for _ in range(b.n_teeth)]
        for r in restarts:
            v, f = s[f"v{r}"], s[f"f{r}"]
            products += self._product_heads(k, r, scaled)
            if scaled:
                inverse = apply(s, b.reciprocal, read=f"s{r}", write=f"f{r}")
                before += [balanced(inverse), clean(s, f"s{r}")]
            else:
                before.append(add(s, **{f"f{r}": self.one}))
            squares += self._pair(v, s[f"gv{r}"], **{f"vgv{r}": f})
            squares += self._pair(s[f"mv{r}"], self.one, **{f"mvf{r}": f})
            for q in range(k):
                squares += self._pair(s["lam"][q], s[f"a{r}"][q], **{f"b{r}": f.at(q, self.K0)})
            if b.square == "select":
                squares += self._single(s["count"], f, **{f"nf{r}": self.one})
                squares += self._select(r)
            else:
                squares += self._single(self.one, f, **{f"nf{r}": self.one})
                before.append(magnitude(s, f"c{r}", f"u{r}", f"c2{r}", b.c_max))
                for m, units in enumerate(teeth, start=1):
                    units.append(tooth(s, f"u{r}", f"c2{r}", b.c_max**2 / 4**m))
        layers = [layer("relu", products, *before), layer("relu", squares, *(teeth[0] if teeth else []))]
        return layers + [layer("relu", [], *units) for units in teeth[1:]]

    def _product_heads(self, k: int, r: int, scaled: bool) -> list[Head]:
        """c = <xt, v>, gv = G v, mv = <mt, v>, a_q = <V_q, v> and, for f2, s = |v|^2."""
        s, v = self.stream, self.stream[f"v{r}"]
        heads = [
            *self._pair(s["xt"], v, **{f"c{r}": self.one}),
            *self._pair(self.d0 * v, s["G"], **{f"gv{r}": self.p}),
            *self._pair(s["mt"], v, **{f"mv{r}": self.one}),
        ]
        for q in range(k):
            heads += self._pair(s[f"V{q}"], v, **{f"a{r}": self.one.at(q, self.K0)})
        if scaled:
            heads += self._single(v, v, **{f"s{r}": self.one})
        return heads

    def _select(self, r: int) -> list[Head]:
        """c2 = c^2 / N, each token its own."""
        s, C = self.stream, self.bounds.c_max
        c, code, bits = s[f"c{r}"], s["code"], s.sizes["code"]
        return [
            head(
                s,
                query=[sign * c, (C / 2) * code, self.one],
                key=[self.one, code, -(C / 2 * bits) * self.one],
                value={f"c2{r}": sign * c},
            )
            for sign in (1.0, -1.0)
        ]

    def _sum_heads(self, k: int, r: int) -> list[Head]:
        """The four terms of f T_k(I, v, v)."""
        s, y = self.stream, f"y{r}"
        heads = [
            *self._single(s[f"nf{r}"], s[f"c2{r}"], **{y: s["xt"]}),
            *self._pair(s[f"vgv{r}"], self.one, **{y: -s["mt"]}),
            *self._pair(s[f"mvf{r}"], self.one, **{y: -2 * s[f"gv{r}"]}),
        ]
        for q in range(k):
            heads += self._pair(s[f"b{r}"][q], s[f"a{r}"][q], **{y: -s[f"V{q}"]})
        return heads

    def _normalise(self, restarts: range) -> list[Layer]:
        """|v| -> 1; the first step also divides by the largest norm."""
        key = ("normalise", 0, len(restarts))
        if key not in self._made:
            layers = []
            low, high = self.bounds.norms
            for t, a in enumerate(schedule(low / high, self.bounds.eps)):
                a = a / high if t == 0 else a
                heads = []
                for r in restarts:
                    v, name = self.stream[f"v{r}"], f"v{r}"
                    heads += self._single(v, v, **{name: -(a**3 / 2) * v})
                    heads += self._single(self.one, self.one, **{name: (1.5 * a - 1) * v})
                layers.append(layer("relu", heads))
            self._made[key] = layers
        return self._made[key]

    # ---- restarts

    def _challenges(self, players: range) -> list[Units]:
        """g_b = clip((t_b - t_a) / delta, 0, 1) for the pairs of one round: b is `half` after a."""
        s, half = self.stream, (len(players) + 1) // 2
        return [
            clipped(s, (s[f"t{a + half}"] - s[f"t{a}"]) / self.bounds.margin, f"g{a + half}")
            for a in range(len(players) - half)
        ]

    def _tournament(self) -> list[Layer]:
        """The restart with the largest T(v, v, v) into v0, two by two; `_values` sets the first round."""
        key = ("tournament", 0, self.R)
        if key not in self._made:
            s, layers, players = self.stream, [], self.R
            while players > 1:
                half = (players + 1) // 2
                heads: list[Head] = []
                for a in range(players - half):
                    b = a + half
                    swap = {f"{name}{a}": s[f"{name}{b}"] - s[f"{name}{a}"] for name in "vt"}
                    heads += self._single(s[f"g{b}"], self.one, **swap)
                losers = [f"{name}{b}" for b in range(half, players) for name in "gvt"]
                units = [clean(s, *losers)]
                players = half
                # the next round reads the winners' t, which this layer's attention has just written
                units += self._challenges(range(players)) if players > 1 else [clean(s, "t0")]
                layers.append(layer("relu", heads, *units))
            self._made[key] = layers
        return self._made[key]

    def _eigenpair(self, k: int) -> list[Layer]:
        """lambda_k <- t, V_k <- v."""
        s = self.stream
        heads = self._pair(s["t0"], self.one, lam=self.one.at(k, self.K0))
        return [layer("relu", heads, add(s, **{f"V{k}": s["v0"]}), clean(s, "v0", "t0"))]

    # ---- weights and means

    def _recovery(self) -> Iterable[tuple[str, Layer]]:
        s, b, heads = self.stream, self.bounds, []
        low, high = b.squares
        for k in range(self.K0):
            lam = s["lam"][k]
            heads += self._single(lam, lam, lam2=self.one.at(k, self.K0))
            heads += self._pair(self.d0 * s[f"V{k}"], s["Y"], **{f"bv{k}": self.p})
        guess = self.one.along(np.full(self.K0, 2 / (low + high)))
        yield "recover", layer("relu", heads, add(s, pi=guess))
        for t in range(b.reciprocal_steps):
            heads = list(self._single(self.one, self.one, pi=s["pi"]))
            for k in range(self.K0):
                heads += self._pair(s["lam2"][k], s["pi"][k], pi=-s["pi"][k].at(k, self.K0))
                if t == 0:
                    heads += self._pair(s["lam"][k], self.one, **{f"mu{k}": s[f"bv{k}"]})
            yield "reciprocal", layer("relu", heads)
        heads = [
            h for k in range(self.K0) for h in self._pair(self.p[k], self.one, slot=s[f"mu{k}"], pis=s["pi"])
        ]
        yield "slot", layer("relu", heads)


def spectral_layout(bounds: SpectralBounds, K0: int, R: int, d0: int) -> Layout:
    """The residual stream."""
    vectors = ["x", "p", "m1", "A", "S", "P", "Y", "Z", "xt", "mt", "G", "slot"]
    blocks = [(name, d0) for name in vectors] + [("one", 1)]
    teeth = bounds.square == "teeth"
    if not teeth:
        blocks += [("count", 1), ("code", bounds.bits)]
    for r in range(R):
        blocks += [(f"{name}{r}", d0) for name in ("v", "gv", "y")]
        scalars = ["c", "c2", "mv", "mvf", "vgv", "s", "f", "nf", "t", "g"] + ["u"] * teeth
        blocks += [(f"{name}{r}", 1) for name in scalars]
        blocks += [(f"{name}{r}", K0) for name in ("a", "b")]
    blocks += [(f"{name}{k}", d0) for k in range(K0) for name in ("V", "bv", "mu")]
    return Layout([*blocks, *((name, K0) for name in ("lam", "lam2", "pi", "pis"))])
