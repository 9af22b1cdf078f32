"""The list of claims: one TOML file for each part of the paper beside this module.

An entry has `id` (1 to 100; the improved theorems are "I1", "I2", ...), `paper` (where the paper says it),
`statement` (one sentence: what is decided), `check` (the kind of check), and where they apply `erratum`
(A1-A7: an implementation of the printed form fails; B1-B12: a step of a proof does) and `reason` (why a
claim cannot be decided by a computation).
"""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

CHECKS = ("exact", "bound", "certified", "statistical", "symbolic", "counterexample")
NUMBERS = tuple(range(1, 101))
ERRATA = tuple(f"A{i}" for i in range(1, 8)) + tuple(f"B{i}" for i in range(1, 13))

_LABEL = re.compile(
    r"\b(Theorem|Lemma|Corollary|Remark|Definition|Algorithm|Appendix|Section|Claim|Erratum|Improvement)"
    r"\s+((?:[A-Z]\.?)?\d+(?:\.\d+)*|[A-Z])\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Claim:
    """One claim of the paper, or one improved theorem."""

    id: int | str
    paper: str
    statement: str
    check: str
    erratum: str | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        if self.check not in CHECKS:
            raise ValueError(f"claim {self.id}: check {self.check!r} is none of {', '.join(CHECKS)}")
        if self.erratum is not None and self.erratum not in ERRATA:
            raise ValueError(f"claim {self.id}: erratum {self.erratum!r} is not in the list")
        if not self.paper or not self.statement:
            raise ValueError(f"claim {self.id} says neither where nor what")

    @property
    def keywords(self) -> set[str]:
        """The names by which `pytest -k` finds the claim's tests, e.g. `Lemma_C.4:`."""
        text = f"{self.paper} Claim {self.id}"
        if self.erratum is not None:
            text += f" Erratum {self.erratum}"
        return {as_keywords(match.group()) for match in _LABEL.finditer(text)}


def as_keywords(expression: str) -> str:
    """A `-k` expression with the paper's labels as one word each: `Lemma C.4` becomes `Lemma_C.4:`.

    The colon ends the label, as pytest looks for parts of words: claim 7 shall not find claim 70.
    """
    return _LABEL.sub(lambda match: "_".join(match.groups()) + ":", expression)


def load(folder: Path = Path(__file__).parent) -> dict[int | str, Claim]:
    """All claims of the TOML files in `folder`: the paper's in the order of their numbers, then the improved.

    Raises:
        ValueError: For two entries with one id, or an entry that is not well formed.
    """
    claims: dict[int | str, Claim] = {}
    for path in sorted(folder.glob("*.toml")):
        for entry in tomllib.loads(path.read_text("utf-8"))["claim"]:
            try:
                claim = Claim(**entry)
            except TypeError as error:
                raise ValueError(f"{path.name}: {error}") from None
            if claim.id in claims:
                raise ValueError(f"{path.name}: claim {claim.id} is there already")
            claims[claim.id] = claim
    return dict(sorted(claims.items(), key=lambda item: _order(item[0])))


def _order(identity: int | str) -> tuple[bool, int]:
    return isinstance(identity, str), int(str(identity).removeprefix("I"))
