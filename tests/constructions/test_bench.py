"""The benchmark runs and reports; what it reports is for `python -m constructions.bench` at full size."""

import json

import pytest

from constructions import bench


@pytest.fixture
def run_bench(command):
    return command(bench)


@pytest.mark.slow
def test_it_times_pairs_and_writes_them_down(run_bench, tmp_path):
    status, out, err = run_bench(
        "--n", "3000", "--rounds", "2", "--threads", "1", "--json", "o", "--eps", "0.1"
    )
    assert (status, err) == (0, "")
    result = json.loads((tmp_path / "o").read_text())
    assert len(result["ratios"]) == 5
    for ratio in result["ratios"]:
        assert len(ratio["all"]) == 2
        assert f"{ratio['name']}: {ratio['median']:.2f} [" in out
    assert 0.1 < result["peak_memory_gib"] < 4
    assert result["options"]["n"] == 3000


def test_the_peers_are_asked_for_by_name():
    assert bench.peer("math", "pi") > 3
    with pytest.raises(ValueError, match="no_such_library is not installed; pip install"):
        bench.peer("no_such_library", "thing")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--n", "10"], "--n must be at least 100 K = 500, got 10"),
        (["--rounds", "0"], "--rounds must be at least 1, got 0"),
        (["--what", "tensor", "--tensor-d", "3"], "--K must be at most --tensor-d = 3, got 5"),
        (["--json", "no/out"], "cannot write no/out: no folder"),
    ],
)
def test_bad_input_gives_one_line(run_bench, arguments, message):
    status, _, err = run_bench(*arguments)
    assert status == 2
    assert err.startswith(f"constructions.bench: error: {message}")
    assert err.count("\n") == 1
