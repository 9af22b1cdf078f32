"""What one run of pytest learns about the claims, merged over workers, and how it is told."""

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.claims import registry, table
from tests.claims.verdict import Evidence, Row, judge

_WIDTH = 140
_WORST = ("passed", "skipped", "failed")


class ClaimsSession:
    """Gathers outcomes and evidence from the test reports; writes the table and the JSON at the end.

    Attributes:
        expected: The claim that each collected test decides, by test.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self.expected: dict[str, int | str] = {}
        self._outcomes: dict[str, str] = {}
        self._entries: dict[str, list[dict[str, Any]]] = {}

    def rows(self) -> list[Row]:
        """One row for each claim of the list, in its order."""
        claims = registry.load()
        evidence = {identity: Evidence() for identity in claims}
        for test, identity in sorted(self.expected.items()):
            evidence[identity].expected.add(test)
            if test in self._outcomes:
                evidence[identity].outcomes[test] = self._outcomes[test]
                evidence[identity].entries += self._entries.get(test, [])
        return [judge(claims[identity], evidence[identity]) for identity in claims]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        outcomes = (self._outcomes.get(report.nodeid, "passed"), report.outcome)
        self._outcomes[report.nodeid] = max(outcomes, key=_WORST.index)
        for name, value in report.user_properties:
            if name == "claim":
                self._entries[report.nodeid] = value["entries"]

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        # A worker that crashed has no output; its tests then show as not run.
        self.expected.update(getattr(node, "workeroutput", {}).get("claims", {}))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        output = getattr(self._config, "workeroutput", None)
        if output is not None:
            output["claims"] = self.expected
            return
        target = self._config.getoption("--claims-json")
        if target is not None and not self._config.option.collectonly:
            _write(Path(target), json.dumps(table.as_json(self.rows()), indent=2, ensure_ascii=False) + "\n")

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        rows = self.rows()
        ran = [row for row in rows if any(test in self._outcomes for test in row.tests)]
        if not ran or self._config.option.collectonly:
            return
        # Whoever asks for a few tests wants to see their rows, not a hundred open ones.
        named = self._config.args_source is pytest.Config.ArgsSource.ARGS or self._config.option.keyword
        width = max(_WIDTH, shutil.get_terminal_size().columns)
        terminalreporter.section("claims of the paper")
        for line, bad in table.lines(ran if named else rows, width):
            terminalreporter.write_line(line, red=bad)
        for line in table.summary(rows):
            terminalreporter.write_line(line)


def _write(path: Path, text: str) -> None:
    """All of the file or nothing of it."""
    descriptor, name = tempfile.mkstemp(dir=path.absolute().parent, suffix=".part")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
