"""Intervals for what is measured on samples: chances and slopes, at 99.9%."""

import numpy as np
from scipy.stats import beta

from tests.claims.evidence import Found

CONFIDENCE = 0.999


def exceeded(off, bound):
    """Upper end of the Clopper-Pearson interval for the chance that `off` exceeds `bound`."""
    count = int((np.asarray(off) > bound).sum())
    return 1.0 if count == len(off) else float(beta.ppf(CONFIDENCE, count + 1, len(off) - count))


def rate_check(x, found, tolerance, rng):
    """A check of the exponent of `found` (len(x), repeats) in x.

    Fitted is log root mean square against log x; measured is the distance to a rate plus half of the slope's
    bootstrap interval.  (A mean of logarithms would not do: one error that happens to vanish ruins it.)
    """
    squares, at = np.square(found), np.log(x)
    rows, repeats = squares.shape
    drawn = rng.integers(repeats, size=(4000, rows, repeats))
    resampled = squares[np.arange(rows)[:, None], drawn].mean(axis=2)
    slopes = np.polyfit(at, np.log(resampled).T / 2, 1)[0]
    low, high = np.quantile(slopes, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    slope = np.polyfit(at, np.log(squares.mean(axis=1)) / 2, 1)[0]

    def check(rate):
        return Found(abs(slope - rate) + (high - low) / 2, tolerance, squares.size, CONFIDENCE)

    return check
