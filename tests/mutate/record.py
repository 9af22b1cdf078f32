"""A pytest plugin that notes which test executes which lines of the packages, and how long it takes.

Started by `reach.reach` in a process of its own, before anything of the packages is imported.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from pathlib import Path

import coverage
import pytest

ROOT = Path(__file__).parents[2]
COVERAGE = coverage.Coverage(
    data_file=None, source=[str(ROOT / "constructions"), str(ROOT / "gmm")], config_file=False
)
SECONDS: dict[str, float] = {}

COVERAGE.start()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    COVERAGE.switch_context(item.nodeid)
    result = yield
    COVERAGE.switch_context("")
    return result


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    SECONDS[report.nodeid] = SECONDS.get(report.nodeid, 0.0) + report.duration


def pytest_sessionfinish() -> None:
    COVERAGE.stop()
    data = COVERAGE.get_data()
    lines = {
        Path(file).relative_to(ROOT).as_posix(): {
            str(line): [test for test in tests if test]
            for line, tests in data.contexts_by_lineno(file).items()
        }
        for file in data.measured_files()
    }
    Path(os.environ["MUTATE_REACH"]).write_text(json.dumps({"seconds": SECONDS, "lines": lines}))
