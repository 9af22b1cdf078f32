"""Several processes are one: shares of a batch, leaving together, a device for each; nobody waits for it."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from trainable import train
from trainable.config import NetworkConfig, Preset, TrainConfig
from trainable.objective import draw, share
from trainable.sampler import Group

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


def trainer(**network):
    config = NetworkConfig(3, n_layers=2, width=16, n_heads=2, **network)
    return train.Trainer(Preset(config, TrainConfig((3,), 10, batch=16)), 0, CPU)


def gradients(one, batches):
    """Mean over processes of the gradients of their parts, in one vector."""
    for batch in batches:
        (one.objective(batch) / len(batches)).backward()
    found = torch.cat([p.grad.flatten() for p in one.network.parameters()])
    one.network.zero_grad()
    return found.double()


def test_the_parts_of_a_batch_have_its_gradient():
    """Up to rounding: sqrt(parameters) sums of about 100 float32 terms."""
    one = trainer()
    batch = draw(0, 0, one.network.config, one.config, CPU)
    whole = gradients(one, [batch])
    for world in (2, 4):
        parts = gradients(one, [share(batch, rank, world) for rank in range(world)])
        assert (parts - whole).norm() < 1e-5 * whole.norm()
    one_sided = gradients(one, [share(batch, 0, 2)] * 2)
    assert (one_sided - whole).norm() > 1e-2 * whole.norm()


def test_the_parts_of_a_batch_are_the_batch():
    batch = draw(1, 0, trainer().network.config, TrainConfig((3,), 10, batch=16), CPU)
    parts = [share(batch, rank, 4) for rank in range(4)]
    for K, whole in enumerate(batch):
        for name, value in zip(Group._fields, whole, strict=True):
            found = [getattr(part[K], name) for part in parts]
            if value is not None:
                assert torch.equal(torch.stack(found, dim=1).flatten(0, 1), value)


@pytest.mark.parametrize(("batch", "world"), [(6, 1), (16, 3), (8, 4)])
def test_batches_that_do_not_divide_are_refused(monkeypatch, batch, world):
    """Of processes with no task of some K, the loss would be no number."""
    monkeypatch.setattr(train.distributed, "is_initialized", lambda: world > 1)
    monkeypatch.setattr(train.distributed, "get_rank", lambda: 0)
    monkeypatch.setattr(train.distributed, "get_world_size", lambda: world)
    chosen = Preset(NetworkConfig(3, n_layers=1, width=8), TrainConfig((3,), 1, batch=batch))
    with pytest.raises(ValueError, match=f"a batch of {batch} tasks must be a multiple of {4 * world}: "):
        train.Trainer(chosen, 0, CPU)


@pytest.mark.slow
def test_processes_leave_together(tmp_path):
    """One of two is asked to stop; both do, at the same step, and the state is written."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "trainable.train", "tgmm-small-d2", "--batch", "8", "--test-tasks", "2",
             "--steps", "100000", "--save-every", "10000", "--out", str(tmp_path), *options],
            cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=os.environ | {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "localhost",
                              "MASTER_PORT": port, "OMP_NUM_THREADS": "1"},
        )
        for rank, options in enumerate([[], ["--stop-after", "0"]])
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=90) for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 0], said
    assert "another process stopped after step 0 of 100000; go on with --resume" in said[0][0]
    assert (tmp_path / "state.safetensors").exists()


def test_every_process_has_its_own_device(monkeypatch):
    """Of several GPUs, the one of its number on this machine."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "zeros", lambda *_, **__: None)
    monkeypatch.setenv("LOCAL_RANK", "3")
    names = (None, "cuda", "cuda:1", "cpu")
    assert [str(train.chosen_device(name)) for name in names] == ["cuda:3", "cuda:3", "cuda:1", "cpu"]


class Waits(TorchDispatchMode):
    """Notes the operations for which a GPU's results must come to the host, or values go to it."""

    def __init__(self):
        super().__init__()
        self.found = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        by_mask = name == "index" and any(i is not None and i.dtype == torch.bool for i in args[1])
        of_unknown_size = name == "repeat_interleave" and (kwargs or {}).get("output_size") is None
        if name in {"_local_scalar_dense", "nonzero", "lift_fresh"} or by_mask or of_unknown_size:
            self.found.add(name)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", [{}, {"anisotropic": True}, {"readout": "m-step"}, {"any_dim": True}])
def test_nobody_waits_for_the_device(kind):
    """Drawing a batch, its loss and its gradient; what is the same in every step is made in the first."""
    one = trainer(**kind)

    def step():
        one.objective(draw(1, 0, one.network.config, one.config, CPU)).backward()

    step()
    with Waits() as waits:
        step()
    assert waits.found == set()


@pytest.mark.parametrize(
    ("wait", "name"),
    [
        (lambda x: float(x.sum()), "_local_scalar_dense"),
        (lambda x: x[x > 0], "index"),
        (lambda x: x.nonzero(), "nonzero"),
        (lambda x: torch.tensor([1.0, 2.0]) * x, "lift_fresh"),
        (lambda x: torch.repeat_interleave(x, (x > 0).long()), "repeat_interleave"),
    ],
)
def test_waiting_is_noticed(wait, name):
    with Waits() as waits:
        wait(torch.ones(2))
    assert name in waits.found
