"""The demo as a user meets it: output, files, and one line for every kind of bad input."""

import json
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.image import imread

from constructions import EMTransformer, em_demo, save
from constructions.cli import read_csv
from gmm import GaussianMixture, run_em
from tests.compare import assert_exact, gap


@pytest.fixture
def demo(command):
    return command(em_demo)


def write_data(path, n=60, header="x,y", separator=",", scale=1.0, seed=0):
    truth = GaussianMixture([0.4, 0.6], [[-3.0, 0.0], [3.0, 1.0]])
    X, _ = truth.sample(n, np.random.default_rng(seed))
    lines = [separator.join(repr(float(x)) for x in row) for row in scale * X]
    path.write_text("\n".join(([header] if header else []) + lines) + "\n")
    return scale * X


def test_without_arguments(demo, tmp_path):
    status, out, err = demo()
    assert status == 0
    assert err == ""
    assert "synthetic: 600 samples, d = 2, K = 3" in out
    assert "Theorem C.1" in out
    assert "statistical floor" in out
    assert out.count("\n        ") >= 9
    assert ": holds" in out
    assert "picture: em_demo.png" in out
    assert imread(tmp_path / "em_demo.png").shape[1] > 1000


def test_json_has_the_documented_shape(demo, tmp_path):
    status, out, _ = demo("--depth", "4", "--json", "out.json", "--seed", "3", "--plot", "a.svg")
    assert status == 0
    result = json.loads((tmp_path / "out.json").read_text())
    assert set(result) == {
        "task", "sizes", "iterations", "estimate", "bound", "holds", "mode", "seed", "version"
    }  # fmt: skip
    assert [row["iteration"] for row in result["iterations"]] == [1, 2, 3, 4]
    assert {"em_gap", "error", "log_likelihood", "bound"} <= set(result["iterations"][0])
    assert result["sizes"]["layers"] == 8
    assert result["holds"] is True
    assert 0 < result["iterations"][-1]["em_gap"] <= result["bound"]
    assert result["seed"] == 3
    assert result["mode"] == "structured"
    assert abs(sum(result["estimate"]["weights"]) - 1) < 1e-9
    assert np.shape(result["estimate"]["means"]) == (3, 2)
    assert (tmp_path / "a.svg").read_text().startswith("<?xml")
    assert f"{result['iterations'][-1]['em_gap']:.2e}" in out


def test_the_seed_decides_the_run(demo, tmp_path):
    texts = []
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        demo("--json", name, "--seed", seed, "--depth", "2")
        texts.append((tmp_path / name).read_text())
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize(("header", "separator"), [("x,y", ","), ("", ","), ('"a";"b"', ";"), ("x\ty", "\t")])
def test_csv_files_of_every_sort(demo, tmp_path, header, separator):
    X = write_data(tmp_path / "data.csv", header=header, separator=separator)
    assert gap(read_csv(tmp_path / "data.csv"), X) == 0
    status, out, err = demo("--data", "data.csv", "--K", "2", "--depth", "3", "--json", "out.json")
    assert (status, err) == (0, "")
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["task"] == {
        "source": "data.csv", "n": 60, "d": 2, "K": 2, "scale": 1.0, "start": "kmeans++", "floor": None
    }  # fmt: skip
    assert result["iterations"][-1]["error"] is None
    assert "data.csv: 60 samples, d = 2, K = 2" in out


def test_the_estimate_is_ems(demo, tmp_path):
    X = write_data(tmp_path / "data.csv", n=200)
    (tmp_path / "start.csv").write_text("-2,0\n2,0\n")
    demo(
        "--data",
        "data.csv",
        "--K",
        "2",
        "--depth",
        "5",
        "--start",
        "start.csv",
        "--json",
        "o",
        "--eps",
        "1e-4",
    )
    estimate = json.loads((tmp_path / "o").read_text())["estimate"]
    want = run_em(X, GaussianMixture([0.5, 0.5], [[-2.0, 0.0], [2.0, 0.0]]), 5)[-1]
    result = json.loads((tmp_path / "o").read_text())
    assert gap(estimate["means"], want.means) <= result["bound"] < 0.1
    assert gap(estimate["weights"], want.weights) <= result["bound"]


def test_scaling_is_undone_in_the_estimate(demo, tmp_path):
    write_data(tmp_path / "plain.csv", n=300)
    write_data(tmp_path / "tall.csv", n=300, scale=50.0)
    results = {}
    for name, data, scale in (("a", "plain", "1"), ("b", "tall", "50"), ("c", "tall", "auto")):
        status, *_ = demo("--data", f"{data}.csv", "--K", "2", "--scale", scale, "--json", name)
        assert status == 0
        results[name] = json.loads((tmp_path / name).read_text())
    plain, fifty, auto = (np.array(results[name]["estimate"]["means"]) for name in "abc")
    assert_exact(fifty, 50 * plain, ulps=1e6, scale=150)
    assert abs(results["c"]["task"]["scale"] / 50 - 1) < 0.15
    assert gap(auto[np.argsort(auto[:, 0])], fifty[np.argsort(fifty[:, 0])]) < 5


def test_saved_weights_are_used(demo, tmp_path):
    write_data(tmp_path / "data.csv")
    save(EMTransformer(2, 2, eps=0.02, r_max=16, pi_min=0.05), tmp_path / "w.safetensors")
    status, out, _ = demo("--data", "data.csv", "--K", "2", "--weights", "w.safetensors", "--depth", "2")
    assert status == 0
    assert "|mu| <= 16, pi >= 0.05, eps = 0.02" in out


@pytest.mark.parametrize("arguments", [("--d", "1", "--K", "2"), ("--d", "6", "--K", "4"), ("--K", "1")])
@pytest.mark.parametrize("mode", ["dense", "structured"])
def test_other_sizes_and_modes(demo, arguments, mode):
    status, out, _ = demo(*arguments, "--n", "200", "--depth", "2", "--mode", mode)
    assert status == 0
    assert f"forward pass ({mode})" in out


def test_float32_and_the_papers_widths(demo):
    status, out, _ = demo("--dtype", "float32", "--approximator", "paper", "--eps", "0.05", "--depth", "2")
    assert status == 0
    assert ": holds" in out


def test_networks_that_drop_samples_are_held_against_em_on_the_others(demo, tmp_path):
    save(EMTransformer(2, 3, eps=0.01, r_max=16, pi_min=0.02, remainder="drop"), tmp_path / "w")
    status, out, _ = demo("--weights", "w", "--n", "20", "--depth", "3")
    assert status == 0
    assert "VIOLATED" not in out


def test_few_samples_warn_and_go_on(demo):
    status, _, err = demo("--n", "5", "--K", "5", "--depth", "3", "--d", "4")
    assert status == 0
    assert all(line.startswith("warning: iteration") for line in err.splitlines())


FILES = {
    "nan.csv": "1,2\n3,nan\n",
    "inf.csv": "1,2\n-inf,4\n",
    "ragged.csv": "1,2\n3,4,5\n",
    "empty.csv": "",
    "blank.csv": "\n \n",
    "header.csv": "a,b\n",
    "text.csv": "x,name\n1,alice\n",
    "hole.csv": "1,2\n3,\n",
    "one.csv": "1,2\n",
    "ok.csv": "1,2\n3,4\n5,6\n",
    "starts.csv": "1,2,3\n4,5,6\n",
    "huge.csv": "1,2\n3,1e200\n",
    "long.csv": "1," + "9" * 200_000 + "\n2,3\n",
}
SEE = " (see python -m constructions.em_demo --help)"

BAD = [
    (["--data", "nan.csv"], "nan.csv, line 2: column 2 is 'nan', not a finite number"),
    (["--data", "inf.csv"], "inf.csv, line 2: column 1 is '-inf', not a finite number"),
    (["--data", "ragged.csv"], "ragged.csv, line 2: 3 columns where line 1 has 2"),
    (["--data", "empty.csv"], "empty.csv holds no rows of numbers"),
    (["--data", "blank.csv"], "blank.csv holds no rows of numbers"),
    (["--data", "header.csv"], "header.csv holds no rows of numbers"),
    (["--data", "text.csv"], "text.csv, line 2: column 2 is 'alice', not a finite number"),
    (["--data", "hole.csv"], "hole.csv, line 2: column 2 is empty"),
    (["--data", "binary.csv"], "binary.csv is not a text file (not UTF-8)"),
    (["--data", "zeros.csv"], "zeros.csv is not a text file (it holds zero bytes)"),
    (["--data", "none.csv"], "none.csv: no such file"),
    (["--data", "one.csv"], "one.csv has 1 samples, fewer than --K = 3"),
    (["--n", "2"], "--n must be at least --K = 3, got 2"),
    (["--K", "0"], "--K must be at least 1, got 0"),
    (["--d", "0"], "--d must be at least 1, got 0"),
    (["--depth", "0"], "--depth must be at least 1, got 0"),
    (["--K", "6", "--K0", "5"], "this network holds components up to K0 = 5, got 6; build one with K0 >= 6"),
    (["--d", "3", "--d0", "2"], "this network holds dimension up to d0 = 2, got 3; build one with d0 >= 3"),
    (["--eps", "0"], "eps must be positive and below 1, got 0"),
    (["--eps", "-1"], "eps must be positive and below 1, got -1"),
    (["--eps", "nan"], "eps must be positive and below 1, got nan"),
    (["--pi-min", "2"], "pi_min must be positive and below 1, got 2"),
    (["--pi-min", "0.4"],
     "the start has a weight 0.333333, outside pi_min = 0.4; build with pi_min <= 0.333333"),
    (["--r-max", "-1"], "r_max must be positive and finite, got -1"),
    (["--scale", "0"], "--scale must be a positive number or auto, got 0"),
    (["--scale", "wide"], "--scale must be a positive number or auto, got wide"),
    (["--spread", "0"], "--spread must be a number of at least 0.01, got 0"),
    (["--start", "none.csv"], "none.csv: no such file"),
    (["--start", "starts.csv"], "--start starts.csv must hold 3 rows of 2 numbers, got 2 of 3"),
    (["--dtype", "float16"], "dtype float16 cannot hold the construction: its coefficients reach "
     "A = r_max / (eps pi_min) and its rounding exceeds eps; use float64 or float32"),
    (["--mode", "fast"],
     "invalid choice 'fast' for argument '--mode'. Expected one of ('auto', 'dense', 'structured')." + SEE),
    (["--K", "two"], "Error parsing --K: invalid literal for int() with base 10: 'two'" + SEE),
    (["--bogus"], "Unrecognized options: --bogus" + SEE),
    (["--plot", "none/a.png"], "cannot write none/a.png: no folder FOLDER/none"),
    (["--plot", "."], "cannot write .: it is not a regular file"),
    (["--json", "none/a.json"], "cannot write none/a.json: no folder FOLDER/none"),
    (["--plot", "a.xyz"], "cannot draw a.xyz: no picture format 'xyz'; use .png, .svg or .pdf"),
    (["--weights", "none"], "none: no such weights file"),
    (["--weights", "ok.csv"], "ok.csv is not a readable weights file: Error while deserializing header: "
     "header too large"),
    (["--weights", "w", "--eps", "0.1"], "--eps cannot be combined with --weights, which fixes it"),
    (["--r-max", "1e9", "--eps", "1e-8"], "eps = 1e-08 is far below the rounding error 1.1e+02 of |mu|^2 in "
     "float64 at r_max = 1e+09; use a smaller r_max"),
    (["--r-max", "1e200"], "r_max must be positive and below 1e+100, got 1e+200"),
    (["--seed", "-1"], "--seed must be at least 0, got -1"),
    (["--scale", "1e-300"], "the data reach 5.35: too large for --scale 1e-300"),
    (["--data", "huge.csv", "--K", "1"], "the data reach 1e+200: too large for --scale 1"),
    (["--data", "long.csv"], "long.csv has a line of more than 131072 characters"),
    (["--data", "blank.csv"], "blank.csv holds no rows of numbers"),
    (["--weights", "w", "--dtype", "float32"], "--dtype cannot be combined with --weights, which fixes it"),
    (["--plot", "out.json"], "out.json is given for two outputs"),
    (["--data", "ok.csv", "--plot", "ok.csv"],
     "ok.csv is an input and would be replaced by an output; give another name"),
    (["--plot", "a.pgf"], "cannot draw a.pgf: no picture format 'pgf'; use .png, .svg or .pdf"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[" ".join(a) for a, _ in BAD])
def test_bad_input_gives_one_line_and_touches_nothing(demo, tmp_path, arguments, message):
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "binary.csv").write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe\x00")
    (tmp_path / "zeros.csv").write_bytes(b"1,2\n\0\0\n")
    for name in ("em_demo.png", "out.json"):
        (tmp_path / name).write_text("mine")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    options = arguments if "--json" in arguments else [*arguments, "--json", "out.json"]
    status, _, err = demo(*options)
    assert status == 2
    assert err == f"constructions.em_demo: error: {message}\n".replace("FOLDER", str(tmp_path))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_damaged_weights_give_one_line(demo, tmp_path):
    save(EMTransformer(2, 3, eps=0.05, r_max=16, pi_min=0.02), tmp_path / "w")
    data = bytearray((tmp_path / "w").read_bytes())
    (tmp_path / "short").write_bytes(data[:-9])
    data[-9] ^= 4
    (tmp_path / "flipped").write_bytes(data)
    assert demo("--weights", "w", "--depth", "1")[0] == 0
    for name, message in (
        ("short", "is not a readable weights file"),
        ("flipped", "its checksum does not"),
    ):
        status, _, err = demo("--weights", name)
        assert status == 2
        assert err.startswith(f"constructions.em_demo: error: {name}")
        assert message in err
        assert err.count("\n") == 1


def test_help_and_version(demo):
    status, out, _ = demo("--help")
    assert status == 0
    for option in ("--data", "--K", "--d", "--n", "--depth", "--d0", "--K0", "--eps", "--r-max", "--pi-min",
                   "--approximator", "--dtype", "--mode", "--scale", "--weights", "--plot", "--json",
                   "--seed"):  # fmt: skip
        assert f"{option} " in out
    status, out, _ = demo("--version")
    assert status == 0
    assert out.startswith("constructions.em_demo ")


@pytest.mark.slow
def test_as_a_command(tmp_path):
    """The real process: exit statuses, streams, and a reader that leaves early."""
    command = [sys.executable, "-m", em_demo.PROGRAM]
    good = subprocess.run([*command, "--depth", "1"], cwd=tmp_path, capture_output=True, text=True)
    assert (good.returncode, good.stderr) == (0, "")
    bad = subprocess.run([*command, "--K", "0"], cwd=tmp_path, capture_output=True, text=True)
    assert (bad.returncode, bad.stdout) == (2, "")
    assert bad.stderr == "constructions.em_demo: error: --K must be at least 1, got 0\n"
