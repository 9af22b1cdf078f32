"""What a run leaves behind when it is cut off, and what it makes of that when it goes on."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from trainable import train
from trainable.checkpoint import load_network, load_state
from trainable.config import NetworkConfig, Preset, TrainConfig
from trainable.log import Log

ROOT = Path(__file__).parents[2]
OPTIONS = ["tgmm-small-d2", "--batch", "4", "--test-tasks", "2"]


def go(capsys, out, *options):
    """Exit status, standard output and standard error of the command."""
    with pytest.raises(SystemExit) as end:
        train.main(train.PROGRAM, train.Options, train.run, [*OPTIONS, "--out", str(out), *options])
    return end.value.code, *capsys.readouterr()


def reports(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("place", ["write", "replace"])
def test_kill_9_in_the_middle_of_writing_a_state(tmp_path, capsys, place):
    """The second state is cut off after half its bytes, and when it is written but not yet in its place; the
    first one is whole each time."""
    kill = f"""
import os, signal, sys
from trainable import train
calls = 0
def killed(*arguments):
    global calls
    calls += 1
    if calls == 2:
        if {place!r} == "write":
            os.truncate(arguments[0], os.fstat(arguments[0]).st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments)
name = "replace" if {place!r} == "replace" else "fsync"
original = getattr(os, name)
setattr(os, name, killed)
train.main(train.PROGRAM, train.Options, train.run, sys.argv[1:])
"""
    out = tmp_path / "run"
    options = [*OPTIONS, "--steps", "3", "--save-every", "0", "--log-every", "1", "--out", str(out)]
    done = subprocess.run([sys.executable, "-c", kill, *options], cwd=ROOT, check=False, timeout=100)
    assert done.returncode == -9
    assert any(path.name.startswith(".state") for path in out.iterdir())  # what it was writing
    trainer = train.Trainer(
        train.chosen_preset(train.Options(preset="tgmm-small-d2", batch=4, steps=3, out=out)), 0,
        torch.device("cpu"),
    )  # fmt: skip
    about = load_state(out / "state.safetensors", trainer.network, trainer.optimizers)
    assert about["step"] == 1
    assert go(capsys, out, "--steps", "3", "--resume")[0] == 0
    assert go(capsys, tmp_path / "whole", "--steps", "3")[0] == 0
    one, other = (load_network(place / "model.safetensors")[0] for place in (out, tmp_path / "whole"))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_a_finished_run_can_be_resumed(tmp_path, capsys):
    """As a loop of time-limited commands does: nothing changes, and the network is written if it was not."""
    assert go(capsys, tmp_path, "--steps", "1")[0] == 0
    network, about = load_network(tmp_path / "model.safetensors")
    log = reports(tmp_path)
    for lost in (None, "model.safetensors", "log.jsonl"):
        if lost:
            (tmp_path / lost).unlink()
        code, said, wrong = go(capsys, tmp_path, "--steps", "1", "--resume")
        assert (code, wrong) == (0, "")
        assert f"l2-error {about['last']['l2']}" in said
        again, found = load_network(tmp_path / "model.safetensors")
        assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))
        if lost != "log.jsonl":
            assert (found, reports(tmp_path)) == (about, log)


def test_the_log_goes_on_where_the_state_is(tmp_path, capsys):
    """Reports after the last state, and one that was cut off, are dropped; time adds up."""
    assert go(capsys, tmp_path, "--steps", "4", "--stop-after", "0")[0] == 0
    old = {"step": 0, "seconds": 1000.0}
    (tmp_path / "log.jsonl").write_text(f'{json.dumps(old)}\n{{"step": 2}}\n{{"step": 3, "ta')
    assert go(capsys, tmp_path, "--steps", "4", "--resume", "--log-every", "2")[0] == 0
    assert [report["step"] for report in reports(tmp_path)] == [0, 2, 4]
    assert reports(tmp_path)[0] == old
    assert 1000 < reports(tmp_path)[-1]["seconds"] < 1100


def test_another_run_s_log_is_not_added_to(tmp_path, capsys):
    (tmp_path / "log.jsonl").write_text('{"step": 7}\n')
    assert go(capsys, tmp_path, "--steps", "1")[0] == 0
    assert [report["step"] for report in reports(tmp_path)] == [1]


def test_a_log_that_needs_no_change_is_left_alone(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n')
    before = path.stat().st_ino
    assert Log(tmp_path, 2).last == {"step": 2}
    assert path.stat().st_ino == before


def test_a_run_that_diverges_keeps_its_last_state(tmp_path, capsys, monkeypatch):
    assert go(capsys, tmp_path, "--steps", "4", "--stop-after", "0")[0] == 0
    before = (tmp_path / "state.safetensors").read_bytes()

    def no_number(every, *_):
        every[0].param_groups[0].update(lr=float("nan"))

    monkeypatch.setattr(train, "set_rates", no_number)
    code, _, wrong = go(capsys, tmp_path, "--steps", "4", "--resume", "--log-every", "2")
    assert (code, wrong) == (2, "trainable.train: error: the loss is nan after step 2\n")
    code, _, wrong = go(capsys, tmp_path, "--steps", "4", "--resume", "--save-every", "0")
    assert code == 2
    assert "is not written: " in wrong
    assert "not finite\n" in wrong
    assert (tmp_path / "state.safetensors").read_bytes() == before
    assert not (tmp_path / "model.safetensors").exists()


def test_a_network_file_is_no_state(tmp_path, capsys):
    assert go(capsys, tmp_path, "--steps", "1")[0] == 0
    (tmp_path / "model.safetensors").rename(tmp_path / "state.safetensors")
    code, _, wrong = go(capsys, tmp_path, "--steps", "1", "--resume")
    assert (code, wrong.count("\n")) == (2, 1)
    assert "no training state" in wrong


def test_a_trainer_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    chosen = Preset(NetworkConfig(2, n_layers=1, width=8), TrainConfig((2,), 1, batch=4))
    train.Trainer(chosen, 0, torch.device("cpu")).advance()
    assert torch.equal(torch.random.get_rng_state(), before)
