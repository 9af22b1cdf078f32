"""`trainable.reproduce`: the same results however it is run, and no row without its network."""

import csv
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from gmm import GaussianMixture, TaskDistribution, l2_error
from gmm.tasks import Task
from trainable import reproduce, train
from trainable.config import NetworkConfig, preset
from trainable.estimator import network_of
from trainable.experiments import EXPERIMENTS, Setting, training_of
from trainable.fits import LABELS, errors, fit_task
from trainable.network import Network
from trainable.predict import estimate

ROOT = Path(__file__).parents[2]


def call(*arguments):
    with pytest.raises(SystemExit) as end:
        reproduce.main(reproduce.PROGRAM, reproduce.Options, reproduce.run, list(arguments))
    return end.value.code


def results(folder, figure, *options):
    assert call(figure, "--out", str(folder), "--jobs", "1", *options) == 0
    return json.loads((folder / f"{figure}.json").read_text())


def task(d=3, K=2, N=60, seed=0, **options):
    rng = np.random.default_rng(seed)
    truth = TaskDistribution(d, **options).sample_mixture(K, rng)
    return Task(*truth.sample(N, rng), truth)


@pytest.fixture(scope="module")
def fig3(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fig3")
    return folder, results(folder, "fig3", "--tasks", "2", "--refine", "1")


def test_rows_are_those_of_a_naive_loop(fig3):
    _, found = fig3
    (row,) = [
        row for row in found["rows"] if (row["d"], row["K"], row["fit"]) == (8, 3, "raw")
    ]  # the other N0 are not trained
    got = []
    for t in range(2):
        rng = np.random.default_rng([1, 3, t])
        truth = TaskDistribution(8).sample_mixture(3, rng)
        X, _ = truth.sample(128, rng)
        got.append(l2_error(estimate(network_of("tgmm-d8"), X, 3, rng), truth))
    assert math.isclose(row["l2"]["mean"], np.mean(got), rel_tol=1e-6)
    assert math.isclose(row["l2"]["half_width"], 1.96 * np.std(got, ddof=1) / 2**0.5, rel_tol=1e-6)


def test_an_untrained_network_has_a_command_and_no_row(fig3):
    folder, found = fig3
    names = {f"tgmm-d{d}-n{N}" for d in (2, 8, 32, 128) for N in (32, 64)} | {"tgmm-d32", "tgmm-d128"}
    assert set(found["not trained"]) == names
    assert all("N0 = 32" not in row["label"] for row in found["rows"])
    assert {row["d"] for row in found["rows"] if row["fit"] == "raw"} == {2, 8}
    table = (folder / "fig3.md").read_text()
    assert "`python -m trainable.train tgmm-d8-n32 --out runs/tgmm-d8-n32`" in table
    lines = list(csv.DictReader((folder / "fig3.csv").read_text().splitlines()))
    assert len(lines) == len(found["rows"])
    assert (folder / "fig3.png").stat().st_size > 10_000


@pytest.mark.slow
def test_it_goes_on_where_it_was_cut_off(fig3, tmp_path):
    folder, found = fig3
    kept = (folder / "tasks.jsonl").read_bytes()
    lines = kept.splitlines(keepends=True)
    (tmp_path / "tasks.jsonl").write_bytes(b"".join(lines[:7]) + lines[7][:20])
    again = results(tmp_path, "fig3", "--tasks", "2", "--refine", "1")
    assert again == found
    assert sorted((tmp_path / "tasks.jsonl").read_bytes().splitlines()) == sorted(kept.splitlines())
    longer = results(tmp_path, "fig3", "--tasks", "3", "--refine", "1")
    assert longer["rows"] != found["rows"]


@pytest.mark.slow
def test_two_processes_find_the_same(fig3, tmp_path):
    _, found = fig3
    command = ["fig3", "--tasks", "2", "--refine", "1", "--jobs", "2", "--out", str(tmp_path)]
    subprocess.run([sys.executable, "-m", "trainable.reproduce", *command], cwd=ROOT, check=True)
    assert json.loads((tmp_path / "fig3.json").read_text()) == found


@pytest.mark.slow
def test_own_trainings_are_taken_from_their_folder(tmp_path):
    torch.manual_seed(0)
    options = ["--steps", "1", "--batch", "4", "--test-tasks", "2", "--out", str(tmp_path / "tgmm-d2-l3")]
    with pytest.raises(SystemExit):
        train.main(train.PROGRAM, train.Options, train.run, ["tgmm-d2-l3", *options])
    found = results(tmp_path / "out", "fig16", "--tasks", "2", "--refine", "0", "--models", str(tmp_path))
    assert {row["label"] for row in found["rows"] if row["d"] == 2} == {
        "labels known",
        "TGMM (layers: 3)",
        "TGMM, then constructed EM (layers: 3)",
    }
    # The shipped networks have other sizes than the figure's.
    assert "tgmm-d2" in found["not trained"]


def test_networks_of_other_sizes_are_not_shown_as_those_of_a_figure_about_sizes():
    assert reproduce.find("tgmm-d8", Path("nowhere"), exact=False) is not None
    assert reproduce.find("tgmm-d8", Path("nowhere"), exact=True) is None
    assert reproduce.find("tgmm-d7", Path("nowhere"), exact=False) is None


@pytest.mark.parametrize("figure", EXPERIMENTS)
def test_every_network_of_a_figure_has_a_training(figure):
    curves = {c.network for p in EXPERIMENTS[figure].points for c in p.curves if c.network}
    for name in curves:
        assert training_of(name).command == f"python -m trainable.train {name} --out runs/{name}"
    assert {p.setting.K for p in EXPERIMENTS[figure].points} == {2, 3, 4, 5}


@pytest.mark.parametrize(
    "name", ["tgmm-small-d2-n32", "tgmm-small-d2-l3", "tgmm-small-d2-w128", "tgmm-small-d2-anisotropic",
             "tgmm-small-d2-gpt2", "tgmm-small-d2-mamba2"]
)  # fmt: skip
def test_the_missing_trainings_take_a_step(name):
    """Each option that a missing training's name has, at the small size and with a batch of four."""
    if "gpt2" in name or "mamba2" in name:
        pytest.importorskip("transformers")
    chosen = preset(name)
    trainer = train.Trainer(
        chosen._replace(training=chosen.training.__class__((2,), 10, batch=4)), 0, torch.device("cpu")
    )
    before = trainer.network.readin.weight.detach().clone()
    assert math.isfinite(trainer.advance())
    assert not torch.equal(before, trainer.network.readin.weight)


def test_operations_are_six_for_each_parameter_sample_and_task():
    network, training = preset("tgmm-d8-n32")
    parameters = sum(p.numel() for p in Network(network).parameters())
    cost = training_of("tgmm-d8-n32")
    assert cost.tasks == 300_000 * 256
    assert math.isclose(cost.operations, 6 * parameters * 24 * cost.tasks)
    assert (training.min_samples, training.max_samples) == (16, 32)


def test_samples_of_one_order_matter_to_a_recurrence_alone():
    pytest.importorskip("transformers")
    X = torch.randn(1, 20, 2, generator=torch.Generator().manual_seed(0))
    differ = {}
    for backbone in ("plain", "gpt2", "mamba2"):
        torch.manual_seed(0)
        network = Network(NetworkConfig(2, n_layers=2, width=16, n_heads=2, backbone=backbone)).eval()
        with torch.no_grad():
            means = [network(x, [(3, 1)])[0].means for x in (X, X.flip(1))]
        differ[backbone] = float((means[0] - means[1]).abs().max())
    assert differ["plain"] < 1e-4
    assert differ["gpt2"] < 1e-4
    assert differ["mamba2"] > 1e-2


# ---- the fits


def test_spectral_has_no_fit_for_more_components_than_dimensions():
    assert fit_task("spectral", task(d=2, K=3), np.random.default_rng(0)) is None
    assert fit_task("spectral", task(d=3, K=3), np.random.default_rng(0)) is not None


def test_spectral_with_fewer_components_than_asked_for():
    """M2 with one positive eigenvalue, or none: what is found, and the data's mean."""
    rng = np.random.default_rng(0)
    line = np.array([[3.0, 0.0], [-1.0, 0.0]]).repeat([30, 90], axis=0) + 0.3 * rng.standard_normal((120, 2))
    found = fit_task("spectral", Task(line, None, GaussianMixture([0.5, 0.5], np.eye(2))), rng)
    assert np.allclose(found.weights, 0.5)
    assert np.allclose(found.means[1], line.mean(axis=0))
    assert not np.allclose(found.means[0], line.mean(axis=0), atol=0.3)
    point = 0.01 * rng.standard_normal((60, 2))
    found = fit_task("spectral", Task(point, None, GaussianMixture([0.5, 0.5], np.eye(2))), rng)
    assert np.allclose(found.means, point.mean(axis=0))
    assert np.allclose(found.weights, 0.5)


def test_the_oracle_is_at_its_expected_error():
    """E = mean over k of E[1 / n_k] + pi_k (1 - pi_k) / N, here by the second-order expansion in 1 / N."""
    found, expected = [], []
    for seed in range(300):
        one = task(d=8, K=3, N=128, seed=seed)
        found.append(errors(fit_task("oracle", one, np.random.default_rng(0)), one).l2)
        pi = one.mixture.weights
        inverse = (1 + (1 - pi) / (128 * pi)) / (128 * pi)
        expected.append((inverse + pi * (1 - pi) / 128).mean())
    spread = np.std(found) / 300**0.5
    assert abs(np.mean(found) - np.mean(expected)) < 4 * spread


@pytest.mark.parametrize("fit", [name for name in LABELS if name.startswith("em")])
def test_em_of_components_with_scales(fit):
    one = task(d=3, K=2, N=400, anisotropic=True)
    found = fit_task(fit, one, np.random.default_rng(1))
    assert found.scales is not None
    assert errors(found, one).l2 < 0.1
    assert errors(GaussianMixture(found.weights, found.means, 2 * found.scales), one).l2 > 0.2


def test_the_start_of_the_paper_is_worse_than_the_best_of_ten():
    rows = {name: [] for name in ("em_normal", "em_best")}
    for seed in range(12):
        one = task(d=8, K=5, N=128, seed=seed)
        for name, found in rows.items():
            found.append(errors(fit_task(name, one, np.random.default_rng(seed)), one).missed)
    assert np.mean(rows["em_best"]) < 0.1 < np.mean(rows["em_normal"])


# ---- the images


def test_images_are_taken_back():
    """A network that finds the first samples' coordinates: every image gives the same means."""

    class First(torch.nn.Module):
        config = NetworkConfig(4, n_layers=1, width=8, n_heads=2)

        def forward(self, X, groups):
            ((K, count),) = groups
            weights = torch.full((count, K), 1 / K)
            found = type("E", (), {})()
            found.weights, found.means, found.scales = weights, X[:, :K], None
            self.seen = X
            return [found]

    network, X = First(), np.random.default_rng(0).normal(size=(30, 4))
    got = estimate(network, X, 2, np.random.default_rng(1), copies=6)
    assert len({tuple(image[0].tolist()) for image in network.seen}) == 6
    assert np.allclose(got.means, X[:2], atol=1e-6)
    assert np.allclose(
        np.sort(np.abs(network.seen[3].numpy()), axis=1), np.sort(np.abs(X), axis=1), atol=1e-6
    )


def test_the_likeliest_image_is_taken():
    one = task(d=8, K=5, N=128, seed=5)
    network = network_of("tgmm-d8")
    single = estimate(network, one.X, 5, np.random.default_rng(0))
    best = estimate(network, one.X, 5, np.random.default_rng(0), copies=8)
    assert best.log_likelihood(one.X) >= single.log_likelihood(one.X)


# ---- bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fig9"], "no figure 'fig9'; there are fig2, fig3"),
        (["fig2", "--tasks", "1"], "--tasks must be at least 2"),
        (["fig2", "--jobs", "0"], "--jobs must be at least 1"),
        (["fig2", "--copies", "0"], "--copies must be at least 1"),
    ],
)
def test_bad_input_is_one_line(arguments, message, tmp_path, capsys):
    assert call(*arguments, "--out", str(tmp_path)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_file_that_is_something_else_is_not_overwritten(tmp_path, capsys):
    (tmp_path / "tasks.jsonl").write_text("mine\n")
    assert call("fig3", "--tasks", "2", "--out", str(tmp_path)) == 2
    assert "line 1 is no result of a task" in capsys.readouterr().err
    assert (tmp_path / "tasks.jsonl").read_text() == "mine\n"


def test_a_task_is_that_of_its_law_and_number():
    drawn, again = (reproduce.draw_task(Setting(3, 2, 50, 4.0), 1, 0) for _ in range(2))
    assert drawn.X.shape == (50, 3)
    assert np.array_equal(drawn.X, again.X)
    plain = reproduce.draw_task(Setting(3, 2, 50), 1, 0)
    assert np.abs(plain.mixture.means).max() <= 5 < np.abs(drawn.mixture.means).max()
