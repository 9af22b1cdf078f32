"""The documentation site: pip install -e ".[docs]" && sphinx-build -W docs docs/_build."""

from pathlib import Path

project = "Constructive transformers"
author = "The constructive-transformers contributors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx-mathjax-offline"]
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = project
html_show_sourcelink = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
suppress_warnings = ["misc.highlighting_failure"]

SIGNS = str.maketrans({sign: f"\\{sign}" for sign in "\\*`|_"})


def line_of(text):
    """One line of a docstring as reStructuredText: names in backquotes, everything else as it is."""
    parts = text.split("`")
    if len(parts) % 2 == 0 or any(not part for part in parts[1::2]):
        return text.translate(SIGNS)
    return "".join(part.translate(SIGNS) if i % 2 == 0 else f"``{part}``" for i, part in enumerate(parts))


def plain(app, what, name, obj, options, lines):
    """Docstrings are plain text with the field's signs: keep their lines, and let none of it be markup."""
    if lines:
        lines[:] = [f"| {line_of(line)}" if line.strip() else "|" for line in lines] + [""]


def setup(app):
    """Sphinx calls this."""
    app.connect("autodoc-process-docstring", plain)


assert (Path(__file__).parent / "claims.md").exists(), "run python docs/claims.py first"
