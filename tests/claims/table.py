"""The table of claims, for the terminal and as JSON."""

from collections import Counter
from collections.abc import Iterator

from tests.claims.verdict import OPEN, Row


def as_json(rows: list[Row]) -> dict[str, list[dict[str, object]]]:
    """The paper's claims under `claims`, the improved theorems under `improved`."""
    return {
        "claims": [row.as_json() for row in rows if isinstance(row.claim.id, int)],
        "improved": [row.as_json() for row in rows if isinstance(row.claim.id, str)],
    }


def lines(rows: list[Row], width: int) -> Iterator[tuple[str, bool]]:
    """Two lines for each claim, what it says and how it stands, each with whether the claim is open."""
    for row in rows:
        claim = row.claim
        erratum = f" [erratum {claim.erratum}]" if claim.erratum else ""
        said = f"{claim.id:>4}  {claim.paper}: {claim.statement}"
        yield _cut(said, width - len(erratum)) + erratum, False
        verdict = row.verdict + (f" ({row.note})" if row.note else "")
        yield _cut(f"      -> {verdict}{_measured(row)}", width), row.verdict == OPEN


def summary(rows: list[Row]) -> Iterator[str]:
    """How many claims have which verdict, for the paper and for the improved theorems."""
    for name, kind in (("claims of the paper", int), ("improved theorems", str)):
        counts = Counter(row.verdict for row in rows if isinstance(row.claim.id, kind))
        if counts:
            parts = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
            yield f"{sum(counts.values())} {name}: {parts}"


def _measured(row: Row) -> str:
    if row.measured is None or row.bound is None:
        return ""
    margin = "" if row.margin is None else f", margin {row.margin:.3g}"
    confidence = "" if row.confidence is None else f", confidence {row.confidence:g}"
    relation = "<=" if row.measured <= row.bound else "not <="
    return (
        f": {row.measured:.3g} {relation} {row.bound:.3g}{margin}; "
        f"{row.claim.check}, {row.cases} case{'s'[: row.cases != 1]}{confidence}"
    )


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
