"""The numbers drawn in the docs are those that their scripts give: part of each is computed anew."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parent.parent / "docs" / "figures"


SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in ("frame", "blocks"))


def figure(name):
    """The script, as a module, and the numbers committed beside its picture."""
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))  # for what the scripts share
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module, json.loads((FOLDER / f"{name}.json").read_text())


@pytest.mark.slow
def test_accuracy_of_the_spectral_construction():
    module, committed = figure("spectral_accuracy")
    again = module.compute(range(committed["problems"]), eps=(1e-4,), teeth=(12,))
    for part, key in (("newton_schulz", "eps"), ("float32", "eps"), ("teeth", "teeth")):
        (got,) = again[part]
        want = next(row for row in committed[part] if row[key] == got[key])
        assert got.keys() == want.keys()
        assert all(np.isclose(got[name], want[name], rtol=0.02) for name in got)


@pytest.mark.slow
def test_accuracy_of_the_diagonal_construction():
    module, committed = figure("diagonal_accuracy")
    (got,) = module.compute(range(committed["tasks"]), eps=(1e-2,))["rows"]
    want = next(row for row in committed["rows"] if row["eps"] == 1e-2)
    for name in ("median", "largest"):
        assert np.allclose(got[name], want[name], rtol=0.02)


@pytest.mark.slow
def test_errors_apart():
    """Two of the tasks, computed anew; and what the page says of all of them."""
    module, committed = figure("errors_apart")
    rows = {row["N"]: row["tasks"] for row in committed["rows"]}
    (again,) = module.compute(range(2), samples=(300,))["rows"]
    for got, want in zip(again["tasks"], rows[300], strict=False):
        for name in module.STYLES:
            assert np.allclose(got[name], want[name], rtol=0.02, atol=1e-3)

    def median(name, part, N):
        return np.median([task[name][part] for task in rows[N]])

    for N in rows:
        floor = median("maximum", 0, N)
        for name in ("transformer", "em", "em_best_of_10"):
            assert 0.9 * floor < median(name, 0, N) < 1.2 * floor
        assert 1.5 * floor < median("spectral", 0, N) < 3.5 * floor
        assert median("transformer", 1, N) < 0.2 * floor
    slope = np.polyfit(np.log(list(rows)), np.log([median("maximum", 0, N) for N in rows]), 1)[0]
    assert -0.55 < slope < -0.45


def test_trained_layers():
    """One task for each K, computed anew; and what the page says of all of them."""
    module, committed = figure("trained_layers")
    for K, tasks in module.compute(range(1))["tasks"].items():
        for name, values in tasks[0].items():
            assert np.allclose(values, committed["tasks"][K][0][name], rtol=0.02, atol=1e-4), (K, name)
    for tasks in committed["tasks"].values():
        layers = np.median([task["layers"] for task in tasks], axis=0)
        appended, oracle = (
            np.mean([task[name] for task in tasks], axis=0) for name in ("appended", "oracle")
        )
        assert (np.diff(layers) < 1e-3).all()
        assert layers[-1] < layers[0] / 2
        assert appended[-1] < 1.1 * oracle[0]
