"""Meta-train a TGMM (Algorithm 2) by a preset, with a log, checkpoints and a progress bar.

    python -m trainable.train tgmm-small-d8 --out runs/tgmm-small-d8

writes state.safetensors (to go on from, with --resume), log.jsonl and, at the end, model.safetensors into the
folder.  Interrupted (Ctrl-C, SIGTERM) it finishes the step in hand and writes its state.  Several processes:
torchrun --nproc-per-node 2 -m trainable.train ..., each with its part of every batch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from constructions.cli import Common, check_outputs, flag, main, write_outputs
from constructions.files import package_version
from trainable.checkpoint import load_state, save_network, save_state
from trainable.config import Preset, preset
from trainable.log import Log
from trainable.loss import l2_errors, oracle_errors
from trainable.network import Network, extra_parameters
from trainable.objective import Objective, draw, share
from trainable.optim import optimizers, set_rates
from trainable.sampler import Group, sample_group

PROGRAM = "trainable.train"

_TEST_SEED = 2**40
"""The tasks that the log's errors are about; no step draws its batch from it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:  # noqa: D101
    __doc__ = __doc__

    preset: tyro.conf.Positional[str]
    """paper-dD, tgmm-dD, tgmm-small-dD or tgmm-any; D is a dimension."""
    out: Path
    """Folder for the state, the log and the trained model."""
    steps: Annotated[int | None, flag("INT", "the preset's")] = None
    """Training steps."""
    batch: Annotated[int | None, flag("INT", "the preset's")] = None
    """Tasks a step."""
    resume: bool = False
    """Go on from the state in the folder."""
    save_every: float = 60.0
    """Seconds between two states."""
    log_every: int = 200
    """Steps between two lines of the log."""
    test_tasks: int = 64
    """Tasks for each K that the log's errors are about."""
    stop_after: Annotated[float | None, flag("SECONDS", "never")] = None
    """Write the state and stop after so much time."""
    device: Annotated[str | None, flag("NAME", "cuda where there is one")] = None
    """Where to train."""
    threads: int = 1
    """Threads on a CPU."""
    compile: bool = False
    """Compile the network first (pays on a GPU)."""
    tensorboard: bool = False
    """Also log for TensorBoard, into the folder (extra track)."""
    common: tyro.conf.OmitArgPrefixes[Common] = dataclasses.field(default_factory=Common)


class Stop:
    """Whether a signal or the clock asked to stop."""

    def __init__(self, seconds: float | None) -> None:
        self.asked = ""
        self._until = None if seconds is None else time.monotonic() + seconds

    def __enter__(self) -> Stop:
        self._before = {s: signal.signal(s, self._ask) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, _: object) -> None:
        self.asked = signal.Signals(number).name

    def __bool__(self) -> bool:
        if not self.asked and self._until is not None and time.monotonic() >= self._until:
            self.asked = "--stop-after"
        return bool(self.asked)


class Trainer:
    """A network, its optimisers and the step they are at."""

    def __init__(self, chosen: Preset, seed: int, device: torch.device, *, compiled: bool = False) -> None:
        self.config, self.seed, self.device = chosen.training, seed, device
        self.step, self.rank, self.world = 0, 0, 1
        if distributed.is_initialized():
            self.rank, self.world = distributed.get_rank(), distributed.get_world_size()
        kinds = len(chosen.network.n_components)
        if self.config.batch % (kinds * self.world):
            raise ValueError(
                f"a batch of {self.config.batch} tasks must be a multiple of {kinds * self.world}: the same "
                f"number of each of {kinds} K in each of {self.world} processes"
            )
        with torch.random.fork_rng(devices=[]):  # torch's initialisers draw from the global generator
            torch.manual_seed(seed)
            self.network = Network(chosen.network).to(device)
        self.optimizers = optimizers(self.network, self.config)
        self.objective: nn.Module = Objective(self.network, self.config)
        if compiled:
            self.objective.compile()
        if self.world > 1:
            # Without the dense target the loss does not reach own_mean.
            unused = not self.config.dense
            self.objective = DistributedDataParallel(self.objective, find_unused_parameters=unused)
            self.others = distributed.new_group(backend="gloo")

    def advance(self) -> torch.Tensor:
        """One step; the loss, still on the device."""
        batch = draw(self.step, self.seed, self.network.config, self.config, self.device)
        set_rates(self.optimizers, self.step, self.config)
        cuda = self.device.type == "cuda"
        with torch.autocast("cuda", torch.bfloat16) if cuda else contextlib.nullcontext():
            loss = self.objective(share(batch, self.rank, self.world) if self.world > 1 else batch)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return loss.detach()

    def agree(self, stop: bool) -> bool:
        """Whether any process was asked to stop: all leave at the same step, or one would wait for ever."""
        if self.world == 1:
            return stop
        votes = torch.tensor(float(stop))
        distributed.all_reduce(votes, group=self.others)
        return bool(votes > 0)


def held_out(trainer: Trainer, count: int, N: int = 128) -> list[Group]:
    """Tasks that no step is trained on."""
    generator = torch.Generator(trainer.device).manual_seed(_TEST_SEED + trainer.seed)
    config = trainer.network.config
    d = trainer.config.dims[-1]
    return [
        sample_group(count, N, d, K, generator, anisotropic=config.anisotropic) for K in config.n_components
    ]


@torch.no_grad()
def errors(network: Network, batch: list[Group]) -> dict[str, float]:
    """Mean l2-error for each K."""
    groups = [(g.weights.shape[1], len(g.X)) for g in batch]
    found = network(torch.cat([g.X for g in batch]), groups)
    return {str(K): float(l2_errors(f, g).mean()) for (K, _), f, g in zip(groups, found, batch, strict=True)}


def chosen_preset(options: Options) -> Preset:
    """The preset with the options' changes."""
    found = preset(options.preset)
    changes = {name: getattr(options, name) for name in ("steps", "batch")}
    given = {name: value for name, value in changes.items() if value is not None}
    return found._replace(training=dataclasses.replace(found.training, **given))


def chosen_device(name: str | None) -> torch.device:
    """The device of that name, or the best there is; ValueError for one that there is not.

    Each of the processes that torchrun starts on a machine gets a GPU of its own.
    """
    try:
        cuda = name == "cuda" or (name is None and torch.cuda.is_available())
        device = torch.device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if cuda else name or "cpu")
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {name}: {str(error).splitlines()[0]}") from None
    return device


@contextlib.contextmanager
def processes(device: torch.device) -> Iterator[int]:
    """Join the group of processes that torchrun started, if it did; yields this one's rank."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield 0
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield distributed.get_rank()
    finally:
        distributed.destroy_process_group()


def run(options: Options) -> None:
    """The command."""
    check_outputs(None, options.common.json)
    chosen = chosen_preset(options)
    device = chosen_device(options.device)
    if device.type == "cpu":
        torch.set_num_threads(options.threads)
    state = options.out / "state.safetensors"
    if state.exists() and not options.resume:
        raise ValueError(f"{state} exists; add --resume to go on from it, or choose another folder")
    with processes(device) as rank, Stop(options.stop_after) as stop:
        options.out.mkdir(parents=True, exist_ok=True)
        trainer = Trainer(chosen, options.common.seed, device, compiled=options.compile)
        if options.resume:
            _resume(trainer, state, chosen)
        summary = _train(trainer, options, state, stop, first=rank == 0)
    if rank == 0 and options.common.json is not None:
        write_outputs(None, options.common.json, summary)


def _resume(trainer: Trainer, state: Path, chosen: Preset) -> None:
    about = load_state(state, trainer.network, trainer.optimizers)
    training, seed = about.get("training"), about.get("seed")
    if training != _plain(chosen.training) or seed != trainer.seed:
        raise ValueError(f"{state} is of another run: it has {training} and seed {seed}")
    trainer.step = about["step"]


def _plain(config: Any) -> Any:
    return json.loads(json.dumps(dataclasses.asdict(config)))


def _print_sizes(network: Network) -> None:
    """Parameters of the parts (Appendix B)."""
    extra = extra_parameters(network.config)
    total = sum(p.numel() for p in network.blocks.parameters())
    parts = ", ".join(f"{name} {count}" for name, count in extra.items())
    print(f"parameters: backbone {total}; {parts} ({100 * sum(extra.values()) / total:.1f}% of it)")


def _train(trainer: Trainer, options: Options, state: Path, stop: Stop, *, first: bool) -> dict[str, Any]:
    about = {
        "preset": options.preset,
        "training": _plain(trainer.config),
        "seed": trainer.seed,
        "version": package_version(),
    }
    if first:
        _print_sizes(trainer.network)
    log = Log(options.out, trainer.step, tensorboard=options.tensorboard) if first else None
    before = log.last.get("seconds", 0.0) if log else 0.0
    batch = held_out(trainer, options.test_tasks)
    floor = {str(g.weights.shape[1]): float(oracle_errors(g).mean()) for g in batch}
    steps, began, saved, at = trainer.config.steps, time.monotonic(), time.monotonic(), trainer.step

    def keep() -> None:
        save_state(state, trainer.network, trainer.optimizers, about | {"step": trainer.step})

    with tqdm(
        total=steps, initial=at, desc=options.preset, unit="step", disable=None if first else True
    ) as bar:
        while trainer.step < steps and not trainer.agree(bool(stop)):
            loss = trainer.advance()
            bar.update()
            last = trainer.step == steps
            if log and (trainer.step % options.log_every == 0 or last):
                if not math.isfinite(float(loss)):
                    raise ValueError(f"the loss is {float(loss)} after step {trainer.step}")
                l2 = errors(trainer.network, batch)
                here = time.monotonic() - began
                log.write({"step": trainer.step, "tasks": trainer.step * trainer.config.batch,
                           "loss": float(loss), "l2": l2, "floor": floor, "seconds": round(before + here, 1),
                           "steps_per_second": round((trainer.step - at) / here, 2)})  # fmt: skip
                ratio = sum(l2.values()) / sum(floor.values())
                bar.set_postfix(loss=f"{float(loss):.3f}", error=f"{ratio:.2f}x floor")
            if first and time.monotonic() - saved > options.save_every:
                keep()
                saved = time.monotonic()
    if log is None:
        return {}
    log.close()
    keep()
    if trainer.step == steps:
        # A finished run that is resumed finds the errors in its log.
        line = log.last or {"l2": errors(trainer.network, batch), "floor": floor}
        save_network(options.out / "model.safetensors", trainer.network, about | {"last": line})
        print(f"trained: {options.out / 'model.safetensors'}, l2-error {line['l2']}, floor {line['floor']}")
    else:
        asked = stop.asked or "another process stopped"
        print(f"{asked} after step {trainer.step} of {steps}; go on with --resume")
    return about | {"step": trainer.step, "last": log.last}


if __name__ == "__main__":
    main(PROGRAM, Options, run, None)
