"""What the figures' scripts share: every picture from its numbers, runs that go on, clusters, bad input."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from tests.test_figures import FOLDER, SCRIPTS, figure

ROOT = Path(__file__).parent.parent

TINY = '''
"""Squares."""
import os
from frame import Map, in_turn, script
from matplotlib.figure import Figure


def square(x, power):
    if os.environ.get("STOP_AT") == str(x):
        raise OSError("cut off")
    with open(os.environ["CALLS"], "a") as file:
        file.write(f"{x}\\n")
    return [float(x**power)]


def compute(tasks, sweep: Map = in_turn):
    return {"rows": sweep(square, [(x, 2) for x in tasks])}


def draw(results):
    figure = Figure()
    figure.subplots().plot([row[0] for row in results["rows"]], color="#000000", label="a")
    return figure


if __name__ == "__main__":
    script(compute, draw, tasks=4)
'''


def frame():
    figure("em_blocks")  # has the folder on the path
    import frame

    return frame


@pytest.fixture
def tiny(tmp_path):
    """Runs the script, with its folder and the cases that it computed."""
    path, calls = tmp_path / "tiny.py", tmp_path / "calls"
    path.write_text(TINY)
    calls.touch()
    paths = f"{FOLDER}{os.pathsep}{ROOT}"

    def run(*options, **environment):
        calls.write_text("")
        done = subprocess.run(
            [sys.executable, str(path), *options], capture_output=True, text=True, check=False,
            env=os.environ | {"CALLS": str(calls), "PYTHONPATH": paths} | environment,
        )  # fmt: skip
        return done, sorted(int(line) for line in calls.read_text().splitlines())

    return tmp_path, run


# ---- pictures


@pytest.mark.parametrize("name", SCRIPTS)
def test_pictures_are_drawn_from_the_committed_numbers(name):
    """Every axis has its name, every picture a legend; both pictures and the numbers are committed."""
    module, committed = figure(name)
    picture = module.draw(committed)
    if "blocks" not in name:
        for axes in picture.axes:
            assert axes.get_xlabel()
            assert axes.get_ylabel() or axes.get_shared_y_axes().joined(axes, picture.axes[0])
        assert picture.legends or all(axes.get_legend() is not None for axes in picture.axes)
    for end in (".png", "-dark.png"):
        assert (FOLDER / f"{name}{end}").stat().st_size > 20_000
    assert f"python docs/figures/{name}.py" in module.__doc__


@pytest.mark.parametrize("name", ["em_blocks", "em_demo", "smallest_c"])
def test_dark_pictures_have_no_dark_ink(name):
    module, committed = figure(name)

    def inks(picture):
        texts = [
            text.get_color() for axes in picture.axes for text in (axes.title, axes.xaxis.label, *axes.texts)
        ]
        lines = [line.get_color() for axes in picture.axes for line in axes.lines]
        edges = [spine.get_edgecolor() for axes in picture.axes for spine in axes.spines.values()]
        ticks = [label.get_color() for axes in picture.axes for label in axes.get_xticklabels()]
        return {to_rgb(colour) for colour in (*texts, *lines, *edges, *ticks)}

    black = (0.0, 0.0, 0.0)
    assert black in inks(module.draw(committed))
    changed = frame().dark(module.draw(committed))
    assert black not in inks(changed)
    assert all(sum(to_rgb(part.get_facecolor())) < 0.3 for part in (changed, *changed.axes))


def test_what_is_not_drawn_stays_so_in_the_dark():
    picture = Figure()
    axes = picture.subplots()
    (marks,) = axes.plot([0, 1], "o", color="#D55E00", markerfacecolor="none")
    area = axes.fill_between([0, 1], 0, 1, color="#000000", alpha=0.2, linewidth=0)
    frame().dark(picture)
    assert marks.get_markerfacecolor() == "none"
    assert to_rgb(marks.get_color()) == to_rgb("#D55E00")
    assert area.get_facecolor()[0, 3] == 0.2
    assert area.get_facecolor()[0, :3].min() > 0.8


# ---- runs


@pytest.mark.slow
def test_numbers_and_both_pictures(tiny):
    folder, run = tiny
    done, calls = run()
    assert done.returncode == 0, done.stderr
    assert calls == [0, 1, 2, 3]
    assert json.loads((folder / "tiny.json").read_text()) == {"rows": [[0.0], [1.0], [4.0], [9.0]]}
    assert {path.name for path in folder.iterdir()} == {
        "calls", "tiny.py", "tiny.json", "tiny.png", "tiny-dark.png",
    }  # fmt: skip
    before = (folder / "tiny.png").read_bytes()
    (folder / "tiny.png").unlink()
    done, calls = run("--draw")
    assert calls == []
    assert (folder / "tiny.png").read_bytes() == before
    assert (folder / "tiny-dark.png").read_bytes() != before


@pytest.mark.slow
def test_it_goes_on_where_it_was_cut_off(tiny):
    folder, run = tiny
    done, calls = run(STOP_AT="2")
    assert done.returncode == 2
    assert calls == [0, 1]
    assert not (folder / "tiny.json").exists()
    (part,) = folder.glob("*.part")
    with part.open("a") as file:
        file.write('["torn')
    done, calls = run("--tasks", "5")
    assert done.returncode == 0, done.stderr
    assert calls == [2, 3, 4]
    assert json.loads((folder / "tiny.json").read_text())["rows"] == [[0.0], [1.0], [4.0], [9.0], [16.0]]
    assert not list(folder.glob("*.part"))


@pytest.mark.slow
def test_what_another_state_of_the_script_found_is_not_taken(tiny):
    folder, run = tiny
    run(STOP_AT="2")
    (folder / "tiny.py").write_text(TINY.replace("x**power", "x**power + 1"))
    _, calls = run()
    assert calls == [0, 1, 2, 3]
    assert json.loads((folder / "tiny.json").read_text())["rows"][0] == [1.0]


@pytest.mark.slow
def test_two_processes_find_the_same(tiny):
    folder, run = tiny
    done, calls = run("--jobs", "2")
    assert done.returncode == 0, done.stderr
    assert calls == [0, 1, 2, 3]
    assert json.loads((folder / "tiny.json").read_text())["rows"] == [[0.0], [1.0], [4.0], [9.0]]


@pytest.mark.slow
def test_a_cluster_finds_the_same(tiny):
    """dask's own cluster of two processes, and one that is there already."""
    distributed = pytest.importorskip("dask.distributed")
    folder, run = tiny
    done, calls = run("--jobs", "2", "--backend", "dask")
    assert done.returncode == 0, done.stderr
    assert calls == [0, 1, 2, 3]
    rows = json.loads((folder / "tiny.json").read_text())["rows"]
    assert rows == [[0.0], [1.0], [4.0], [9.0]]
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        options = ["--backend", "dask", "--scheduler", cluster.scheduler_address, "--tasks", "3"]
        done, _ = run(*options)
    assert done.returncode == 0, done.stderr
    assert json.loads((folder / "tiny.json").read_text())["rows"] == rows[:3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tasks", "0"], "--tasks must be at least 1, got 0"),
        (["--jobs", "0"], "--jobs must be at least 1, got 0"),
        (["--scheduler", "tcp://x:1"], "--scheduler tcp://x:1 needs --backend dask"),
        (["--out", "nowhere"], "--out nowhere is not a folder"),
        (["--draw"], "No such file"),
    ],
)
def test_bad_input_is_one_line(tiny, arguments, message, monkeypatch, capsys):
    folder, _ = tiny
    frame()
    monkeypatch.setattr(sys, "argv", ["tiny.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(folder / "tiny.py"), run_name="__main__")
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert message in error
    assert error.count("\n") == 1
    assert {path.name for path in folder.iterdir()} == {"calls", "tiny.py"}
    assert (folder / "calls").read_text() == ""


# ---- numbers computed anew


def test_error_versus_l():
    module, committed = figure("error_vs_l")
    rows = {(row["C"], row["N"]): row for row in committed["rows"]}
    for C, N in ((6.0, 300), (6.0, 3000), (2.0, 300)):
        got, want = module.one_task(0, N, C), rows[C, N]["tasks"][0]
        assert np.allclose(got["path"], want["path"], rtol=0.02)
        assert np.isclose(got["floor"], want["floor"], rtol=0.02)
        assert not np.allclose(got["path"], rows[C, N]["tasks"][1]["path"], rtol=0.02)
    for (C, N), row in rows.items():
        if C != 6:
            continue
        paths = np.array([task["path"] for task in row["tasks"]])
        floors = [task["floor"] for task in row["tasks"]]
        assert (paths[:, -1] < 1.1 * np.array(floors) + 0.1 * N**-0.5).all()
        limits = [module.bound(N, L) for L in range(paths.shape[1])]
        assert row["bound"] == limits
        if N == 300:  # the condition does not hold
            assert limits == [None] * len(limits)
        else:
            assert (paths <= limits).all()


def test_the_rate_in_n_to_a_thousand():
    module, committed = figure("rate_in_n")
    row = committed["rows"][0]
    got = module.distances(
        row["d"], row["K"], committed["N"][:1], 3, np.random.default_rng(committed["seed"])
    )
    assert np.allclose(got[0], row["distances"][0][:3], rtol=1e-4)
    assert not np.allclose(got[0], row["distances"][0][3:6], rtol=1e-4)


def test_tensor_steps():
    """Rounding is drawn: sizes are compared.  Over fractions all is equal."""
    module, committed = figure("tensor_steps")
    for variant, found in committed["variants"].items():
        assert np.abs(found["fractions"]).max() == 0
        again = module.one_variant(variant, 1)
        assert np.abs(again["fractions"]).max() == 0
        for dtype, u in (("float64", 2.0**-53), ("float32", 2.0**-24)):
            for values in (again[dtype][0], *found[dtype]):
                assert max(values) < 2**module.STEPS * 64 * 16 * u
                assert max(values) > u / 4
    turned = {name: np.array(values)[0] for name, values in module.angles(1).items()}
    for name, values in committed["angles"].items():
        assert np.allclose(turned[name][:5], values[0][:5], rtol=1e-6)
    assert turned["transformer"][-1] < 1e-15 < turned["transformer"][0]


@pytest.mark.parametrize("name", ["em_blocks", "tensor_blocks"])
def test_the_matrices_drawn_are_the_constructions(name):
    module, committed = figure(name)
    got = module.compute(range(1))
    assert [list(pair) for pair in got["names"]] == committed["names"]
    assert got["layers"].keys() == committed["layers"].keys()
    for title, matrices in committed["layers"].items():
        assert got["layers"][title].keys() == matrices.keys()
        for part, matrix in matrices.items():
            assert np.allclose(got["layers"][title][part], matrix, rtol=1e-12, atol=0)


def test_the_run_of_the_em_demo():
    module, committed = figure("em_demo")
    got = module.compute(range(1))
    assert np.allclose(got["X"], committed["X"])
    assert np.allclose(got["paths"], committed["paths"], rtol=1e-3, atol=1e-3)
    for one, other in zip(got["report"], committed["report"], strict=True):
        assert all(np.isclose(one[key], other[key], rtol=0.02) for key in other)


@pytest.mark.slow
def test_the_run_of_the_spectral_demo():
    module, committed = figure("spectral_demo")
    got = module.compute(range(1))
    assert np.allclose(got["X"], committed["X"])
    assert got["steps"] == committed["steps"]
    for one, other in zip(got["marks"], committed["marks"], strict=True):
        assert one[:2] == other[:2]
        assert abs(one[2] - other[2]) < 0.01 * other[2] + 1e-11


def test_attention_patterns():
    """One task for each K computed anew; and what the page says of all of them."""
    module, committed = figure("attention_patterns")
    for K in module.KINDS:
        got, want = module.one_task(K, 0), committed["tasks"][str(K)][0]
        for name, values in got.items():
            assert np.allclose(values, want[name], rtol=0.02, atol=1e-3), (K, name)
    for K, tasks in committed["tasks"].items():
        heads = np.mean([task["heads"] for task in tasks], axis=0)
        read = np.mean([task["readout"] for task in tasks], axis=0)
        flat = {part: np.mean([task[f"{part}, uniform"] for task in tasks]) for part in ("heads", "readout")}
        assert heads[-1].max() > 0.9 > read[-1] > 0.85 > 1.5 * flat["heads"]
        assert abs(flat["readout"] - 1 / int(K)) < 0.01


def test_the_overlap_of_equal_patterns_is_one():
    """The measure: responsibilities against themselves give 1, against those of another task less."""
    module, _ = figure("attention_patterns")
    one, other = (module.TaskDistribution(8).sample_mixture(3, np.random.default_rng(t)) for t in range(2))
    X, _ = one.sample(100, np.random.default_rng(2))
    w, v = one.responsibilities(X), other.responsibilities(X)
    p, q = (x / x.sum(axis=0) for x in (w, v))
    assert abs(np.minimum(p, p).sum(axis=0).mean() - 1) < 1e-12
    assert np.minimum(p, q).sum(axis=0).mean() < 0.9


def test_the_notes_first_tasks():
    module, committed = figure("reproduction_notes")
    for K in (2, 4):
        got, want = module.one_task(K, 0), committed["first"][str(K)]
        assert got.keys() == want.keys()
        for name, value in got.items():
            assert np.isclose(value, want[name], rtol=0.02, atol=1e-3), name
