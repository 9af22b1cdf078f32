"""The pages of the docs: their code runs and prints what they say, their pictures, links and paths exist."""

import importlib
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.claims import registry

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
CODE = re.compile(r"```python\n(.*?)```(?:\n\n```\n(.*?)```)?", flags=re.DOTALL)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if CODE.search(page.read_text())], ids=lambda p: p.name
)
def test_code_runs_and_prints_what_it_says(page, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for code, output in CODE.findall(page.read_text()):
        exec(compile(code, page.name, "exec"), names)
        assert capsys.readouterr().out == output


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_pictures_and_paths_exist(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        assert target.startswith("https://") or (page.parent / target.split("#")[0]).exists(), target
    for name in re.findall(r"`((?:gmm|constructions|trainable|tests|docs)/[\w./]+)`", text):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"python -m ([\w.]+)", text):
        place = ROOT / name.replace(".", "/")
        assert place.with_suffix(".py").exists() or (place / "__main__.py").exists(), name


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: page.name)
def test_symbols_exist(page):
    """`gmm.power_step(T, v)` and the like: a module, or a name in one."""
    for name in re.findall(r"`((?:gmm|constructions|trainable|tests)(?:\.[A-Za-z_]\w*)+)", page.read_text()):
        module, _, last = name.rpartition(".")
        found = importlib.util.find_spec(name) if importlib.util.find_spec(module) else None
        assert found is not None or hasattr(importlib.import_module(module), last), name


def test_every_picture_is_shown():
    texts = "".join(page.read_text() for page in [*PAGES, ROOT / "README.md"])
    for picture in (ROOT / "docs/figures").glob("*.png"):
        light = picture.name.replace("-dark.png", ".png")
        assert f"figures/{light}" in texts, picture.name


def test_the_page_of_claims_is_that_of_the_committed_table():
    spec = importlib.util.spec_from_file_location("claims_page", ROOT / "docs/claims.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    results = json.loads((ROOT / "docs/claims.json").read_text())
    assert (ROOT / "docs/claims.md").read_text() == module.page(results)
    listed = registry.load()
    rows = results["claims"] + results["improved"]
    assert [row["id"] for row in rows] == list(listed)
    for row in rows:
        claim = listed[row["id"]]
        assert (row["paper"], row["statement"], row["erratum"]) == (
            claim.paper,
            claim.statement,
            claim.erratum,
        )
        assert row["verdict"] != "open"


def test_the_page_of_the_experiments_is_that_of_the_committed_results():
    sys.path.append(str(ROOT / "docs/figures"))
    spec = importlib.util.spec_from_file_location("reproduced_page", ROOT / "docs/reproduced.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs/reproduced.md").read_text() == module.page()


def test_the_table_of_trained_networks_is_that_of_their_cards():
    text = (ROOT / "docs/tgmm.md").read_text()
    for path in (ROOT / "trainable/models").glob("*.json"):
        for K, row in json.loads(path.read_text())["evaluation"]["as stored"].items():
            cells = [
                f"{row[name]['mean']:.4f} ± {row[name]['half_width']:.4f}"
                for name in ("raw", "refined", "oracle")
            ]
            assert f"| `{path.stem}` | {K} | {' | '.join(cells)} |" in text


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    for name in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(name)
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", str(ROOT / "docs"), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = {page.stem for page in PAGES}
    assert {path.stem for path in tmp_path.glob("*.html")} >= pages
    shown = (tmp_path / "index.html").read_text()
    assert all(f'href="{name}.html"' in shown for name in pages - {"index"})
