"""README tells the truth: its code runs and prints what it says, its commands and paths exist."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
TEXTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]


def test_the_code_prints_what_it_says(capsys):
    blocks = re.findall(r"```python\n(.*?)```\n\n```\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) >= 1
    for code, output in blocks:
        assert len([line for line in code.splitlines() if line.strip()]) <= 12
        exec(compile(code, "README.md", "exec"), {})
        assert capsys.readouterr().out == output


def test_ci_does_what_readme_says():
    first, second = re.findall(r"^    (.+)$", README, flags=re.MULTILINE)[:2]
    assert first == 'pip install -e ".[dev]" && python -m constructions.em_demo'
    assert second == "pytest"
    script = (ROOT / ".ci/run").read_text()
    assert 'pip install --quiet -e ".[dev]"' in script
    assert "python -m constructions.em_demo" in script
    assert re.search(r"^pytest$", script, flags=re.MULTILINE)


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_links_and_paths_exist(path):
    text = path.read_text()
    for target in re.findall(r"\]\(([^)]+)\)", text):
        assert target.startswith("https://") or (ROOT / target.split("#")[0]).exists(), target
    for name in re.findall(r"`((?:gmm|constructions|trainable|tests|docs|\.ci)/[\w./]+)`", text):
        assert (ROOT / name).exists(), name


def test_commands_exist():
    for name in set(re.findall(r"python -m ([\w.]+)", README)):
        place = ROOT / name.replace(".", "/")
        assert place.with_suffix(".py").exists() or (place / "__main__.py").exists(), name
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for group in re.findall(r"\.\[([\w,]+)\]", README):
        assert set(group.split(",")) <= set(extras)
