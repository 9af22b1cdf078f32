"""What the figures' scripts share: a command line, a sweep that goes on where it was cut off, two pictures.

A script has `compute(tasks, sweep)`, which gives everything that is drawn as JSON values, and
`draw(results)`, which draws it.  `script` writes the numbers to NAME.json, and from them NAME.png and, for
readers with dark pages, NAME-dark.png.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import torch
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import Collection
from matplotlib.colors import to_rgb, to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text
from tqdm import tqdm

from constructions.files import write_files
from constructions.plot_parts import BLACK, BLUE
from trainable.sweep import Sweep

Cases = list[tuple[Any, ...]]
Map = Callable[[Callable[..., Any], Cases], list[Any]]

PAPER, INK = "#131416", "#E6E6E6"
"""Background and text of dark pictures: those of the site."""

LIGHTER = {to_rgb(BLACK): INK, to_rgb(BLUE): "#3D9BDC"}
"""What is too dark on dark paper."""


def in_turn(function: Callable[..., Any], cases: Cases) -> list[Any]:
    """`function(*case)` for each case: the sweep of the tests."""
    return [function(*case) for case in cases]


def kept_in(path: Path, sweep: Sweep, name: str) -> Map:
    """`function(*case)` for each case, in order, through `sweep`, with what is known kept in a file.

    The file grows by a line with each result.  It is good for one state of the script only.
    """

    def run(function: Callable[..., Any], cases: Cases) -> list[Any]:
        known: dict[str, Any] = {}
        if path.exists():
            whole, _, torn = path.read_text().rpartition("\n")
            known = dict(json.loads(line) for line in whole.splitlines())
            if torn:
                path.write_text(whole + "\n" * bool(whole))
        keys = [json.dumps([function.__name__, *case]) for case in cases]
        todo = [i for i, key in enumerate(keys) if key not in known]
        with tqdm(total=len(cases), initial=len(cases) - len(todo), desc=name, disable=None) as bar:
            for number, result in sweep.unordered(function, [cases[i] for i in todo]):
                key = keys[todo[number]]
                known[key] = result
                with path.open("a") as file:
                    file.write(json.dumps([key, result]) + "\n")
                bar.update()
        # As they come back out of the file, whether or not they were in it.
        return [json.loads(json.dumps(known[key])) for key in keys]

    return run


def dark(figure: Figure) -> Figure:
    """The same figure in light ink on dark paper; colours that read on both stay."""
    figure.set_facecolor(PAPER)
    for artist in figure.findobj(Artist):
        if isinstance(artist, Axes):
            artist.set_facecolor(PAPER)
            artist.tick_params(which="both", colors=INK)
        for part in ("color", "edgecolor", "facecolor", "markeredgecolor", "markerfacecolor"):
            if isinstance(artist, (Collection, Line2D, Patch, Text)) and hasattr(artist, f"set_{part}"):
                _lighten(artist, part)
    return figure


def _lighten(artist: Any, part: str) -> None:
    if part == "color" and isinstance(artist, (Collection, Patch)):
        return  # both of the edge's and the face's
    colour = getattr(artist, f"get_{part}")()
    if not isinstance(colour, str) and len(colour) == 1:
        colour = tuple(colour[0])  # a collection of one colour
    if isinstance(colour, str) and colour == "none":
        return
    if isinstance(colour, str) or np.ndim(colour) == 1:
        *rgb, alpha = to_rgba(colour)
        if alpha > 0 and tuple(rgb) in LIGHTER:
            getattr(artist, f"set_{part}")(to_rgba(LIGHTER[tuple(rgb)], alpha))


def png(figure: Figure) -> bytes:
    """Its picture."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def script(
    compute: FunctionType,
    draw: Callable[[dict[str, Any]], Figure],
    tasks: int | None,
) -> None:
    """The command line of a figure's script; `tasks` is None where there is but one."""
    place = Path(compute.__code__.co_filename).resolve()
    about = compute.__globals__.get("__doc__")
    parser = argparse.ArgumentParser(
        prog=f"python docs/figures/{place.name}", description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.set_defaults(tasks=1)
    if tasks is not None:
        parser.add_argument("--tasks", type=int, default=tasks, help=f"tasks, or rounds (default: {tasks})")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: 1)")
    parser.add_argument(
        "--backend", choices=("loky", "dask"), default="loky", help="this machine's, or a cluster's"
    )
    parser.add_argument(
        "--scheduler", metavar="ADDRESS", help="of a dask cluster (default: one that is started)"
    )
    parser.add_argument("--out", type=Path, default=place.parent, help="folder (default: beside the script)")
    parser.add_argument("--draw", action="store_true", help="only draw, from NAME.json")
    options = parser.parse_args()
    sweep = Sweep(options.jobs, options.backend, options.scheduler)
    try:
        sweep.check()
        if options.tasks < 1:
            raise ValueError(f"--tasks must be at least 1, got {options.tasks}")
        if not options.out.is_dir():
            raise ValueError(f"--out {options.out} is not a folder")
        _run(place, options, sweep, compute, draw)
    except (ValueError, OSError) as error:
        print(f"{place.name}: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"{place.name}: interrupted; the same command goes on", file=sys.stderr)
        sys.exit(130)


def _run(place: Path, options: Any, sweep: Sweep, compute: Any, draw: Any) -> None:
    torch.set_num_threads(1)
    numbers = options.out / f"{place.stem}.json"
    contents: dict[Path, bytes] = {}
    state = hashlib.sha256(place.read_bytes()).hexdigest()[:12]
    part = options.out / f"{place.stem}.{state}.part"
    if options.draw:
        results = json.loads(numbers.read_text())
    else:
        results = json.loads(json.dumps(compute(range(options.tasks), kept_in(part, sweep, place.stem))))
        contents[numbers] = (json.dumps(results) + "\n").encode()
    contents[options.out / f"{place.stem}.png"] = png(draw(results))
    contents[options.out / f"{place.stem}-dark.png"] = png(dark(draw(results)))
    write_files(contents)
    part.unlink(missing_ok=True)
    print(", ".join(str(path) for path in contents), file=sys.stderr)
