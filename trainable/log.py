"""The log of a run: a line of JSON for each report, and TensorBoard's files where they are asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from constructions.files import write_files


class Log:
    """log.jsonl in a run's folder.

    Lines after `step`, which a run that goes on from there will write again, are dropped, as is one that a
    crash cut off.  `last` is the last line that is kept, or empty.
    """

    def __init__(self, folder: Path, step: int, *, tensorboard: bool = False) -> None:
        self.path = folder / "log.jsonl"
        lines = self.path.read_text().splitlines(keepends=True) if self.path.exists() else []
        whole = [(line, json.loads(line)) for line in lines if line.endswith("\n")]
        kept = [(line, report) for line, report in whole if report["step"] <= step]
        if len(kept) < len(lines):
            write_files({self.path: "".join(line for line, _ in kept).encode()})
        self.last: dict[str, Any] = kept[-1][1] if kept else {}
        self.board = _board(folder) if tensorboard else None

    def write(self, report: dict[str, Any]) -> None:
        """Add a line."""
        with self.path.open("a") as file:
            file.write(json.dumps(report) + "\n")
        self.last = report
        if self.board is not None:
            self.board.add_scalar("loss", report["loss"], report["step"])
            self.board.add_scalars("l2-error", report["l2"], report["step"])

    def close(self) -> None:
        """Close TensorBoard's files."""
        if self.board is not None:
            self.board.close()


def _board(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ValueError('--tensorboard needs the extra: pip install -e ".[track]"') from None
    return SummaryWriter(str(folder))
