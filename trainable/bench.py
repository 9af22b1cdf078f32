"""Training throughput beside a straightforward loop, in one run on one device.

    python -m trainable.bench

The straightforward loop is written as such loops are: tasks drawn one by one on the host, padded to the
largest sample size with a mask, a GPT-2 of the transformers library (extra `hf`) as the backbone, eager.
Both have the same number of layers, width, heads and tasks a step, the paper's loss (components sorted by
weight) and AdamW; beside it stands what the full recipe costs.  Rounds alternate, and medians are compared.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from torch import Tensor, nn
from tqdm import tqdm

from constructions.cli import Common, check_outputs, flag, main, write_outputs
from constructions.files import package_version
from gmm import TaskDistribution
from trainable.config import NetworkConfig, Preset, preset
from trainable.train import Trainer, chosen_device

PROGRAM = "trainable.bench"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:  # noqa: D101
    __doc__ = __doc__

    preset: tyro.conf.Positional[str] = "tgmm-small-d8"
    """Whose network and batch are taken."""
    batch: Annotated[int | None, flag("INT", "the preset's")] = None
    """Tasks a step."""
    steps: int = 3
    """Steps in a round."""
    rounds: int = 5
    """Rounds of each loop."""
    device: Annotated[str | None, flag("NAME", "cuda where there is one")] = None
    """Where to train."""
    compile: bool = False
    """Compile our network."""
    common: tyro.conf.OmitArgPrefixes[Common] = dataclasses.field(default_factory=Common)


class Straightforward:
    """Padded batches from the host, GPT-2, sorted labels, a loop over the tasks of a batch."""

    def __init__(self, config: NetworkConfig, batch: int, seed: int, device: torch.device) -> None:
        try:
            from transformers import GPT2Config, GPT2Model
        except ImportError:
            raise ValueError('the loop to compare with needs transformers: pip install -e ".[hf]"') from None
        self.config, self.batch, self.device = config, batch, device
        self.rng, self.law = np.random.default_rng(seed), TaskDistribution(config.dim)
        rows = [K + config.dim for K in config.n_components]
        self.parts = nn.ModuleDict(
            {
                "task": nn.Embedding(len(rows), config.width),
                "readin": nn.Linear(config.dim + config.width, config.width),
                "backbone": GPT2Model(
                    GPT2Config(
                        n_embd=config.width, n_layer=config.n_layers, n_head=config.n_heads, vocab_size=1,
                        n_positions=config.max_samples, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
                        attn_implementation="eager", bos_token_id=None, eos_token_id=None,
                    )
                ),
                "key": nn.ModuleList(nn.Linear(config.width, r, bias=False) for r in rows),
                "value": nn.ModuleList(nn.Linear(config.width, r, bias=False) for r in rows),
                "query": nn.ModuleList(
                    nn.Linear(K, r, bias=False) for K, r in zip(config.n_components, rows, strict=True)
                ),
            }
        ).to(device)  # fmt: skip
        self.optimizer = torch.optim.AdamW(self.parts.parameters(), lr=1e-4, weight_decay=1e-4)

    def advance(self) -> None:
        """One step."""
        tasks = self.law.sample(self.batch, self.rng)
        longest = max(len(task.X) for task in tasks)
        X, mask = torch.zeros(self.batch, longest, self.config.dim), torch.zeros(self.batch, longest)
        for i, task in enumerate(tasks):
            X[i, : len(task.X)] = torch.tensor(task.X)
            mask[i, : len(task.X)] = 1
        X, mask = X.to(self.device), mask.to(self.device)
        kinds = [self.config.n_components.index(task.mixture.n_components) for task in tasks]
        about = self.parts["task"](torch.tensor(kinds, device=self.device))[:, None].expand(-1, longest, -1)
        H = self.parts["readin"](torch.cat([X, about], dim=2))
        H = self.parts["backbone"](inputs_embeds=H, attention_mask=mask).last_hidden_state
        loss: Any = torch.stack(
            [self._loss(H[i, : len(task.X)], kinds[i], task.mixture) for i, task in enumerate(tasks)]
        ).mean()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _loss(self, H: Tensor, kind: int, mixture: Any) -> Tensor:
        key, value, query = (self.parts[name][kind] for name in ("key", "value", "query"))  # type: ignore[index]
        K = mixture.n_components
        O = value(H).T @ torch.softmax(key(H) @ query.weight, dim=0)
        order = np.argsort(mixture.weights)
        weights = torch.tensor(mixture.weights[order], dtype=torch.float32, device=self.device)
        means = torch.tensor(mixture.means[order], dtype=torch.float32, device=self.device)
        log_weights = torch.log_softmax(O[:K].mean(dim=0), dim=0)
        return ((O[K:].T - means) ** 2).mean() - (weights * log_weights).sum()


def tasks_per_second(advance: Callable[[], Any], steps: int, batch: int, device: torch.device) -> float:
    """Throughput of one round."""
    wait: Callable[[], object] = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    began = time.perf_counter()
    for _ in range(steps):
        advance()
    wait()
    return steps * batch / (time.perf_counter() - began)


def measure(options: Options) -> dict[str, list[float]]:
    """Tasks per second of each loop, round by round."""
    device = chosen_device(options.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    found = preset(options.preset)
    batch = options.batch or found.training.batch
    recipe = dataclasses.replace(found.training, batch=batch)
    plain = dataclasses.replace(recipe, labels="sorted", deep=0.0, dense=0.0, optimizer="adamw")
    seed = options.common.seed
    loops: dict[str, Callable[[], Any]] = {
        "straightforward": Straightforward(found.network, batch, seed, device).advance,
        "ours": Trainer(Preset(found.network, plain), seed, device, compiled=options.compile).advance,
        "ours, full recipe": Trainer(
            Preset(found.network, recipe), seed, device, compiled=options.compile
        ).advance,
    }
    for advance in loops.values():
        advance()
    rates: dict[str, list[float]] = {name: [] for name in loops}
    for _ in tqdm(range(options.rounds), desc="rounds", disable=None):
        for name, advance in loops.items():
            rates[name].append(tasks_per_second(advance, options.steps, batch, device))
    return rates


def run(options: Options) -> None:
    """The command."""
    check_outputs(None, options.common.json)
    for name in ("steps", "rounds"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name} must be at least 1, got {getattr(options, name)}")
    if options.batch is not None and options.batch < 4:
        raise ValueError(f"--batch must be at least 4, got {options.batch}")
    rates = measure(options)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, median in medians.items():
        print(f"{name:20} {median:8.1f} tasks/s ({min(rates[name]):.1f} to {max(rates[name]):.1f})")
    ratio, full = (medians[name] / medians["straightforward"] for name in ("ours", "ours, full recipe"))
    print(f"ratio {ratio:.2f}, with the full recipe {full:.2f}")
    if options.common.json is not None:
        results = {"tasks_per_second": rates, "ratio": ratio, "ratio_full_recipe": full,
                   "seed": options.common.seed, "version": package_version()}  # fmt: skip
        write_outputs(None, options.common.json, results)


if __name__ == "__main__":
    main(PROGRAM, Options, run, None)
