"""A process that has everything heavy imported, and forks for each mutant.

Reads lines of JSON: a site, the tests to run, a time limit; answers "killed", "survived" or "timeout".
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import resource
import signal
import sys
import time
import types
from collections.abc import Sequence
from pathlib import Path

from tests.mutate.sites import ROOT, Site, mutated

HEAVY = (
    *("matplotlib.figure", "numpy", "pytest", "safetensors.torch", "scipy.integrate"),
    *("scipy.optimize", "scipy.special", "scipy.stats", "sklearn.mixture", "sympy", "tensorly", "torch"),
    *("tqdm", "tyro"),
)


class _Loader(importlib.machinery.SourceFileLoader):
    """Compiles the mutant in the place of the file."""

    def __init__(self, fullname: str, path: str, site: Site) -> None:
        super().__init__(fullname, path)
        self._site = site

    def get_code(self, fullname: str) -> types.CodeType:
        return compile(mutated(self._site), self.path, "exec")


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, site: Site) -> None:
        self._site, self._name = site, site.file.removesuffix(".py").replace("/", ".")

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._name:
            return None
        file = str(ROOT / self._site.file)
        return importlib.util.spec_from_file_location(
            fullname, file, loader=_Loader(fullname, file, self._site)
        )


def _run(site: Site, tests: list[str]) -> int:
    """In the child: pytest's exit status."""
    import pytest

    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    resource.setrlimit(resource.RLIMIT_DATA, (8 * 2**30, 8 * 2**30))
    sys.meta_path.insert(0, _Finder(site))
    options = ["-x", "-q", "-n", "0", "-p", "no:cacheprovider", "-m", "not heavy", "--no-header"]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # of what was imported before the fork
    return int(pytest.main([*options, *tests]))


def judge(site: Site, tests: list[str], limit: float) -> str:
    """Fork, run the tests, and say how it ended."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(_run(site, tests))
        except BaseException:
            os._exit(1)
    end = time.monotonic() + limit
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return "survived" if os.waitstatus_to_exitcode(status) == 0 else "killed"
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "timeout"


def main() -> None:
    for name in HEAVY:
        importlib.import_module(name)
    import torch

    torch.set_num_threads(1)
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    for line in sys.stdin:
        order = json.loads(line)
        print(judge(Site(*order["site"]), order["tests"], order["limit"]), flush=True)


if __name__ == "__main__":
    assert Path.cwd() == ROOT
    main()
