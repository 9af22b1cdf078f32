"""A construction broken in its source: the table says so at the right claim, and only there."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]

PLUGIN = """
import importlib.util
import sys
from importlib.machinery import SourceFileLoader

NAME, PATH, BEFORE, AFTER = {arguments!r}


class Loader(SourceFileLoader):
    def get_code(self, fullname):
        source = self.get_data(PATH).decode()
        assert source.count(BEFORE) == 1
        return compile(source.replace(BEFORE, AFTER), PATH, "exec")


class Finder:
    def find_spec(self, name, path, target=None):
        if name == NAME:
            return importlib.util.spec_from_file_location(name, PATH, loader=Loader(name, PATH))


sys.meta_path.insert(0, Finder())
"""


class Break(NamedTuple):
    """A change of one line, the tests to run, the claims that it refutes, and some that it does not."""

    module: str
    before: str
    after: str
    tests: tuple[str, ...]
    opened: tuple[int, ...]
    kept: tuple[int, ...]


BREAKS = {
    "E-step sign": Break(
        "em_layers", 'norm = -stream["c"] / 2', 'norm = stream["c"] / 2',
        ("test_em_e_layer.py", "test_em_encoding.py"), (28,), (22, 23, 24, 29, 30, 31, 32),
    ),
    "index roles of the M-step": Break(
        "em_layers",
        'query=[stream["e"]], key=[stream["log_w"]]',
        'query=[stream["log_w"]], key=[stream["e"]]',
        ("test_em_e_layer.py", "test_em_m_layer.py"), (34, 35, 37), (28, 29, 31, 32, 36, 38, 40),
    ),
    "units of a clean MLP that do nothing": Break(
        "residual",
        "**{name: -layout[name] for name in names}",
        "**{name: 0 * layout[name] for name in names}",
        ("test_appendix_d.py",), (96,), (87, 88, 89, 97, 99),
    ),
    "value of the slot": Break(
        "tensor_layers", 'value={"slot": stream["count"]}', 'value={"slot": stream["one"]}',
        ("test_appendix_d.py",), (89, 91, 96), (87, 95, 99),
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", BREAKS)
def test_the_table_names_what_is_broken(name, tmp_path):
    broken = BREAKS[name]
    path = ROOT / "constructions" / f"{broken.module}.py"
    arguments = (f"constructions.{broken.module}", str(path), broken.before, broken.after)
    (tmp_path / "sabotage.py").write_text(PLUGIN.format(arguments=arguments))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "sabotage", "-p", "no:cacheprovider",
         "--claims-json", str(tmp_path / "claims.json"),
         *(f"tests/claims/{test}" for test in broken.tests)],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 1, done.stdout[-2000:] + done.stderr
    table = {row["id"]: row for row in json.loads((tmp_path / "claims.json").read_text())["claims"]}
    for number in broken.opened:
        assert (table[number]["verdict"], table[number]["note"][:7]) == ("open", "failed:"), number
    for number in broken.kept:
        assert table[number]["verdict"] != "open", number
