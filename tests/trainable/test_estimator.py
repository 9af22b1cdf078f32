"""The scikit-learn style estimator: what it fits, what it refuses, and scikit-learn's own checks."""

import warnings
from unittest import SkipTest

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import make_blobs
from sklearn.mixture import GaussianMixture as Baseline
from sklearn.utils.estimator_checks import estimator_checks_generator

from gmm import GaussianMixture, run_em
from trainable import TGMM, pretrained
from trainable.checkpoint import save_network
from trainable.config import NetworkConfig
from trainable.estimator import network_of
from trainable.network import Network
from trainable.predict import estimate
from trainable.refine import refined

TRUTH = GaussianMixture([0.3, 0.3, 0.4], [[4.0, 0.0, 1.0], [-3.0, 3.0, 0.0], [0.0, -4.0, -2.0]])


@pytest.fixture(scope="module")
def X():
    return TRUTH.sample(120, np.random.default_rng(0))[0]


def test_networks_that_come_with_the_package():
    assert {"tgmm-d2", "tgmm-d8"} <= set(pretrained())


def test_a_fit_is_a_mixture_in_the_datas_units(X):
    model = TGMM.from_pretrained("tgmm-d8", refine=5, scale=7.0, center=True).fit(7 * X + 100, n_components=3)
    assert model.weights_.shape == (3,)
    assert model.means_.shape == (3, 3)
    assert np.isclose(model.weights_.sum(), 1)
    baseline = Baseline(3, covariance_type="spherical", random_state=0).fit(7 * X + 100)
    order = [np.linalg.norm(baseline.means_ - mean, axis=1).argmin() for mean in model.means_]
    assert sorted(order) == [0, 1, 2]
    assert np.abs(baseline.means_[order] - model.means_).max() < 1
    labels = model.predict(7 * X + 100)
    assert (np.array(order)[labels] == baseline.predict(7 * X + 100)).mean() > 0.98
    assert abs(model.score(7 * X + 100) - baseline.score(7 * X + 100)) < 0.1


def test_scores_are_the_mixtures_density(X):
    model = TGMM(3, scale=2.0).fit(2 * X)
    diff = (2 * X[:, None] - model.means_) / 2
    density = (model.weights_ * np.exp(-(diff**2).sum(axis=2) / 2)).sum(axis=1) / (2 * np.pi * 4) ** 1.5
    assert np.allclose(model.score_samples(2 * X), np.log(density))
    assert np.isclose(model.score(2 * X), np.log(density).mean())
    assert np.allclose(model.predict_proba(2 * X).sum(axis=1), 1)
    samples, labels = model.sample(4000)
    assert np.abs([samples[labels == k].mean(axis=0) - model.means_[k] for k in range(3)]).max() < 0.4


def test_shifting_and_scaling_the_data_shifts_and_scales_the_fit(X):
    one = TGMM(3, refine=3, center=True).fit(X)
    two = TGMM(3, refine=3, center=True).fit(5 * X - 40)
    assert np.allclose(5 * one.means_ - 40, two.means_, atol=1e-4)
    assert np.isclose(5 * one.scale_, two.scale_)


def test_refinement_is_em(X):
    start = estimate(network_of("tgmm-d8"), X, 3, np.random.default_rng(0))
    want = run_em(X, start, 4)[-1]
    got = refined(X, start, 4)
    assert np.abs(got.means - want.means).max() < 1e-2
    assert np.abs(got.weights - want.weights).max() < 1e-3
    assert refined(X, start, 0) is start
    assert np.abs(run_em(X, start, 3)[-1].means - want.means).max() < np.abs(start.means - want.means).max()


def test_of_many_samples_some_are_read(X):
    many, _ = TRUTH.sample(5000, np.random.default_rng(1))
    model = TGMM(3, scale=1.0, refine=5).fit(many)
    errors = [np.linalg.norm(TRUTH.means - mean, axis=1).min() for mean in model.means_]
    assert max(errors) < 0.3


def test_a_csv_in_six_lines(tmp_path, X):
    np.savetxt(tmp_path / "samples.csv", X, delimiter=",")
    rows = np.loadtxt(tmp_path / "samples.csv", delimiter=",")
    model = TGMM.from_pretrained("tgmm-d8", refine=5).fit(rows, n_components=3)
    assert model.predict(rows).shape == (120,)


def bad(**changes):
    return TGMM(**{"n_components": 3, "scale": 1.0} | changes)


@pytest.mark.parametrize(
    ("model", "data", "message"),
    [
        (bad(), lambda X: np.where(X[3, 1] == X, np.nan, X), "contains NaN"),
        (bad(), lambda X: X[:1], "minimum of 2 is required"),
        (bad(), lambda X: X[0], "Expected 2D array"),
        (bad(n_components=6), lambda X: X, "n_components=6: this network was trained for 2, 3, 4, 5"),
        (bad(n_components=0), lambda X: X, "trained for 2, 3, 4, 5"),
        (bad(n_components="3"), lambda X: X, "trained for 2, 3, 4, 5"),
        (bad(), lambda X: np.tile(X, 3), "X has 9 features, but tgmm-d8 was trained on up to 8"),
        (bad(), lambda X: np.where([True, True, False], X, 2.0), "drop column 2"),
        (bad(), lambda X: np.zeros_like(X), "all samples are equal"),
        (bad(), lambda X: X[:30], "n_samples=30: the network was trained on at least 64"),
        (bad(), lambda X: X[:2], "n_samples=2 should be >= n_components=3"),
        (bad(), lambda X: 100 * X, "larger scale"),
        (bad(scale=0), lambda X: X, "scale must be a positive number"),
        (bad(scale="big"), lambda X: X, "scale must be a positive number"),
        (bad(refine=-1), lambda X: X, "refine must be a whole number"),
        (bad(refine=1.5), lambda X: X, "refine must be a whole number"),
        (bad(center="no"), lambda X: X, "center must be"),
        (bad(outside="ignore"), lambda X: X, "outside must be"),
        (bad(model="tgmm-d7"), lambda X: X, "no model 'tgmm-d7'; there are tgmm-d2, tgmm-d8"),
    ],
)
def test_what_it_was_not_trained_for_is_refused(model, data, message, X):
    with pytest.raises(ValueError, match=message):
        model.fit(data(X))


def test_other_data_than_it_was_fitted_to_are_refused(X):
    model = TGMM(3, scale=1.0).fit(X)
    with pytest.raises(ValueError, match="expecting 3 features"):
        model.predict(X[:, :2])
    with pytest.raises(ValueError, match="n_samples must be at least 1"):
        model.sample(0)


def test_outside_warn_goes_on(X):
    with pytest.warns(UserWarning, match="at least 64"):
        TGMM(3, scale=1.0, outside="warn").fit(X[:30])


def test_one_component_is_the_mean(X):
    model = TGMM(1, scale=1.0).fit(X)
    assert np.allclose(model.means_, X.mean(axis=0))
    assert set(model.labels_) == {0}


def test_unknown_models_are_refused_at_once():
    with pytest.raises(ValueError, match="no model"):
        TGMM.from_pretrained("nothing")


def test_networks_for_other_tasks_are_refused(tmp_path, X):
    config = NetworkConfig(8, n_layers=1, width=8, n_heads=2, anisotropic=True)
    save_network(tmp_path / "scales.safetensors", Network(config), {})
    with pytest.raises(ValueError, match="only unit noise is covered"):
        TGMM(3, model=tmp_path / "scales.safetensors", scale=1.0).fit(X)


def test_a_clone_fits_the_same(X):
    model = TGMM(3, refine=1)
    assert np.array_equal(clone(model).fit(X).means_, model.fit(X).means_)
    Y, _ = make_blobs(90, 2, centers=3, cluster_std=1.0, random_state=0)
    assert set(TGMM(3).fit_predict(Y)) == {0, 1, 2}


EXEMPT = {"check_dtype_object": "has 10 features, more than the network was trained on"}
"""scikit-learn's checks that do not apply, with the reason."""


@pytest.mark.slow
def test_scikit_learns_checks():
    """All but the exempt ones, on an estimator that warns about small samples: the checks' data are small."""
    model = TGMM(outside="warn")
    failed = {}
    for estimator, check in estimator_checks_generator(model, mark=None):
        name = getattr(check, "func", check).__name__
        if name in EXEMPT:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                check(estimator)
            except SkipTest:
                pass
            except Exception as error:
                failed[name] = str(error).splitlines()[0]
    assert failed == {}
