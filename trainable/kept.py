"""What is known of single tasks, in a file that grows by a line with each fit."""

from __future__ import annotations

import json
import math
from pathlib import Path

from trainable.fits import Errors

Row = tuple[str, str, Errors]
"""What the task and the fit are kept under, and what was measured."""


class Kept:
    """The contents of such a file.  A last line that was cut off is dropped; ValueError for other files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[tuple[str, str], Errors] = {}
        if not path.exists():
            return
        text = path.read_text("utf-8")
        whole, _, torn = text.rpartition("\n")
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                task, fit, values = json.loads(line)
                self.known[task, fit] = Errors(*(math.nan if v is None else float(v) for v in values))
            except (ValueError, TypeError):
                raise ValueError(
                    f"{path}, line {number} is no result of a task; move the file away"
                ) from None
        if torn:
            path.write_text(whole + "\n" * bool(whole), "utf-8")

    def add(self, rows: list[Row]) -> None:
        """Keep them."""
        lines = []
        for task, fit, got in rows:
            self.known[task, fit] = got
            lines.append(json.dumps([task, fit, [None if math.isnan(v) else v for v in got]]) + "\n")
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(lines))
