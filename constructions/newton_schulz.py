"""Scaled Newton-Schulz iteration: x <- 1.5 a x - 0.5 a^3 x^3 drives [l, 1] to 1 with fixed numbers a.

Lemma.  Let 0 < l <= 1 and a^2 = 3 / (1 + l + l^2).  Then p(x) = 1.5 a x - 0.5 a^3 x^3 maps [l, 1] into
[p(l), 1], p(l) = p(1), and
    p(l) / l = (3 sqrt(3) / 2) (1 + l) (1 + l + l^2)^(-3/2) >= 1.683 for l <= 1/2,
    1 - p(l) <= 1.5 (1 - l)^2.
Proof.  a was chosen so that p(l) = p(1): p(1) - p(l) = (1 - l)(1.5 a - 0.5 a^3 (1 + l + l^2)) = 0.  p rises
up to x = 1/a and falls after it, p(1/a) = 1, and l <= 1/a <= 1; so its least value on [l, 1] is at the
ends.  The ratio is 1.5 a - 0.5 a^3 l^2 with a put in; it falls with l, to 1.683 at 1/2.  As a >= 1 and
al <= 1, p(l) >= 1.5 l - 0.5 l^3 (x -> 1.5 x - 0.5 x^3 rises on [0, 1] and al >= l), whose distance to 1 is
(1 - l)^2 (2 + l) / 2 <= 1.5 (1 - l)^2.  QED

So about log(1 / l) / log(1.683) steps bring l to 1/2, and log2 log(1 / eps) more bring 1 - l below eps.
"""

from __future__ import annotations

import math


def schedule(low: float, eps: float) -> list[float]:
    """The a of each step until all of [low, 1] is within `eps` of 1; at least one step.

    ValueError unless 0 < low <= 1 and 0 < eps < 1.
    """
    if not (0 < low <= 1 and 0 < eps < 1):
        raise ValueError(f"need 0 < low <= 1 and 0 < eps < 1, got {low:g} and {eps:g}")
    steps: list[float] = []
    while not steps or 1 - low > eps:
        a = math.sqrt(3 / (1 + low + low * low))
        low = min(1.0, 1.5 * a * low - 0.5 * (a * low) ** 3)
        steps.append(a)
    return steps
