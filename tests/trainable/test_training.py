"""Training learns what its twins do not, and goes on after what asks it to stop."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from trainable import train
from trainable.checkpoint import load_network, load_state
from trainable.config import NetworkConfig, Preset, TrainConfig, preset
from trainable.optim import rate

ROOT = Path(__file__).parents[2]
TINY = ["tgmm-small-d2", "--batch", "8"]
ONE_STEP = [*TINY, "--steps", "1", "--test-tasks", "2"]


def trainer(steps=200, **changes):
    options = {"batch": 32, "min_samples": 32, "max_samples": 32, "warmup": 20,
               "lr_matrices": 5e-3, "lr": 3e-3} | changes  # fmt: skip
    network = NetworkConfig(2, n_components=(2,), n_layers=2, width=32, n_heads=4)
    return train.Trainer(Preset(network, TrainConfig((2,), steps, **options)), 0, torch.device("cpu"))


def error(trained):
    return train.errors(trained.network, train.held_out(trained, 256, 32))["2"]


def advance(trained, steps):
    for _ in range(steps):
        trained.advance()
    return trained


@pytest.mark.slow
def test_a_tiny_network_learns_and_its_twins_do_not():
    """l2-error below 0.6 after 200 steps of 32 tasks (two components in the plane, 32 samples); untrained
    it is above 10, and with sorted labels above the floor that the sorting sets, 0.7."""
    assert error(advance(trainer(), 200)) < 0.6
    assert error(trainer()) > 10
    assert error(advance(trainer(labels="sorted"), 200)) > 0.7


def command(out, *options):
    return [sys.executable, "-m", "trainable.train", *TINY, "--out", str(out), *options]


def start(out, *options, **extra):
    return subprocess.Popen(
        command(out, *options), cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"}, **extra,
    )  # fmt: skip


def finish(out, *options, **extra):
    process = start(out, *options, **extra)
    said, wrong = process.communicate(timeout=120)
    return process.returncode, said, wrong


def test_a_resumed_run_is_the_same_run():
    """Bit for bit, over parameters and optimisers."""
    whole, first = advance(trainer(steps=6), 6), advance(trainer(steps=6), 3)
    folder = Path(os.environ.get("TMPDIR", "/tmp"))
    path = folder / f"resume-{os.getpid()}.safetensors"
    try:
        train.save_state(path, first.network, first.optimizers, {"step": 3})
        second = trainer(steps=6)
        assert load_state(path, second.network, second.optimizers) == {"step": 3}
    finally:
        path.unlink(missing_ok=True)
    second.step = 3
    advance(second, 3)
    for a, b in zip(whole.network.parameters(), second.network.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first.network.readin.weight, second.network.readin.weight)


@pytest.mark.slow
def test_a_signal_ends_a_run_with_its_state_written(tmp_path):
    process = start(tmp_path / "run", "--steps", "100000", "--save-every", "0")
    while not (tmp_path / "run" / "state.safetensors").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "\nSIGTERM after step" in said
    assert "--resume" in said


@pytest.mark.slow
def test_a_full_disk_leaves_the_last_state(tmp_path):
    folder = tmp_path / "run"
    assert finish(folder, "--steps", "50", "--stop-after", "0")[0] == 0
    before = (folder / "state.safetensors").read_bytes()
    code, _, wrong = finish(
        folder, "--steps", "50", "--resume", "--save-every", "0",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
    )  # fmt: skip
    assert code == 2
    assert wrong.strip().splitlines()[-1].startswith("trainable.train: ")
    assert (folder / "state.safetensors").read_bytes() == before
    assert [p.name for p in folder.iterdir() if p.name.startswith(".")] == []


@pytest.mark.slow
def test_two_processes_are_one(tmp_path):
    """torchrun with two processes over gloo and one process, on the same batches."""
    assert finish(tmp_path / "one", "--steps", "3")[0] == 0
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         "-m", "trainable.train", *TINY, "--steps", "3", "--out", str(tmp_path / "two")],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, second = (
        load_network(tmp_path / name / "model.safetensors")[0].state_dict() for name in ("one", "two")
    )
    options = train.Options(preset="tgmm-small-d2", batch=8, steps=3, out=tmp_path)
    untrained = train.Trainer(train.chosen_preset(options), 0, torch.device("cpu")).network.state_dict()

    def apart(one, other):
        return float(torch.cat([(one[name] - other[name]).flatten() for name in one]).norm())

    # Not closer: Muon orthogonalises in bfloat16, and Adam's first steps are little more than signs.
    assert apart(first, second) < 0.05 * apart(first, untrained)
    half = train.Trainer(train.chosen_preset(options), 0, torch.device("cpu"))
    half.world = 2
    assert apart(first, advance(half, 3).network.state_dict()) > 0.2 * apart(first, untrained)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["paper-d8", "tgmm-d2", "tgmm-d8", "tgmm-d32", "tgmm-d128", "tgmm-any", "tgmm-small-any",
             "tgmm-d8-anisotropic"]
)  # fmt: skip
def test_every_preset_trains(name, tmp_path, capsys):
    """One step of few tasks: the command of every run that is not shipped."""
    options = [name, "--steps", "1", "--batch", "4", "--test-tasks", "2", "--out", str(tmp_path)]
    with pytest.raises(SystemExit) as end:
        train.main(train.PROGRAM, train.Options, train.run, options)
    assert end.value.code == 0
    assert "parameters: backbone " in capsys.readouterr().out
    network, about = load_network(tmp_path / "model.safetensors")
    assert about["preset"] == name
    assert network.config == preset(name).network


def test_tensorboard_is_asked_for(tmp_path):
    pytest.importorskip("tensorboard")
    with pytest.raises(SystemExit) as end:
        train.main(
            train.PROGRAM, train.Options, train.run, [*ONE_STEP, "--tensorboard", "--out", str(tmp_path)]
        )
    assert end.value.code == 0
    assert list(tmp_path.glob("events.out.*"))


def test_the_rate_rises_and_falls():
    config = TrainConfig((2,), 100, warmup=10)
    assert rate(0, config) == 0.1
    assert rate(9, config) == rate(10, config) == 1
    assert rate(55, config) == pytest.approx(0.5)
    assert rate(99, config) < 1e-3
    assert rate(99, TrainConfig((2,), 100, warmup=0, decay_to_zero=False)) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gpt-d8"], "no preset"),
        ([*TINY, "--steps", "0"], "steps >= 1"),
        ([*TINY, "--resume"], "no such checkpoint"),
        ([*TINY, "--device", "abacus"], "abacus"),
        ([*TINY, "--seed", "-1"], "--seed"),
    ],
)
def test_bad_input_is_one_line(arguments, message, capsys, tmp_path):
    with pytest.raises(SystemExit) as end:
        train.main(train.PROGRAM, train.Options, train.run, [*arguments, "--out", str(tmp_path / "run")])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_state_is_not_overwritten_and_another_run_is_not_resumed(tmp_path, capsys):
    def go(*options):
        with pytest.raises(SystemExit) as end:
            train.main(train.PROGRAM, train.Options, train.run, [*ONE_STEP, "--out", str(tmp_path), *options])
        return end.value.code, capsys.readouterr().err

    assert go() == (0, "")
    code, said = go()
    assert (code, "add --resume" in said) == (2, True)
    code, said = go("--resume", "--seed", "1")
    assert (code, "is of another run" in said) == (2, True)
    code, said = go("--resume", "--batch", "16")
    assert (code, "is of another run" in said) == (2, True)
