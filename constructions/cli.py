"""What the command lines share: parsing, one-line errors, exit statuses, input and output files.

Bad input ends a command with one line on standard error and exit status 2; outputs that exist are
then as they were.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
import math
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import numpy as np
import tyro

from constructions.files import check_writable, package_version, write_files
from constructions.weights import Array

T = TypeVar("T")


def flag(metavar: str, default: str | None = None) -> Any:
    """How an option is shown: its value's name and, where code finds it, the default in words."""
    if default is None:
        return tyro.conf.arg(metavar=metavar)
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=f"(default: {default})")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Common:
    """Options that every command has."""

    seed: int = 0
    """Seed of everything random."""
    json: Annotated[Path | None, flag("FILE", "none")] = None
    """Also write the results to this file, as JSON."""


def main(program: str, options: type[T], run: Callable[[T], None], argv: Sequence[str] | None) -> NoReturn:
    """Parse `argv`, run the command, and exit: 0, or 2 after one line saying what is wrong."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if "--version" in arguments:
        print(f"{program} {package_version()}")
        sys.exit(0)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
            parsed: Any = _parse(program, options, arguments)
            if parsed.common.seed < 0:
                raise ValueError(f"--seed must be at least 0, got {parsed.common.seed}")
            run(parsed)
    except BrokenPipeError:  # the reader of our output has left
        sys.exit(1)
    except (ValueError, OSError, OverflowError, MemoryError) as error:
        _fail(program, str(error) or type(error).__name__)
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        sys.exit(130)
    sys.exit(0)


def _fail(program: str, message: str) -> NoReturn:
    print(f"{program}: error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


def _parse(program: str, options: type[T], arguments: list[str]) -> T:
    """tyro's result; its boxed error becomes one line."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(options, prog=f"python -m {program}", args=arguments)
    except SystemExit as stop:
        if not stop.code:
            raise
        _fail(program, f"{_message(said.getvalue())} (see python -m {program} --help)")


def _message(box: str) -> str:
    """The text under the title of tyro's error box, up to the next rule."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box)
    lines = [line.strip("│|╭╮╰╯ ") for line in plain.splitlines()]
    body = dropwhile(lambda line: not line.strip("─-"), lines[1:])
    return " ".join(takewhile(lambda line: line.strip("─-"), body))


def write_outputs(figure: tuple[Path, Any] | None, json_file: Path | None, results: Any) -> None:
    """Write a matplotlib figure and results as JSON, both or neither."""
    contents: dict[Path, bytes] = {}
    if figure is not None:
        path, drawn = figure
        buffer = io.BytesIO()
        drawn.savefig(buffer, format=picture_format(path), dpi=150)
        contents[path] = buffer.getvalue()
    if json_file is not None:
        text = json.dumps(_plain(results), indent=1, allow_nan=False)
        contents[json_file] = (text + "\n").encode()
    write_files(contents)


def _plain(value: Any) -> Any:
    """JSON values: arrays as lists, numbers that are not finite as null."""
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, np.integer):
        return int(value)
    return value


def check_outputs(plot: Path | None, json_file: Path | None, *, reads: Sequence[Path | None] = ()) -> None:
    """Refuse outputs that cannot be written, or that would replace each other or a file that is read.

    Called before long work.  OSError or ValueError.
    """
    outputs = [path for path in (plot, json_file) if path is not None]
    places = [path.resolve() for path in outputs]
    if len(set(places)) < len(places):
        raise ValueError(f"{outputs[0]} is given for two outputs")
    for path in reads:
        if path is not None and path.resolve() in places:
            raise ValueError(f"{path} is an input and would be replaced by an output; give another name")
    if plot is not None and picture_format(plot) not in PICTURES:
        raise ValueError(
            f"cannot draw {plot}: no picture format {picture_format(plot)!r}; use .png, .svg or .pdf"
        )
    check_writable(*outputs)


PICTURES = ("png", "svg", "pdf")


def picture_format(path: Path) -> str:
    """From the end of the name; png where it has none."""
    return path.suffix.removeprefix(".").lower() or "png"


def read_csv(path: Path) -> Array:
    """The numbers in a CSV file, (rows, columns), with or without a header line.

    The separator is a comma, semicolon or tab.  ValueError naming line and column for text, empty
    cells, rows of unequal length, values that are not finite, no rows, or a file that is not text.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a text file (not UTF-8)") from None
    if "\0" in text:
        raise ValueError(f"{path} is not a text file (it holds zero bytes)")
    lines = text.splitlines()
    if max((len(line) for line in lines), default=0) > csv.field_size_limit():
        raise ValueError(f"{path} has a line of more than {csv.field_size_limit()} characters")
    first = next((line for line in lines if line.strip()), "")
    separator = max(",;\t", key=first.count)
    header = int(not any(_is_number(cell) for cell in first.split(separator)))
    if first and len(lines) > header:
        with contextlib.suppress(ValueError):  # all numbers, the usual large file
            fast = np.loadtxt(lines, delimiter=separator, comments=None, ndmin=2, skiprows=header)
            if np.isfinite(fast).all() and fast.size:
                return fast
    rows = [
        (number, [cell.strip() for cell in row])
        for number, row in enumerate(csv.reader(lines, delimiter=separator), start=1)
        if any(cell.strip() for cell in row)
    ][header:]
    if not rows:
        raise ValueError(f"{path} holds no rows of numbers")
    width = len(rows[0][1])
    for number, cells in rows:
        if len(cells) != width:
            raise ValueError(
                f"{path}, line {number}: {len(cells)} columns where line {rows[0][0]} has {width}"
            )
        for column, cell in enumerate(cells, start=1):
            if not _is_number(cell) or not math.isfinite(float(cell)):
                what = "is empty" if not cell else f"is {cell[:40]!r}, not a finite number"
                raise ValueError(f"{path}, line {number}: column {column} {what}")
    return np.array([cells for _, cells in rows], dtype=np.float64)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
