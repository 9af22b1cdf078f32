"""The documentation site: pip install -e ".[docs]" && sphinx-build -W docs docs/_build."""

import shutil
import sys
import tempfile
from pathlib import Path

from docutils import nodes

DOCS = Path(__file__).parent

project = "Constructive transformers"
author = "The constructive-transformers contributors"
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",
    "sphinx_gallery.gen_gallery",
]
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "figures"]
html_theme = "furo"
html_title = project
html_show_sourcelink = False
html_copy_source = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
suppress_warnings = ["misc.highlighting_failure", "config.cache"]


# ---- figures: each script draws from the numbers committed beside it


class DrawOnly:
    """The arguments that the gallery gives to a script: draw from a copy of its numbers."""

    folder = Path(tempfile.mkdtemp(prefix="figures-"))

    def __call__(self, gallery_conf, script_vars):
        """Of one script."""
        numbers = Path(script_vars["src_file"]).with_suffix(".json")
        shutil.copy(numbers, self.folder)
        return ["--draw", "--out", str(self.folder)]

    def __repr__(self):
        """Without an address, so that the configuration stays the same."""
        return "DrawOnly"


def pictures(block, block_vars, gallery_conf):
    """Takes the pictures that a script has just drawn."""
    name = Path(block_vars["src_file"]).stem
    if not (DrawOnly.folder / f"{name}.png").exists():
        return ""
    place = Path(next(block_vars["image_path_iterator"]))
    for end in (".png", "-dark.png"):
        shutil.move(DrawOnly.folder / f"{name}{end}", place.with_name(f"{place.stem}{end}"))
    return f".. image:: /{place.relative_to(gallery_conf['src_dir']).as_posix()}\n   :alt: {name}\n"


sys.path.insert(0, str(DOCS / "figures"))
sphinx_gallery_conf = {
    "examples_dirs": "figures",
    "gallery_dirs": "gallery",
    "filename_pattern": r"\.py$",
    "ignore_pattern": r"(?<!_)(frame|blocks)\.py$",
    "reset_argv": DrawOnly(),
    "image_scrapers": (pictures,),
    "reset_modules": (),
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    "show_signature": False,
    "min_reported_time": 1e9,
    "write_computation_times": False,
    "abort_on_example_error": True,
}


def both_papers(app, doctree):
    """A picture that has a dark twin beside it is shown on light pages, its twin on dark ones."""
    for image in list(doctree.findall(nodes.image)):
        path = Path(image["uri"])
        twin = path.with_name(f"{path.stem}-dark.png")
        if (DOCS / twin).exists():
            other = image.copy()
            other["uri"] = str(twin)
            other["candidates"] = {"*": str(twin)}
            other["classes"] = [*other.get("classes", []), "only-dark"]
            image["classes"] = [*image.get("classes", []), "only-light"]
            image.parent.insert(image.parent.index(image) + 1, other)
            app.env.images.add_file(app.env.docname, str(twin))


# ---- docstrings: plain text with the field's signs

SIGNS = str.maketrans({sign: f"\\{sign}" for sign in "\\*`|_"})


def line_of(text):
    """One line of a docstring as reStructuredText: names in backquotes, everything else as it is."""
    parts = text.split("`")
    if len(parts) % 2 == 0 or any(not part for part in parts[1::2]):
        return text.translate(SIGNS)
    return "".join(part.translate(SIGNS) if i % 2 == 0 else f"``{part}``" for i, part in enumerate(parts))


def plain(app, what, name, obj, options, lines):
    """Keep the lines of docstrings, and let none of them be markup."""
    if lines:
        lines[:] = [f"| {line_of(line)}" if line.strip() else "|" for line in lines] + [""]


def setup(app):
    """Sphinx calls this."""
    app.connect("autodoc-process-docstring", plain)
    app.connect("doctree-read", both_papers)


assert (DOCS / "claims.md").exists(), "run python docs/claims.py first"
