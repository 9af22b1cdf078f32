"""Which tests reach a line, from one run of the fast tests under coverage, kept until a file changes."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from tests.mutate.sites import ROOT, Site

TESTS = ["tests/claims", "tests/constructions", "tests/gmm"]
LEFT_OUT = ["--ignore=tests/claims/test_machinery.py"]
"""Tests that say nothing of the packages."""


class Reach(NamedTuple):
    """`seconds` of each test; the tests that execute each line of each file."""

    seconds: dict[str, float]
    lines: dict[str, dict[str, list[str]]]

    def tests(self, site: Site) -> list[str]:
        """Tests that reach the site, the fastest first."""
        return self._fastest_first(self.lines.get(site.file, {}).get(str(site.line), []))

    def others(self, site: Site) -> list[str]:
        """Tests that reach the file but not this line: values may have been kept from a test before."""
        reached = set(self.tests(site))
        found = {test for tests in self.lines.get(site.file, {}).values() for test in tests}
        return self._fastest_first(found - reached)

    def _fastest_first(self, tests: set[str] | list[str]) -> list[str]:
        return sorted(tests, key=lambda test: (self.seconds[test], test))


def _digest() -> str:
    digest = hashlib.sha256()
    for folder in ("constructions", "gmm", "tests"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "mutate" not in path.parts:
                digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def reach() -> Reach:
    """From the kept file, or by running the tests (minutes)."""
    kept = Path(tempfile.gettempdir()) / f"mutate-reach-{_digest()}.json"
    if not kept.exists():
        print("running the fast tests under coverage (minutes)", file=sys.stderr)
        command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-m", "not slow and not heavy",
                   "-p", "tests.mutate.record", "-p", "no:cacheprovider", *LEFT_OUT, *TESTS]  # fmt: skip
        environment = os.environ | {
            "MUTATE_REACH": str(kept),
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
        }
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            kept.unlink(missing_ok=True)
            raise ValueError(f"the tests fail without any mutant:\n{done.stdout[-2000:]}")
    return Reach(**json.loads(kept.read_text()))
