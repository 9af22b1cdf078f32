"""Broken twins of the diagonal construction: one mistake each, over the shipped builder."""

from __future__ import annotations

import numpy as np

from constructions.diagonal import DiagonalEMTransformer
from constructions.diagonal_layers import diagonal_parts
from constructions.residual import apply, clean, head, share


def broken(em: DiagonalEMTransformer, mistake: str) -> DiagonalEMTransformer:
    s, (d0, K0) = em.layout, (em.d0, em.K0)
    parts = diagonal_parts(s, *em.approximations, em.silence)
    weights, residuals, variances = parts.start_units
    log_w = parts.e_units[0]
    x, e, one, te, g = (s[name] for name in ("x", "e", "one", "te", "g"))
    precision, log_v = em.approximations.of_variance
    quiet = em.silence * (e.sum() - one)
    slots = ("log_pi", "pi", "mu", "r2", "v", "te", "g")

    def scored_by(*key):
        query = [s["r2"], s["log_pi"], one, one]
        return {"e_heads": [head(s, query=query, key=list(key), value={"w": e})]}

    def averaged_by(key):
        heads = [head(s, query=[one], key=[key[k]], value={"mu": x.at(k, K0)}) for k in range(K0)]
        return {"mean_heads": [*heads, parts.mean_heads[-1]]}

    def made_of_variances(units):
        return {"start_units": [weights, residuals, units], "variance_units": [units, clean(s, "log_w")]}

    def squared_by(units):
        return {
            "start_units": [weights, units, variances],
            "mean_units": [weights, units, clean(s, "w")],
        }

    own = e.repeat(d0)
    to_precision = apply(s, precision, read="v", write="te", one=own)
    ungated = share(
        apply(s, precision, read="v", write="te"),
        apply(s, log_v, read="v", write=-g / 2),
    )
    doubled_log = share(to_precision, apply(s, log_v, read="v", write=-g, one=own))
    square = em.approximations.square
    changes = {
        "sign of the precisions": scored_by(te / 2, e, g, quiet),
        "precisions without their half": scored_by(-te, e, g, quiet),
        "no volume": scored_by(-te / 2, e, 0 * g, quiet),
        "no log weights": scored_by(-te / 2, 0 * e, g, quiet),
        "tokens without a component speak": scored_by(-te / 2, e, g, 0 * quiet),
        "volume without its half": made_of_variances(doubled_log),
        "no gate": made_of_variances(ungated),
        "square a tenth too large": squared_by(
            apply(s, square, read=x.tile(K0) - s["mu"], write=1.1 * s["r2"])
        ),
        "square of the sample": squared_by(apply(s, square, read=x.tile(K0), write="r2")),
        "square on one side only": squared_by(_one_sided(residuals, s.read(residuals.W1, "x"))),
        "a mean head removed": {"mean_heads": parts.mean_heads[1:]},
        "weight head removed": {"mean_heads": parts.mean_heads[:-1]},
        "means weighed by w": averaged_by(s["w"]),
        "old means in the variances": {
            "e_units": [log_w, clean(s, *(slot for slot in slots if slot != "r2"))],
            "mean_units": [weights, clean(s, "w")],
        },
        "variances weighed by w": {
            "mean_units": [weights, residuals],
            "variance_heads": [head(s, query=[e], key=[s["w"]], value={"v": s["r2"]})],
        },
        "responsibilities not cleaned": {"mean_units": [weights, residuals]},
        "log responsibilities not cleaned": {"variance_units": [variances]},
        "log weights not written": {"mean_units": [residuals, clean(s, "w")]},
        "precisions not written": {"variance_units": [clean(s, "log_w")]},
    }
    for slot in slots:
        kept = [name for name in slots if name != slot]
        changes[f"{slot} not cleaned"] = {"e_units": [log_w, clean(s, *kept)]}
    return em.with_program(parts._replace(**changes[mistake]).program())


def _one_sided(units, of_x):
    return units._replace(W2=units.W2 * (of_x.sum(axis=1) < 0))


STEP_MISTAKES = [
    "sign of the precisions", "precisions without their half", "no volume", "no log weights",
    "tokens without a component speak", "volume without its half", "no gate", "square a tenth too large",
    "square of the sample", "square on one side only", "a mean head removed", "weight head removed",
    "means weighed by w", "old means in the variances", "variances weighed by w",
    "pi not cleaned", "mu not cleaned", "r2 not cleaned", "v not cleaned",
]  # fmt: skip
"""Mistakes that show in the first iteration."""

LOOP_MISTAKES = ["log_pi not cleaned", "te not cleaned", "g not cleaned", "responsibilities not cleaned",
                 "log responsibilities not cleaned", "log weights not written",
                 "precisions not written"]  # fmt: skip
"""Mistakes that show from the second iteration on."""


def corrupt(em: DiagonalEMTransformer, mistake: str, H: np.ndarray, K: int) -> np.ndarray:
    """Tokens with a mistake in the encoding."""
    s, H = em.layout, H.copy()
    if mistake == "every token stands for a component":
        s.put(H[K:], "e", np.eye(em.K0)[0])
    elif mistake == "scales for variances":
        s.put(H, "v", np.sqrt(s.read(H, "v")))
    return H


ENCODING_MISTAKES = ["every token stands for a component", "scales for variances"]
