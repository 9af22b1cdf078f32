"""The table of claims itself: nothing in it holds by default, and it says so at the right claim."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.claims import registry
from tests.claims.evidence import Found, Recorder
from tests.claims.registry import Claim
from tests.claims.verdict import Evidence, judge

ROOT = Path(__file__).parents[2]

LIST = """
[[claim]]
id = 1
paper = "Lemma C.4"
statement = "One is at most two."
check = "bound"

[[claim]]
id = 2
paper = "Theorem C.1, Lemma C.6"
statement = "Two is at most two."
check = "exact"

[[claim]]
id = 10
paper = "Remark D.1"
statement = "What nobody tests."
check = "exact"

[[claim]]
id = "I1"
paper = "Improvement I1"
statement = "A coin is fair."
check = "statistical"
"""

TESTS = """
import pytest
from tests.claims.evidence import Found

def check(x):
    return Found(x, 2.0, 1)

@pytest.mark.claim(1)
def test_one(claim):
    claim.holds(check, claim.rng.uniform(0, 1))
    claim.twin("three", check, 3.0)

@pytest.mark.claim(2)
@pytest.mark.parametrize("x", [0.0, 1.0, 2.0])
def test_two(claim, x):
    claim.holds(check, x)
    claim.printed("four", check, 4.0)
"""


def recorder() -> Recorder:
    return Recorder(1, np.random.default_rng(0))


def test_the_list_has_every_claim_and_every_erratum():
    claims = registry.load()
    assert [identity for identity in claims if isinstance(identity, int)] == list(registry.NUMBERS)
    assert {claim.erratum for claim in claims.values()} - {None} == set(registry.ERRATA)


@pytest.mark.parametrize("cases", [0, -1, 2.5, True])
def test_a_check_without_cases_is_refused(cases):
    with pytest.raises(ValueError, match="decides nothing"):
        recorder().holds(lambda x: Found(0.0, 1.0, cases), None)


@pytest.mark.parametrize("bound", [math.inf, math.nan, None])
def test_a_check_without_a_bound_is_refused(bound):
    with pytest.raises(ValueError, match="finite bound"):
        recorder().holds(lambda x: Found(0.0, bound, 1), None)


def test_a_check_without_a_finding_is_refused():
    with pytest.raises(TypeError, match="returns Found"):
        recorder().holds(lambda x: True, None)


def test_a_nan_does_not_hold():
    with pytest.raises(AssertionError, match="does not hold"):
        recorder().holds(lambda x: Found(math.nan, 1.0, 1), None)


@pytest.mark.parametrize("method", ["twin", "printed"])
def test_a_twin_that_passes_is_refused(method):
    with pytest.raises(AssertionError, match=r"does not see the broken twin|holds here"):
        getattr(recorder(), method)("harmless", lambda x: Found(0.0, 1.0, 1), None)


def test_a_slack_that_is_not_there_is_refused():
    with pytest.raises(AssertionError, match="less than 3 times"):
        recorder().holds(lambda x: Found(0.5, 1.0, 1), None, slack=3)


def entry(kind, *, confidence=None, slack=None):
    return {
        "kind": kind, "subject": "a twin", "measured": 0.25, "bound": 0.5, "cases": 3,
        "confidence": confidence, "slack": slack, "holds": True,
    }  # fmt: skip


CLAIM = Claim(1, "Lemma C.4", "One is at most two.", "bound")
GIVEN = [entry("holds"), entry("twin")]


def judged(claim=CLAIM, *, entries=GIVEN, expected=("a::t",), outcomes=None):
    ran = dict.fromkeys(expected, "passed") if outcomes is None else outcomes
    row = judge(claim, Evidence(set(expected), ran, entries))
    return row.verdict, row.note


def test_verdicts():
    assert judged() == ("holds", "")
    assert judged(entries=[entry("holds", slack=2.0), entry("twin")])[0] == "holds with slack"
    assert judged(entries=[entry("rate"), entry("twin")])[0] == "rate only"
    assert judged(entries=[entry("holds"), entry("printed")]) == (
        "false as printed, corrected form holds",
        "a twin",
    )
    explained = Claim(1, "Lemma C.4", "A matter of taste.", "bound", reason="taste")
    assert judged(explained, entries=[], expected=()) == ("not checkable", "taste")


def test_what_stays_open():
    statistical = Claim(1, "Lemma C.4", "A coin is fair.", "statistical")
    assert judged(entries=[entry("holds")]) == ("open", "unfalsified")
    assert judged(entries=[], expected=()) == ("open", "no test decides it")
    assert judged(outcomes={}) == ("open", "not run: t")
    assert judged(outcomes={"a::t": "skipped"}) == ("open", "not run: t")
    assert judged(outcomes={"a::t": "failed"}) == ("open", "failed: t")
    assert judged(expected=("a::t", "a::u"), outcomes={"a::t": "passed"}) == ("open", "not run: u")
    assert judged(statistical) == ("open", "no confidence stated")
    assert judged(statistical, entries=[entry("holds", confidence=0.99), entry("twin")])[0] == "holds"
    explained = Claim(1, "Lemma C.4", "A matter of taste.", "bound", reason="taste")
    assert judged(explained)[0] == "open"


def test_the_worst_case_is_the_one_shown():
    tight = entry("holds") | {"measured": 0.45}
    row = judge(CLAIM, Evidence({"a::t"}, {"a::t": "passed"}, [*GIVEN, tight]))
    assert (row.measured, row.bound, row.cases) == (0.45, 0.5, 6)
    assert row.as_json()["margin"] == 1.11


def test_labels_of_the_paper_find_their_tests():
    assert registry.as_keywords("Lemma C.4 and not slow") == "Lemma_C.4: and not slow"
    assert registry.as_keywords("lemma c.4 or section and step") == "lemma_c.4: or section and step"
    assert Claim(7, "Theorem D.8, (24)", "x", "exact", "A3").keywords == {
        "Theorem_D.8:",
        "Claim_7:",
        "Erratum_A3:",
    }


@pytest.fixture
def suite(pytester, monkeypatch):
    """A small project with a list of four claims and the plugin of this one."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (pytester.path / "list.toml").write_text(LIST)
    pytester.makeini("[pytest]")
    pytester.makeconftest(
        "from pathlib import Path\n"
        "from tests.claims import registry\n"
        "claims = registry.load(Path(__file__).parent)\n"
        "registry.load = lambda: claims\n"
        'pytest_plugins = ["tests.claims.plugin"]\n'
    )

    def run(*arguments, tests=TESTS):
        pytester.makepyfile(test_claims=tests)
        result = pytester.runpytest_subprocess("--claims-json", "claims.json", *arguments)
        table = json.loads((pytester.path / "claims.json").read_text())
        return result, {row["id"]: row for row in table["claims"] + table["improved"]}

    return run


def test_a_run_tells_of_every_claim(suite):
    result, rows = suite("-n", "0")
    assert [row["verdict"] for row in rows.values()] == [
        "holds",
        "false as printed, corrected form holds",
        "open",
        "open",
    ]
    assert (rows[2]["cases"], rows[2]["measured"], rows[2]["margin"]) == (3, 2.0, 1.0)
    assert len(rows[2]["tests"]) == 3
    assert rows[2]["twins"] == ["four"]
    result.stdout.fnmatch_lines(
        [
            "*Remark D.1: What nobody tests.",
            "*-> open (no test decides it)*",
            "3 claims of the paper: *1 open*",
        ]
    )


@pytest.mark.slow
def test_rows_merge_over_workers_and_equal_those_of_one_process(suite):
    assert suite("-n", "2")[1] == suite("-n", "0")[1]


@pytest.mark.slow
def test_another_seed_gives_other_numbers(suite):
    assert suite("-n", "0", "--claims-seed", "1")[1][1]["measured"] != suite("-n", "0")[1][1]["measured"]


def test_what_fails_opens_its_own_claim_only(suite):
    broken = TESTS.replace('claim.printed("four", check, 4.0)', "claim.holds(check, x + 0.5)")
    result, rows = suite("-n", "0", tests=broken)
    assert result.ret == 1
    assert (rows[1]["verdict"], rows[2]["verdict"]) == ("holds", "open")
    assert rows[2]["note"] == "failed: test_two[2.0]"


def test_a_label_selects_and_the_others_are_open(suite):
    result, rows = suite("-n", "0", "-k", "Lemma C.4")
    result.assert_outcomes(passed=1, deselected=3)
    assert rows[1]["verdict"] == "holds"
    assert rows[2]["note"].startswith("not run: test_two")


def test_a_test_that_records_nothing_fails(suite):
    silent = "import pytest\n@pytest.mark.claim(1)\ndef test_silent(claim):\n    pass\n"
    result, rows = suite("-n", "0", tests=silent)
    assert result.ret == 1
    assert rows[1]["verdict"] == "open"


def test_a_claim_that_is_not_in_the_list_is_an_error(suite, pytester):
    pytester.makepyfile(test_claims="import pytest\n@pytest.mark.claim(99)\ndef test_it(claim):\n    pass\n")
    result = pytester.runpytest_subprocess("-n", "0")
    result.stderr.fnmatch_lines(["*(99,) is not one claim of the list"])


def test_no_folder_for_the_table_is_an_error(pytester, suite):
    result = pytester.runpytest_subprocess("-n", "0", "--claims-json", "nowhere/claims.json")
    result.stderr.fnmatch_lines(["*there is no folder*nowhere"])


def test_the_table_can_be_written_again():
    """The options are known when the file exists already."""
    command = [sys.executable, "-m", "pytest", "--markers", "--claims-json", "docs/claims.json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "claim(id)" in done.stdout
