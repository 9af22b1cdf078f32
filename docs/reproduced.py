"""The page of the paper's experiments from the results that `trainable.reproduce` writes.

    python -m trainable.reproduce fig2 --out docs/reproduced
    python docs/reproduced.py

writes reproduced.md beside this file, and the pictures in docs/reproduced.
"""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.append(str(HERE / "figures"))

from frame import dark, png  # noqa: E402

from trainable.experiments import EXPERIMENTS, training_of  # noqa: E402
from trainable.reproduce_output import picture  # noqa: E402

HEAD = """# The paper's experiments

Made by `python docs/reproduced.py` from what `trainable.reproduce` writes. Every experiment of section 3 and
Appendix E is one command,

```bash
python -m trainable.reproduce fig2 --quick
python -m trainable.reproduce fig2
```

in minutes or in full, with 1280 tasks for each K as in the paper. It writes a table (CSV, JSON, Markdown)
and a picture, goes on where it was cut off, and works on several processes or a cluster (`--jobs`,
`--backend dask`). Every fit is kept, so that figures share what they have in common.

The fits: *labels known* are shares and averages of the labelled samples, the floor; *EM* starts from N(0,
I), as the paper's does, from one k-means++ start, or is the likeliest of ten; *spectral* is Algorithm A.2
where K is at most d; *TGMM* is a trained network's own estimate from one pass; *TGMM, then constructed EM*
is the likeliest of four passes after five EM iterations of the construction. Means over the tasks of the
l2-error after matching, half of a 95% interval, and in brackets the share of tasks in which a mean is off
by more than a noise level. Values of the paper are read off its figures by eye.

Networks come with the package for d = 2 and d = 8, small ones that were trained on a CPU; rows of others
are *missing, not zero*, until they are trained. What that takes stands [below](#what-is-not-trained-yet).

"""

TEXTS = {
    "fig2": "EM from the best of ten starts reaches the floor for d of 8 and more, and so does the refined "
    "network at d = 8; a single start of EM does not, as it loses components. At d = 2, where clusters "
    "overlap, the refined network is the best of all. The sizes of the paper's figures for EM and TGMM are "
    "those of other conventions: [reproduction notes](reproduction_notes.md). The spectral algorithm fails "
    "on a fifth of the tasks at d = 2: with as many components as dimensions the second moments can be "
    "almost singular, and whitening divides by that.",
    "fig3": "Rows for networks that were trained on fewer samples are missing.",
    "fig4": "Means are moved by normal noise of sigma_p times the noise level in each coordinate. The "
    "network has not seen such means in training: its own estimate drifts away, to errors as large as those "
    "of EM from N(0, I). Yet it remains a start from which five EM layers, written down and not trained, "
    "reach the floor, in all but at most one of 128 tasks.",
    "fig6": "Scales of their own for each component and coordinate; the paper's EM and ours then fit scales "
    "too. The spectral algorithm assumes one known scale and is left out.",
    "fig10": "The three metrics of Figure 2. Densities are higher in fewer dimensions, so that each panel of "
    "the last line has its own scale.",
    "fig11": "The three metrics of Figure 3.",
    "fig12": "The three metrics of Figure 4. Where means are far apart, the network's means are far off and "
    "still put nearly all samples into the right cluster.",
    "fig14": "The three metrics of Figure 6.",
    "fig15": "Tested on the N that the network was trained on.",
}


REST = """## What is not trained yet

Of these only small versions of `tgmm-d2` and `tgmm-d8` come with the package. Each is one command,
resumable, and tested with a tiny budget (`tests/trainable/test_reproduce.py`). Operations are six for each
parameter, sample and task, at most, over the D; a card that does 3e14 in a second takes six minutes for 1e17.

"""


def results(name: str) -> dict[str, Any] | None:
    """What was committed of a figure."""
    path = HERE / "reproduced" / f"{name}.json"
    found: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
    return found


def cell(row: dict[str, Any] | None) -> str:
    """Mean, half-width and share of missed clusters."""
    if row is None or row["l2"]["mean"] is None or math.isnan(row["l2"]["mean"]):
        return ""
    mean, half = row["l2"]["mean"], row["l2"]["half_width"]
    return f"{mean:.3g} ± {half:.1g} ({100 * row['missed']:.1f}%)"


def table(found: dict[str, Any]) -> str:
    """A line for each place on the x-axis of each panel, a column for each fit."""
    labels = list(dict.fromkeys(row["label"] for row in found["rows"]))
    paper = {(row["panel"], row[found["x"]], row["fit"]): row["l2"] for row in found["paper"]}
    shown = {"em_normal": "the paper's EM", "spectral": "the paper's spectral", "raw": "the paper's TGMM"}
    columns = [fit for fit in shown if any(key[2] == fit for key in paper)]
    head = ["", found["x"], *labels, *(shown[fit] for fit in columns)]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for panel, x in dict.fromkeys((row["panel"], row[found["x"]]) for row in found["rows"]):
        rows = {row["label"]: row for row in found["rows"] if (row["panel"], row[found["x"]]) == (panel, x)}
        values = [f"{paper[panel, x, fit]:g}" if (panel, x, fit) in paper else "" for fit in columns]
        lines.append(
            "| " + " | ".join([panel, f"{x:g}", *(cell(rows.get(n)) for n in labels), *values]) + " |"
        )
    return "\n".join(lines)


def section(name: str, found: dict[str, Any], tables: dict[str, str]) -> str:
    """One figure; `tables` holds those of the figures before, and gets this one's."""
    number = name.removeprefix("fig")
    networks = "; ".join(f"`{n}`: {about['network']}" for n, about in found["networks"].items())
    lines = table(found)
    before = tables.setdefault(lines, number)
    if before != number:
        lines = (
            f"The table of its l2-errors is that of Figure {before}; the other metrics are "
            f"[here](reproduced/{name}.csv)."
        )
    parts = [
        f"## Figure {number}. {found['title']}",
        f"```bash\n{found['command']}\n```",
        f"![{found['title']}: {', '.join(found['metrics'])} against {found['x']}](reproduced/{name}.png)",
        TEXTS.get(name, ""),
        lines,
    ]
    if networks:
        parts.append(f"Networks: {networks}.")
    return "\n\n".join(part for part in parts if part) + "\n\n"


def missing() -> str:
    """The networks that some figure wants and that do not come with the package, and what each costs."""
    wanted: dict[str, dict[str, set[str]]] = {}
    for name, experiment in EXPERIMENTS.items():
        for curve in (c for point in experiment.points for c in point.curves if c.network):
            d, kind = re.fullmatch(r"tgmm-d(\d+)(.*)", str(curve.network)).groups()  # type: ignore[union-attr]
            wanted.setdefault(kind, {}).setdefault(d, set()).add(name)
    lines = ["| network | D | for | command | tasks | operations |", "|---|---|---|---|---|---|"]
    for kind, dims in wanted.items():
        how = [training_of(f"tgmm-d{d}{kind}") for d in dims]
        most = max((cost.operations or 0 for cost in how), default=0)
        figures = sorted(set.union(*dims.values()), key=lambda name: int(name[3:]))
        cells = [
            f"`tgmm-dD{kind}`",
            ", ".join(sorted(dims, key=int)),
            ", ".join(figures),
            f"`python -m trainable.train tgmm-dD{kind} --out runs/tgmm-dD{kind}`",
            f"{how[0].tasks / 1e6:.0f} million",
            f"{most:.0e}" if most else "not counted",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def page() -> str:
    """The whole page."""
    found = {name: results(name) for name in EXPERIMENTS}
    done = {name: value for name, value in found.items() if value is not None}
    tables: dict[str, str] = {}
    sections = [section(name, value, tables) for name, value in done.items()]
    return HEAD + "".join(sections) + REST + missing() + "\n"


def main() -> None:
    """Write page and pictures."""
    (HERE / "reproduced.md").write_text(page())
    for name in EXPERIMENTS:
        found = results(name)
        if found is not None:
            for row in found["rows"]:
                for metric in found["metrics"]:
                    row[metric] = {k: math.nan if v is None else v for k, v in row[metric].items()}
            (HERE / "reproduced" / f"{name}.png").write_bytes(png(picture(found)))
            (HERE / "reproduced" / f"{name}-dark.png").write_bytes(png(dark(picture(found))))


if __name__ == "__main__":
    main()
