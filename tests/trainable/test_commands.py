"""`trainable.evaluate`, `trainable.bench` and `trainable.publish`, and the networks that are shipped."""

import json
import warnings

import numpy as np
import pytest
import torch

from gmm import GaussianMixture, TaskDistribution, l2_error
from trainable import bench, evaluate, pretrained, publish, train
from trainable.checkpoint import load_network, save_network
from trainable.config import NetworkConfig
from trainable.estimator import network_of
from trainable.network import Network
from trainable.publish import MODELS

LIMITS = {"2": (0.03, 1.05), "3": (0.06, 1.05), "4": (0.11, 1.3), "5": (0.22, 1.7)}
"""Of the shipped network for d = 8: most raw l2-error, and most refined one, in oracle's errors."""


def card(name):
    return json.loads((MODELS / f"{name}.json").read_text())


def call(module, *arguments):
    with pytest.raises(SystemExit) as end:
        module.main(module.PROGRAM, module.Options, module.run, list(arguments))
    return end.value.code


@pytest.mark.parametrize("name", pretrained())
def test_every_network_has_its_card(name):
    about, network = card(name), network_of(name)
    assert about["name"] == name
    assert about["command"].startswith("python -m trainable.train ")
    assert about["parameters"] == sum(p.numel() for p in network.parameters())
    assert about["network"]["dim"] == network.config.dim
    assert about["log"][-1]["step"] == about["training"]["steps"]
    assert set(about["evaluation"]["as stored"]) == {str(K) for K in network.config.n_components}


@pytest.mark.parametrize("name", pretrained())
def test_half_precision_loses_nothing_measurable(name):
    """Raw errors of the stored network are those of the trained one, up to a quarter of the half-width."""
    found = card(name)["evaluation"]
    for K, mean in found["as trained, raw"].items():
        raw = found["as stored"][K]["raw"]
        assert abs(raw["mean"] - mean) < 0.25 * raw["half_width"]


@pytest.mark.parametrize("K", ["2", "3", "4", "5"])
def test_the_shipped_network_for_eight_dimensions(K):
    row = card("tgmm-d8")["evaluation"]["as stored"][K]
    raw, refined = LIMITS[K]
    assert row["raw"]["mean"] <= raw
    assert row["refined"]["mean"] <= refined * row["oracle"]["mean"]


@pytest.mark.slow
def test_the_cards_errors_are_found_again():
    """The first tasks of the evaluation, on this machine."""
    options = evaluate.Options(model="tgmm-d8", tasks=60)
    table = evaluate.evaluate(network_of("tgmm-d8"), options)
    for K, row in table.items():
        committed = card("tgmm-d8")["evaluation"]["as stored"][K]
        for name in ("raw", "oracle"):
            spread = row[name].half_width / 1.96 + committed[name]["half_width"] / 1.96
            assert abs(row[name].mean - committed[name]["mean"]) < 4 * spread
    untrained = Network(NetworkConfig(8, n_layers=1, width=16)).eval()
    worse = evaluate.evaluate(untrained, evaluate.Options(model="", tasks=4, refine=0))
    assert all(worse[K]["raw"].mean > 10 * table[K]["raw"].mean for K in worse)


def test_summaries_are_those_of_a_naive_loop():
    network = Network(NetworkConfig(3, n_components=(2,), n_layers=1, width=8, n_heads=2)).eval()
    table = evaluate.evaluate(network, evaluate.Options(model="", tasks=5, n=20, refine=0))
    errors = []
    for t in range(5):
        rng = np.random.default_rng([1, 2, t])
        truth = TaskDistribution(3).sample_mixture(2, rng)
        X, labels = truth.sample(20, rng)
        means = np.array([X[labels == k].mean(axis=0) for k in (0, 1)])
        errors.append(l2_error(GaussianMixture(np.bincount(labels) / 20, means), truth))
    assert np.isclose(table["2"]["oracle"].mean, np.mean(errors))
    assert np.isclose(table["2"]["oracle"].half_width, 1.96 * np.std(errors, ddof=1) / 5**0.5)


def test_evaluate_prints_and_writes(tmp_path, capsys):
    assert call(evaluate, "tgmm-d8", "--tasks", "3", "--em", "--json", str(tmp_path / "e.json")) == 0
    said = capsys.readouterr().out
    assert said.count("K = ") == 4
    assert "refined/oracle" in said
    found = json.loads((tmp_path / "e.json").read_text())
    assert set(found["errors"]["5"]) == {"raw", "refined", "oracle", "em"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "no model 'nothing'"),
        (["tgmm-d8", "--tasks", "1"], "--tasks must be at least 2"),
        (["tgmm-d8", "--d", "9"], "--d must be between 1 and the network's 8"),
    ],
)
def test_bad_input_is_one_line(arguments, message, capsys):
    assert call(evaluate, *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_publishing_a_run(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    torch.manual_seed(0)
    network = Network(NetworkConfig(2, n_components=(2,), n_layers=1, width=8, n_heads=2))
    about = {"preset": "tgmm-small-d2", "seed": 0, "training": {"steps": 1}, "version": "0"}
    save_network(run / "model.safetensors", network, about)
    (run / "log.jsonl").write_text('{"step": 1}\n')
    options = ["--name", "tiny", "--tasks", "2", "--no-em", "--folder", str(tmp_path)]
    assert call(publish, str(run), *options) == 0
    stored, _ = load_network(tmp_path / "tiny.safetensors")
    half, full = stored.readin.weight, network.readin.weight
    assert torch.equal(half, full.half().float())
    assert not torch.equal(half, load_network(run / "model.safetensors")[0].readin.weight)
    assert json.loads((tmp_path / "tiny.json").read_text())["log"] == [{"step": 1}]


@pytest.mark.slow
def test_training_is_faster_than_a_straightforward_loop():
    """By 1.5 at least, on a CPU."""
    pytest.importorskip("transformers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rates = bench.measure(bench.Options(steps=1, rounds=5))
    assert np.median(rates["ours"]) > 1.5 * np.median(rates["straightforward"])


def test_bench_refuses_nonsense(capsys):
    assert call(bench, "--rounds", "0") == 2
    assert "--rounds must be at least 1" in capsys.readouterr().err


def test_held_out_tasks_are_no_steps_batches():
    trainer = train.Trainer(train.preset("tgmm-small-d2"), 0, torch.device("cpu"))
    (first, *_), (again, *_) = train.held_out(trainer, 4), train.held_out(trainer, 4)
    assert torch.equal(first.X, again.X)
