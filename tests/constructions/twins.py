"""Broken twins of the EM construction: one mistake each, over the shipped builder.

`broken(em, name)` is `em` with that mistake in its weights, `corrupt(em, name, H)` the tokens with a
mistake in the encoding.  Every twin must turn red the test that is there for it.
"""

from __future__ import annotations

import numpy as np

from constructions import EMTransformer
from constructions.em_layers import em_parts
from constructions.residual import clean, head


def broken(em: EMTransformer, mistake: str) -> EMTransformer:
    s = em.layout
    parts = em_parts(s, *em.approximations)
    query, value = [s["x"], s["log_pi"], s["one"]], {"w": s["e"]}
    norm = -s["c"] / 2 - s["log_n"]
    e_heads = {
        "printed E-step sign": [-s["mu"], s["e"], -1 * norm],
        "c without its half": [s["mu"], s["e"], norm - s["c"] / 2],
        "c with a tenth too much": [s["mu"], s["e"], norm - s["c"] / 20],
        "no count correction": [s["mu"], s["e"], norm + s["log_n"]],
        "no log weights": [s["mu"], 0 * s["e"], norm],
    }
    e_units, m_units = list(parts.e_units), list(parts.m_units)
    changes = {
        name: {"e_heads": [head(s, query=query, key=key, value=value)]} for name, key in e_heads.items()
    }
    changes |= {
        "weight head removed": {"m_heads": parts.m_heads[:1]},
        "mean head removed": {"m_heads": parts.m_heads[1:]},
        "mean head weighs by w": {
            "m_heads": [head(s, query=[s["e"]], key=[s["w"]], value={"mu": s["x"]}), parts.m_heads[1]]
        },
        "roles of query and key swapped": {
            "m_heads": [head(s, query=[s["log_w"]], key=[s["e"]], value={"mu": s["x"]}), parts.m_heads[1]]
        },
        "means not cleaned": {"e_units": [e_units[0], clean(s, "log_pi", "c")]},
        "log weights not cleaned": {"e_units": [e_units[0], clean(s, "mu", "c")]},
        "norms not cleaned": {"e_units": [e_units[0], clean(s, "log_pi", "mu")]},
        "responsibilities not cleaned": {"m_units": [*m_units[:2], clean(s, "log_w", "pi")]},
        "log responsibilities not cleaned": {"m_units": [*m_units[:2], clean(s, "w", "pi")]},
        "old weights not cleaned": {"m_units": [*m_units[:2], clean(s, "w", "log_w")]},
        "norms not written": {"m_units": [m_units[0], m_units[2]]},
        "log weights not written": {"m_units": m_units[1:]},
    }
    return em.with_program(parts._replace(**changes[mistake]).program())


STEP_MISTAKES = ["printed E-step sign", "c without its half", "c with a tenth too much",
                 "no count correction", "no log weights", "weight head removed", "mean head removed",
                 "mean head weighs by w", "roles of query and key swapped",
                 "means not cleaned"]  # fmt: skip
"""Mistakes that show in the first iteration."""

LOOP_MISTAKES = ["log weights not cleaned", "norms not cleaned", "responsibilities not cleaned",
                 "log responsibilities not cleaned", "old weights not cleaned", "norms not written",
                 "log weights not written"]  # fmt: skip
"""Mistakes that show from the second iteration on."""


def corrupt(em: EMTransformer, mistake: str, H: np.ndarray, K: int) -> np.ndarray:
    """Tokens with a mistake in the encoding."""
    s, H = em.layout, H.copy()
    index = np.arange(len(H))
    if mistake == "phantom components":  # e_{i % K0}: padding components get tokens, log pi = 0
        s.put(H, "e", np.eye(em.K0)[index % em.K0])
        for name in ("mu", "c"):
            s.read(H, name)[index % em.K0 >= K] = 0
    elif mistake == "index from K instead of 1":  # e_{i % K} with i % K = 0 read as no component
        s.read(H, "e")[index % K == K - 1] = 0
    return H


ENCODING_MISTAKES = ["phantom components", "index from K instead of 1"]
