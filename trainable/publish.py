"""Put a trained network into the package: weights in half precision, and a card that says where they are
from.

    python -m trainable.publish runs/tgmm-small-d8 --name tgmm-d8

writes trainable/models/NAME.safetensors and NAME.json: configuration, training command, seed, log, the state
of the sources, and the errors on tasks not seen in training, for the network as trained and as stored.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
from pathlib import Path
from typing import Annotated

import torch
import tyro

from constructions.cli import Common, flag, main, write_outputs
from constructions.files import check_writable
from trainable import evaluate
from trainable.checkpoint import load_network, save_network

PROGRAM = "trainable.publish"

MODELS = Path(__file__).parent / "models"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:  # noqa: D101
    __doc__ = __doc__

    run: tyro.conf.Positional[Path]
    """Folder of a finished training."""
    name: str
    """Name under which the package has it."""
    tasks: int = 1280
    """Tasks for each K of the evaluation."""
    em: bool = True
    """Also evaluate EM from the best of ten starts on them."""
    folder: Annotated[Path, flag("DIR", "the package's")] = MODELS
    """Where the files go."""
    common: tyro.conf.OmitArgPrefixes[Common] = dataclasses.field(default_factory=lambda: Common(seed=1))


def commit() -> str:
    """The state of the sources."""
    git = shutil.which("git")
    if git is None:
        return "unknown"
    done = subprocess.run(
        [git, "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


def run(options: Options) -> None:
    """The command."""
    weights, card = (options.folder / f"{options.name}.{end}" for end in ("safetensors", "json"))
    check_writable(weights, card)
    network, about = load_network(options.run / "model.safetensors")
    torch.set_num_threads(1)
    network.eval()
    asked = evaluate.Options(model="", tasks=options.tasks, em=options.em, common=options.common)
    as_trained = evaluate.evaluate(network, dataclasses.replace(asked, copies=1, refine=0, em=False))
    save_network(weights, network.half(), {"preset": about["preset"], "seed": about["seed"]})
    stored, _ = load_network(weights)
    as_stored = evaluate.evaluate(stored.eval(), asked)
    log = [json.loads(line) for line in (options.run / "log.jsonl").read_text().splitlines()]
    thinned = log[-1 :: -max(1, len(log) // 50)][::-1]
    trained, seed = about["preset"], about["seed"]
    results = {
        "name": options.name,
        "command": f"python -m trainable.train {trained} --seed {seed} --out runs/{trained}",
        "training": about["training"],
        "network": dataclasses.asdict(stored.config),
        "parameters": sum(p.numel() for p in stored.parameters()),
        "seed": seed,
        "commit": commit(),
        "version": about["version"],
        "log": thinned,
        "evaluation": {
            "command": f"python -m trainable.evaluate {options.name}" + " --em" * options.em,
            "seed": options.common.seed, "tasks": options.tasks, "samples": asked.n,
            "copies": asked.copies, "refine": asked.refine,
            "as trained, raw": {K: row["raw"].mean for K, row in as_trained.items()},
            "as stored": {K: {name: s._asdict() for name, s in row.items()} for K, row in as_stored.items()},
        },
    }  # fmt: skip
    write_outputs(None, card, results)
    print(f"{weights} ({weights.stat().st_size / 1e6:.2f} MB) and {card}")


if __name__ == "__main__":
    main(PROGRAM, Options, run, None)
