"""Conventions of an evaluation that are easily confused: what each does to the figures, and their page."""

import json
import math
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch

from gmm import GaussianMixture, TaskDistribution, l2_error
from gmm.tasks import Task
from tests.test_figures import figure
from trainable.estimator import network_of
from trainable.fits import fit_task, oracle

PAGE = Path(__file__).parents[2] / "docs" / "reproduction_notes.md"
MODULE, COMMITTED = figure("reproduction_notes")


def tasks(K, count, **options):
    for t in range(count):
        rng = np.random.default_rng([9, K, t])
        truth = TaskDistribution(8, **options).sample_mixture(K, rng)
        yield Task(*truth.sample(128, rng), truth), rng


def test_the_un_inverted_permutation_is_right_only_for_its_own_inverses():
    """A truth against itself with its components in another order."""
    truth = GaussianMixture([0.1, 0.2, 0.3, 0.4], [[0.0], [1.0], [3.0], [7.0]])
    for order in permutations(range(4)):
        moved = truth.permuted(order)
        assert l2_error(moved, truth) == 0
        own_inverse = all(order[order[k]] == k for k in range(4))
        found = MODULE.un_inverted(moved, truth)
        assert (found == 0) == own_inverse
        # component k of the truth meets the one that its index in the order names, twice over
        want = sum(
            (truth.means[k, 0] - truth.means[order[order[k]], 0]) ** 2
            + (truth.weights[k] - truth.weights[order[order[k]]]) ** 2
            for k in range(4)
        )
        assert math.isclose(found, want / 4, abs_tol=1e-15)
    assert [round(MODULE.inverses(K) * math.factorial(K)) for K in (2, 3, 4, 5)] == [2, 4, 10, 26]


def test_em_has_the_size_of_the_published_column_under_the_un_inverted_permutation_only():
    for K, published in ((3, 7.0), (5, 10.5)):
        right, wrong, known = [], [], []
        for task, rng in tasks(K, 40):
            em = fit_task("em_normal", task, rng)
            right.append(l2_error(em, task.mixture))
            wrong.append(MODULE.un_inverted(em, task.mixture))
            known.append(MODULE.un_inverted(oracle(task).permuted(rng.permutation(K)), task.mixture))
        assert np.mean(right) < published / 3
        for values in (wrong, known):
            assert published / 1.6 < np.mean(values) < 1.6 * published


def test_the_bayes_estimator_of_sorted_components():
    """Far above the floor, below the estimate that sorts the counts; and it knows what the counts tell."""
    for K in (3, 5):
        best, sorting, floor = [], [], []
        for task, rng in tasks(K, 400):
            truth = task.mixture.permuted(np.argsort(task.mixture.weights))
            known = oracle(task)
            guess = known.permuted(np.argsort(known.weights))
            for estimate, found in ((MODULE.sorted_labels(task, rng), best), (guess, sorting)):
                found.append(((estimate.means - truth.means) ** 2).mean())
            floor.append(((known.means - task.mixture.means) ** 2).mean())
        assert np.mean(best) > 20 * np.mean(floor)
        assert np.mean(best) < np.mean(sorting)
    X, labels = np.repeat([[-1.0], [1.0]], 64, axis=0), np.repeat([0, 1], 64)
    even = Task(X, labels, GaussianMixture([0.5, 0.5], [[-1.0], [1.0]]))
    assert np.abs(MODULE.sorted_labels(even, np.random.default_rng(0)).means).max() < 0.1
    X, labels = np.repeat([[-1.0], [1.0]], [104, 24], axis=0), np.repeat([0, 1], [104, 24])
    clear = Task(X, labels, GaussianMixture([0.8, 0.2], [[-1.0], [1.0]]))
    assert np.abs(MODULE.sorted_labels(clear, np.random.default_rng(0)).means - [[1.0], [-1.0]]).max() < 0.01


def test_the_axis_of_the_log_likelihood():
    """By loops: over components inside the logarithm, or over samples."""
    mixture = GaussianMixture([0.3, 0.7], [[0.0, 1.0], [2.0, -1.0]])
    X = np.random.default_rng(0).normal(size=(5, 2))
    density = [
        [
            pi * math.exp(-sum((x - m) ** 2 for x, m in zip(row, mean, strict=True)) / 2) / (2 * math.pi)
            for pi, mean in zip(mixture.weights, mixture.means, strict=True)
        ]
        for row in X
    ]
    assert math.isclose(mixture.log_likelihood(X), sum(math.log(sum(row)) for row in density) / 5)
    columns = [math.log(sum(row[k] for row in density)) for k in range(2)]
    assert math.isclose(MODULE.over_samples(mixture, X), sum(columns) / 2)


def test_an_inverted_mask_gives_the_same_mean_to_all_components():
    network = network_of(MODULE.MODEL)
    for task, _ in tasks(4, 3):
        masked = MODULE.inverted_mask(network, task.X, 4)
        assert np.ptp(masked.means, axis=0).max() < 1e-5
        data = torch.tensor(task.X[None], dtype=torch.float32)
        with torch.no_grad():
            right = network(data, [(4, 1)])[0].means[0].numpy()
        assert np.ptp(right, axis=0).max() > 1
        assert l2_error(masked, task.mixture) > 10 * l2_error(
            GaussianMixture(np.full(4, 0.25), right), task.mixture
        )


def test_deviations_are_no_variances():
    right, wrong = [], []
    for task, _ in tasks(3, 40, anisotropic=True):
        truth, found = task.mixture, oracle(task)
        right.append(l2_error(found, truth))
        wrong.append(l2_error(found, GaussianMixture(truth.weights, truth.means, truth.scales**2)))
    assert np.mean(wrong) > 2 * np.mean(right)


TABLES = {
    "Order of the components": (
        "oracle", "oracle, un-inverted", "em, normal", "em, normal, un-inverted"
    ),
    "Labels sorted by weight": ("oracle", "sorted labels"),
    "The start of EM": ("em, normal", "em, one", "em, best"),
    "Axis of the log-likelihood": (
        "log-likelihood, oracle", "log-likelihood, em", "over samples, oracle", "over samples, em"
    ),
    "The pooling mask": ("oracle", "inverted mask"),
    "Scales": ("scales", "scales as variances"),
}  # fmt: skip


@pytest.mark.parametrize("title", TABLES)
def test_the_tables_of_the_page(title):
    text = PAGE.read_text().split(f"## {title}\n")[1].split("\n## ")[0]
    for K, row in COMMITTED["rows"].items():
        style = ".1f" if title.startswith("Axis") else ".2g"
        cells = [f"{row[name][0]:{style}}" for name in TABLES[title]]
        assert f"| {K} | {' | '.join(cells)} |" in text, cells
        if title == "Order of the components":
            assert f"{' | '.join(cells)} | {MODULE.PAPER['em_normal'][8][int(K) - 2]:g} |" in text
        if title == "Labels sorted by weight":
            assert f"{' | '.join(cells)} | {MODULE.PAPER['raw'][8][int(K) - 2]:g} |" in text


def test_what_the_page_says_of_the_numbers():
    rows = json.loads(json.dumps(COMMITTED["rows"]))
    for K, row in rows.items():
        assert 30 <= row["sorted labels"][0] / row["oracle"][0] < 65
        assert row["inverted mask, spread of the means"][0] < 1e-6
        if K != "2":
            apart = row["log-likelihood, oracle"][0] - row["log-likelihood, em"][0]
            assert row["over samples, oracle"][0] - row["over samples, em"][0] < apart / 2
            assert row["em, best"][0] < 1.01 * row["oracle"][0]
            assert row["em, one"][0] > 20 * row["oracle"][0]
