"""The spectral demo as a user meets it, and the reference that it holds the layers against."""

import json

import numpy as np
import pytest
from matplotlib.image import imread

from constructions import save, spectral_demo
from constructions.report import SpectralReference
from tests.compare import assert_bound, gap
from tests.constructions.spectral_cases import broken, network, samples

SMALL = ("--d", "3", "--K", "2", "--n", "600", "--n-power", "6")


@pytest.fixture
def demo(command):
    return command(spectral_demo)


def test_without_arguments(demo, tmp_path):
    status, out, err = demo()
    assert (status, err) == (0, "")
    assert "2000 samples of a mixture, d = 4, K = 3" in out
    assert "one ReLU transformer: " in out
    assert "layers by stage: moments 1, sign " in out
    for stage in ("sign", "root", "whiten", "power, component 1", "value, component 3", "slot"):
        assert stage in out
    assert imread(tmp_path / "spectral_demo.png").shape[1] > 1000


def test_json(demo, tmp_path):
    status, out, _ = demo(*SMALL, "--json", "out.json", "--seed", "2", "--plot", "a.pdf")
    assert status == 0
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["gap"] < 1e-10
    assert result["error"] < 0.1
    assert (result["seed"], result["mode"]) == (2, "auto")
    assert sum(result["schedule"].values()) == result["sizes"]["layers"]
    assert result["layers"][-1]["layer"] == result["sizes"]["layers"]
    assert set(result["layers"][0]) == {"layer", "stage", "component", "what", "error"}
    assert np.shape(result["estimate"]["means"]) == (2, 3)
    assert f"{result['gap']:.2e}" in out


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ("--exact",),
        ("--n-restarts", "3", "--n-polish", "6"),
        ("--teeth", "20", "--dtype", "float32", "--eps", "1e-6"),
        ("--mode", "dense", "--n", "100"),
        ("--d", "1", "--K", "1"),
        ("--d0", "5", "--K0", "3"),
    ],
    ids=" ".join,
)
def test_options(demo, tmp_path, options):
    status, _, err = demo(*SMALL, *options, "--json", "o", "--seed", "2")
    assert (status, err) == (0, "")
    result = json.loads((tmp_path / "o").read_text())
    assert_bound(result["gap"], 1e-2 if "float32" in options else 1e-9)
    if "--exact" in options:
        assert result["error"] < 1e-15


def test_a_file_and_saved_weights(demo, tmp_path):
    X = samples(3, 2, 500, np.random.default_rng(0))
    np.savetxt(tmp_path / "x.csv", X, delimiter=",", header="a,b,c")
    save(network(5, 3, n_power=6), tmp_path / "net")
    status, out, err = demo("--data", "x.csv", "--K", "2", "--weights", "net", "--json", "o")
    assert (status, err) == (0, "")
    assert "x.csv: 500 samples, d = 3, K = 2" in out
    result = json.loads((tmp_path / "o").read_text())
    assert result["error"] is None
    assert gap(result["estimate"]["means"], network(5, 3, n_power=6).run(X, 2).means) < 1e-9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--K", "0"), "--K must be at least 1, got 0"),
        (("--K", "5"), "--d must be at least --K = 5, got 4: A1 wants"),
        (("--n", "0"), "--n must be at least 1, got 0"),
        (("--n", "30", "--d0", "40"), "N >= d0 = 40 samples are needed"),
        (("--data", "none.csv"), "none.csv: no such file"),
        (("--data", "none.csv", "--exact"), "--exact cannot be combined with --data"),
        (("--tau", "-1"), "tau must be positive"),
        (("--c-max", "1"), "A2 is violated"),
        (("--n-restarts", "0"), "n_restarts must be at least 1"),
        (("--teeth", "-2"), "n_teeth must be positive"),
        (("--weights", "none"), "none: no such weights file"),
        (("--weights", "none", "--tau", "1"), "--tau cannot be combined with --weights"),
        (("--dtype", "float16"), "dtype must be float64 or float32"),
        (("--n", "30", "--seed", "4"), "A1 "),
        (("--plot", "no/where.png"), "cannot write no/where.png: no folder"),
    ],
)
def test_bad_input_is_one_line(demo, tmp_path, options, message):
    (tmp_path / "kept.json").write_text("old")
    status, _, err = demo("--json", "kept.json", *options)
    assert status == 2
    assert err.startswith("constructions.spectral_demo: error: ")
    assert err.count("\n") == 1
    assert message in err
    assert (tmp_path / "kept.json").read_text() == "old"
    assert not (tmp_path / "spectral_demo.png").exists()


def errors_by_stage(net, X, K):
    """The largest error in each stage; of the Newton-Schulz iterations, the last, where they have arrived."""
    reference, found = SpectralReference(net, X, K), {}
    for state in net.transformer().states(net.as_tokens(net.encode(X)), "structured"):
        if state.stage == "mlp":
            for mark in reference.marks(state.layer, state.tokens):
                arrives = mark.stage in ("sign", "root", "normalise")
                found[mark.stage] = mark.error if arrives else max(found.get(mark.stage, 0.0), mark.error)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mistake", "stage"),
    [
        ("identity not taken off", "moments"),
        ("one of a sign pair", "root"),
        ("whitened with a factor d0 wrong", "whiten"),
        ("no mean in the third moment", "power"),
        ("half the noise in the third moment", "power"),
        ("means recovered with a factor d0 wrong", "slot"),
    ],
)
def test_the_first_stage_that_is_off_is_the_broken_one(mistake, stage):
    net = network(5, 2, n_power=4)
    X = samples(5, 2, 500, np.random.default_rng(2))
    right, wrong = errors_by_stage(net, X, 2), errors_by_stage(broken(net, mistake), X, 2)
    assert max(right.values()) < 1e-10
    assert next(name for name, error in wrong.items() if error > 1e-6) == stage
