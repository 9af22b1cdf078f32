"""What a test of a claim records: a check, the thing it holds for, and the broken things it fails for.

A check is a function of its subject (a layer, a bound, a formula) that returns what it `Found`: the
measured figure, the bound it has to stay below, and over how many cases. The same check judges the
subject, its broken twins and the form that the paper prints, so it cannot be lenient to one of them.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Literal, NamedTuple, TypeVar

import numpy as np

S = TypeVar("S")
Kind = Literal["holds", "rate", "twin", "printed"]


class Found(NamedTuple):
    """The outcome of one check.

    Attributes:
        measured: The worst figure over all cases; the check holds when it is at most `bound`.
        bound: The right side of the claim, or the tolerance of an exact check.
        cases: How many cases were looked at, at least 1.
        confidence: For statistical checks: the probability that the procedure does not err, in (0, 1).
    """

    measured: float
    bound: float
    cases: int
    confidence: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the measured figure stays below the bound; a NaN does not."""
        return self.measured <= self.bound


@dataclass(frozen=True)
class Entry:
    """One line of evidence, as plain data that travels between workers.

    `slack` is the factor by which the bound was shown to exceed the measured figure, where the test
    states one; `subject` names the twin or the printed form.
    """

    kind: Kind
    subject: str
    measured: float
    bound: float
    cases: int
    confidence: float | None
    slack: float | None
    holds: bool


@dataclass
class Recorder:
    """Collects the evidence of one test; the fixture `claim` is one.

    Attributes:
        claim: The claim's number (or the improved theorem's name) that the test decides.
        rng: The generator for everything random in the test; `--claims-seed` changes it.
    """

    claim: int | str
    rng: np.random.Generator
    entries: list[Entry] = field(default_factory=list)

    def holds(self, check: Callable[[S], Found], subject: S, *, slack: float | None = None) -> Found:
        """The check holds for `subject`: the claim, or its corrected form.

        Args:
            check: What to measure.
            subject: What the claim is about.
            slack: The bound is at least this many times what was measured, and the table shall say so.

        Returns:
            What the check found.
        """
        found = self._add("holds", "", check, subject, slack)
        self._expect(found, True, f"claim {self.claim} does not hold")
        if slack is not None:
            assert slack > 1, f"claim {self.claim}: a slack of {slack} is none"
            assert found.measured * slack <= found.bound, (
                f"claim {self.claim}: {found.bound:.6g} is less than {slack:g} times {found.measured:.6g}"
            )
        return found

    def rate(self, check: Callable[[S], Found], subject: S) -> Found:
        """Only the rate is checked (the constants are not given): `measured` is the exponent's deviation."""
        found = self._add("rate", "", check, subject)
        self._expect(found, True, f"claim {self.claim}: the rate is another")
        return found

    def twin(self, name: str, check: Callable[[S], Found], broken: S) -> Found:
        """The check fails for `broken`, so it can fail."""
        found = self._add("twin", name, check, broken)
        self._expect(found, False, f"claim {self.claim}: the check does not see the broken twin {name!r}")
        return found

    def printed(self, name: str, check: Callable[[S], Found], printed: S) -> Found:
        """The check fails for the form that the paper prints: a counterexample."""
        found = self._add("printed", name, check, printed)
        self._expect(found, False, f"claim {self.claim}: the printed form {name!r} holds here")
        return found

    def as_data(self) -> dict[str, object]:
        """Numbers and strings only, for the report."""
        return {"claim": self.claim, "entries": [asdict(entry) for entry in self.entries]}

    def _add(
        self, kind: Kind, name: str, check: Callable[[S], Found], subject: S, slack: float | None = None
    ) -> Found:
        found = check(subject)
        where = f"claim {self.claim}, {name or kind}"
        if not isinstance(found, Found):
            raise TypeError(f"{where}: a check returns Found, not {type(found).__name__}")
        if isinstance(found.cases, bool) or int(found.cases) != found.cases or found.cases < 1:
            raise ValueError(f"{where}: a check over {found.cases} cases decides nothing")
        if found.bound is None or not math.isfinite(found.bound):
            raise ValueError(f"{where}: a check needs a finite bound, got {found.bound}")
        if found.confidence is not None and not 0 < found.confidence < 1:
            raise ValueError(f"{where}: confidence {found.confidence} is outside (0, 1)")
        # Plain numbers travel between workers, those of numpy do not.
        found = Found(float(found.measured), float(found.bound), int(found.cases), found.confidence)
        self.entries.append(Entry(kind, name, *found, slack, found.holds))
        return found

    def _expect(self, found: Found, holds: bool, message: str) -> None:
        relation = "<=" if holds else ">"
        assert found.holds == holds, (
            f"{message}: measured {found.measured:.6g}, wanted {relation} {found.bound:.6g} "
            f"over {found.cases} cases"
        )
