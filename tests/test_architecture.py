"""What imports what, and which names are public."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import constructions
import gmm

ROOT = Path(__file__).parent.parent
PACKAGES = ("gmm", "constructions", "trainable")

MAY_IMPORT_GMM = {"em_demo", "explore", "report", "spectral_demo", "tensor_demo"}
"""Modules of `constructions` in which a construction meets the classical answers."""

OPTIONAL = {
    "constructions/export.py": {"transformer_lens"},
    "trainable/backbones.py": {"transformers"},
    "trainable/bench.py": {"transformers"},
    "trainable/sweep.py": {"dask"},
}
"""Modules that import the library of an extra, when they are called."""

ALLOWED = {
    "gmm": {"gmm", "numpy", "scipy"},
    "constructions": {
        *("constructions", "matplotlib", "numpy", "safetensors", "scipy"),
        *("threadpoolctl", "torch", "tqdm", "tyro"),
    },
    "trainable": {
        *("constructions", "gmm", "joblib", "matplotlib", "numpy", "safetensors", "sklearn"),
        *("torch", "tqdm", "trainable", "tyro"),
    },
}


def imports(path):
    """Top-level names and own modules imported anywhere in a file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module)
    return found


def modules():
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows_point_one_way(path):
    package = path.relative_to(ROOT).parts[0]
    allowed = ALLOWED[package] | OPTIONAL.get(str(path.relative_to(ROOT)), set())
    if package == "constructions" and path.stem in MAY_IMPORT_GMM:
        allowed.add("gmm")
    outside = {name.split(".")[0] for name in imports(path)} - set(sys.stdlib_module_names)
    assert outside <= allowed, f"imports {sorted(outside - allowed)}"


def test_the_arrow_check_sees_an_import(tmp_path):
    (tmp_path / "x.py").write_text(
        "def f():\n    from sklearn.mixture import GaussianMixture\n    import gmm.em\n"
    )
    assert imports(tmp_path / "x.py") == {"sklearn.mixture", "gmm.em"}


RUNNER = {"transformer", "weights", "tokens", "structured", "structured_heads", "structured_mlp"}


def test_the_runner_knows_no_construction():
    for module in RUNNER:
        own = {name for name in imports(ROOT / f"constructions/{module}.py") if name.startswith("constr")}
        assert own <= {f"constructions.{name}" for name in RUNNER}, module


@pytest.mark.parametrize(
    ("package", "unwanted"),
    [
        ("gmm", ["torch", "constructions", "sklearn", "matplotlib"]),
        ("constructions", ["gmm", "matplotlib", "sklearn", "tyro"]),
    ],
)
def test_importing_a_package_loads_no_more_than_it_needs(package, unwanted):
    code = f"import sys, {package}; print([name for name in {unwanted} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_public_names():
    assert set(gmm.__all__) >= {
        "GaussianMixture", "Task", "TaskDistribution", "clustering_accuracy", "em_step", "fit_em", "l2_error",
        "match_components", "parameter_distance", "population_em_step", "run_em",
    }  # fmt: skip
    assert set(constructions.__all__) >= {
        "DiagonalEMTransformer", "EMTransformer", "Estimate", "SpectralTransformer", "TensorPowerTransformer",
        "Transformer", "load", "log_approximation", "save",
        "square_approximation",
    }  # fmt: skip
    for module in (gmm, constructions):
        assert sorted(module.__all__) == list(module.__all__)
        assert all(getattr(module, name).__doc__ for name in module.__all__)


def test_no_integer_slices_of_the_stream_outside_the_layout():
    """Only `residual` turns a name into indices."""
    for path in (ROOT / "constructions").glob("*.py"):
        if path.stem != "residual":
            assert ".slice(" not in path.read_text(), path
