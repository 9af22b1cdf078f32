"""From evidence to verdicts. Nothing holds by default: without evidence a claim is open."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.claims.registry import Claim

HOLDS = "holds"
SLACK = "holds with slack"
CORRECTED = "false as printed, corrected form holds"
RATE = "rate only"
NOT_CHECKABLE = "not checkable"
OPEN = "open"


@dataclass
class Evidence:
    """What the tests of one claim left behind.

    Attributes:
        expected: Names of all tests that decide the claim, whether they were selected or not.
        outcomes: The worst outcome of each test that ran: passed, failed or skipped.
        entries: The recorded lines, as `Entry` in plain data.
    """

    expected: set[str] = field(default_factory=set)
    outcomes: dict[str, str] = field(default_factory=dict)
    entries: list[Mapping[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Row:
    """A claim with its verdict: one line of the table."""

    claim: Claim
    verdict: str
    note: str
    cases: int
    measured: float | None
    bound: float | None
    confidence: float | None
    twins: tuple[str, ...]
    tests: tuple[str, ...]

    @property
    def margin(self) -> float | None:
        """How many times the measured figure fits into the bound; nothing for one of zero or below."""
        if self.measured is None or self.bound is None or not self.measured > 0:
            return None
        return self.bound / self.measured

    @property
    def decided(self) -> bool:
        """Whether the claim is decided or explained."""
        return self.verdict != OPEN

    def as_json(self) -> dict[str, object]:
        """The row in the shape of `--claims-json`; numbers to three digits, null where there is none."""
        return {
            "id": self.claim.id,
            "paper": self.claim.paper,
            "statement": self.claim.statement,
            "check": self.claim.check,
            "cases": self.cases,
            "measured": _digits(self.measured),
            "bound": _digits(self.bound),
            "margin": _digits(self.margin),
            "verdict": self.verdict,
            "tests": list(self.tests),
            "confidence": self.confidence,
            "erratum": self.claim.erratum,
            "twins": list(self.twins),
            "note": self.note,
        }


def judge(claim: Claim, evidence: Evidence) -> Row:
    """The verdict on one claim."""
    held = [entry for entry in evidence.entries if entry["kind"] in ("holds", "rate")]
    failing = [entry for entry in evidence.entries if entry["kind"] in ("twin", "printed")]
    verdict, note = _verdict(claim, evidence, held, failing)
    worst = max(held, key=_share, default=None)
    return Row(
        claim,
        verdict,
        note,
        cases=sum(entry["cases"] for entry in held),
        measured=None if worst is None else worst["measured"],
        bound=None if worst is None else worst["bound"],
        confidence=min((e["confidence"] for e in held if e["confidence"] is not None), default=None),
        twins=tuple(sorted({entry["subject"] for entry in failing})),
        tests=tuple(sorted(evidence.expected | set(evidence.outcomes))),
    )


def _verdict(
    claim: Claim,
    evidence: Evidence,
    held: list[Mapping[str, Any]],
    failing: list[Mapping[str, Any]],
) -> tuple[str, str]:
    """Verdict and, where the claim is open or explained, the reason."""
    failed = sorted(test for test, outcome in evidence.outcomes.items() if outcome == "failed")
    if failed:
        return OPEN, f"failed: {_names(failed)}"
    if claim.reason is not None:
        if evidence.expected:
            return OPEN, "explained as not checkable, yet there are tests"
        return NOT_CHECKABLE, claim.reason
    if not evidence.expected and not evidence.outcomes:
        return OPEN, "no test decides it"
    missing = sorted(test for test in evidence.expected if evidence.outcomes.get(test) != "passed")
    if missing or not held:
        return OPEN, f"not run: {_names(missing)}"
    if not failing:
        return OPEN, "unfalsified"
    if claim.check == "statistical" and any(entry["confidence"] is None for entry in held):
        return OPEN, "no confidence stated"
    if any(entry["kind"] == "printed" for entry in failing):
        return CORRECTED, "; ".join(sorted({e["subject"] for e in failing if e["kind"] == "printed"}))
    if all(entry["kind"] == "rate" for entry in held):
        return RATE, ""
    slacks = [entry["slack"] for entry in held]
    if None not in slacks:
        return SLACK, f"by a factor of at least {min(slacks):g}"
    return HOLDS, ""


def _share(entry: Mapping[str, Any]) -> float:
    """How much of the bound was used; a failed check uses more than all of it."""
    measured, bound = entry["measured"], entry["bound"]
    if measured == 0 or math.isnan(measured):
        return 0.0 if measured == 0 else math.inf
    return measured / bound if bound > 0 else math.inf


def _names(tests: Iterable[str]) -> str:
    names = [test.rpartition("::")[2] for test in tests]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _digits(number: float | None) -> float | None:
    if number is None or not math.isfinite(number):
        return None
    return float(f"{number:.3g}")
