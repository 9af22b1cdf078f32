"""The tensor demo as a user meets it."""

import json
import pickle

import numpy as np
import pytest
from matplotlib.image import imread

from constructions import tensor_demo
from tests.compare import assert_exact
from tests.constructions.test_tensor_power import mixture_tensor


@pytest.fixture
def demo(command):
    return command(tensor_demo)


def test_without_arguments(demo, tmp_path):
    status, out, err = demo()
    assert (status, err) == (0, "")
    assert "3 orthonormal components planted in dimension 4" in out
    assert "theorem: 12 layers, width D = 27, heads M = 9, hidden width D' = 2, |||Theta||| = 3.828" in out
    assert "over rationals, 4 steps: equal" in out
    assert "differences are within rounding" in out
    assert imread(tmp_path / "tensor_demo.png").shape[1] > 1000


def test_json(demo, tmp_path):
    status, out, _ = demo("--json", "out.json", "--steps", "5", "--seed", "2", "--plot", "a.pdf")
    assert status == 0
    result = json.loads((tmp_path / "out.json").read_text())
    assert [line["step"] for line in result["steps"]] == [1, 2, 3, 4, 5]
    assert set(result["steps"][0]) == {"step", "difference", "rounding", "angle", "norm"}
    assert result["exact"] is True
    assert result["holds"] is True
    assert result["steps"][-1]["angle"] < 1e-3
    assert result["seed"] == 2
    assert len(result["iterate"]) == 4
    assert f"{result['steps'][-1]['difference']:.2e}" in out


@pytest.mark.slow
@pytest.mark.parametrize(
    "variant", ["theorem", "attention_only", "one_layer", "shifted_heads", "three_heads", "normalised"]
)
def test_every_variant(demo, tmp_path, variant):
    status, out, err = demo(
        "--variant", variant, "--steps", "3", "--d0", "5", "--json", "o", "--bound", "1048576"
    )
    assert (status, err) == (0, "")
    result = json.loads((tmp_path / "o").read_text())
    assert result["exact"] is (None if variant == "normalised" else True)
    assert variant in out
    if variant == "normalised":
        assert all(abs(line["norm"] - 1) <= 1e-3 for line in result["steps"])


def test_a_tensor_and_a_start_of_ones_own(demo, tmp_path):
    rng = np.random.default_rng(0)
    T, v = rng.standard_normal((3, 3, 3)), rng.standard_normal(3)
    np.save(tmp_path / "T.npy", T)
    np.save(tmp_path / "v.npy", v)
    status, out, _ = demo("--tensor", "T.npy", "--start", "v.npy", "--steps", "1", "--json", "o")
    assert status == 0
    result = json.loads((tmp_path / "o").read_text())
    assert_exact(result["iterate"], np.einsum("ijm,j,m->i", T, v, v), ulps=1e3, scale=10)
    assert result["steps"][0]["angle"] is None
    assert "T.npy" in out


def test_a_broken_network_is_reported(demo, monkeypatch):
    """The verdicts can fail."""
    real = tensor_demo.build

    def broken(options, d):
        network = real(options, d)
        odd, even = network.design.layers
        fewer = type(even)(even.activation, even.heads[:-2], even.W1, even.W2)
        return network.with_program(type(network.program)((), (odd, fewer), (odd, fewer)))

    monkeypatch.setattr(tensor_demo, "build", broken)
    status, out, _ = demo("--steps", "2")
    assert status == 0
    assert "NOT EQUAL" in out
    assert "BEYOND ROUNDING" in out


BAD = [
    (["--tensor", "none.npy"], "none.npy: no such file"),
    (["--tensor", "flat.npy"], "flat.npy must have 3 axes, got shape (2, 2)"),
    (["--tensor", "long.npy"], "long.npy must be cubic, (d, d, d), got (2, 2, 3)"),
    (["--tensor", "nan.npy"], "T must be finite, got nan at [0, 0, 0]"),
    (["--tensor", "text.npy"], "text.npy is not a .npy file of numbers: "),
    (["--tensor", "pickle.npy"], "pickle.npy is not a .npy file of numbers: "),
    (["--tensor", "objects.npy"], "objects.npy is not a .npy file of numbers: "),
    (["--tensor", "short.npy"], "short.npy is not a .npy file of numbers: "),
    (["--tensor", "ok.npy", "--d0", "1"], "this network holds dimension up to d0 = 1, got 2; build one with"),
    (["--tensor", "ok.npy", "--start", "v3.npy"], "T must be (d, d, d) for v of length d = 3, got (2, 2, 2)"),
    (["--tensor", "ok.npy", "--start", "zero.npy"], "the start v is zero"),
    (["--K", "5"], "--K must be between 1 and --d = 4, got 5"),
    (["--steps", "0"], "--steps must be at least 1, got 0"),
    (["--steps", "40"], "step 11 leaves float64 after |v| = 1.87e+282: without normalisation the iteration"),
    (["--variant", "normalised", "--pi-min", "0"], "pi_min must be positive and finite, got 0"),
    (
        ["--variant", "normalised", "--start", "v4.npy"],
        "this start is outside what variant 'normalised' holds",
    ),
    (["--variant", "one_layer", "--bound", "0.1"], "this start is outside what variant 'one_layer' holds"),
    (["--plot", "no/a.png"], "cannot write no/a.png: no folder"),
]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros((2, 2, 2), complex), "is not a .npy file of numbers: complex128"),
        (
            b"\x93NUMPY\x01\x00\x40\x00" + b"{'descr': '<f8', 'fortran_order': (((".ljust(64),
            "is not a .npy file",
        ),
    ],
    ids=["complex", "malformed header"],
)
def test_files_that_hold_no_tensor(demo, tmp_path, data, message):
    if isinstance(data, bytes):
        (tmp_path / "T.npy").write_bytes(data)
    else:
        np.save(tmp_path / "T.npy", data)
    status, _, err = demo("--tensor", "T.npy")
    assert status == 2
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[" ".join(a) for a, _ in BAD])
def test_bad_input_gives_one_line_and_touches_nothing(demo, tmp_path, arguments, message):
    arrays = {
        "flat": np.zeros((2, 2)), "long": np.zeros((2, 2, 3)), "nan": np.full((2, 2, 2), np.nan),
        "ok": np.ones((2, 2, 2)), "v3": np.ones(3), "v4": np.ones(4), "zero": np.zeros(2),
    }  # fmt: skip
    for name, values in arrays.items():
        np.save(tmp_path / f"{name}.npy", values)
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "text.npy").write_text("1 2 3")
    (tmp_path / "pickle.npy").write_bytes(pickle.dumps([1.0]))
    (tmp_path / "short.npy").write_bytes((tmp_path / "ok.npy").read_bytes()[:-8])
    (tmp_path / "tensor_demo.png").write_text("mine")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    status, _, err = demo(*arguments, "--json", "out.json")
    assert status == 2
    assert err.startswith(f"constructions.tensor_demo: error: {message}")
    assert err.count("\n") == 1
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_mixture_tensors_normalise(demo, tmp_path):
    np.save(tmp_path / "T.npy", mixture_tensor(np.random.default_rng(3), 4, 0.1))
    status, out, err = demo("--tensor", "T.npy", "--variant", "normalised", "--steps", "8")
    assert (status, err) == (0, "")
    assert "differences are within rounding" in out
