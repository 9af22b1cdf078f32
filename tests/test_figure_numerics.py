"""The figures of number formats, widths and cost: parts computed anew, and the page's tables held to them."""

from pathlib import Path

import numpy as np

from tests.test_figures import figure

PAGE = Path(__file__).parent.parent / "docs" / "numerics.md"


def close(got, want, rtol=0.02):
    """Equal shapes, and entries equal but for what another machine's rounding may change."""
    assert np.shape(got) == np.shape(want)
    return np.allclose(got, want, rtol=rtol, atol=1e-12)


def test_distances_from_em_in_each_format():
    module, committed = figure("dtype_error")
    rows = {(row["dtype"], row["eps"]): row["gaps"] for row in committed["em"]}
    for dtype in ("float64", "float32"):
        got = module.em_gaps(dtype, 1e-2, range(1))
        assert close(got, rows[dtype, 1e-2][:1])
        assert not close(got, rows[dtype, 1e-4][:1])
        assert not close(got, rows[dtype, 1e-2][1:2])
    got = module.em_gaps("bfloat16", 1e-2, range(1))
    assert close(got, rows["bfloat16", 1e-2][:1])
    assert not close(got, rows["float32", 1e-2][:1])


def test_what_the_page_says_of_the_formats():
    _, committed = figure("dtype_error")
    rows = {(row["dtype"], row["eps"]): np.array(row["gaps"]) for row in committed["em"]}
    for eps in (1e-2, 1e-4):
        assert (np.abs(rows["float32", eps] / rows["float64", eps] - 1) < 0.05).all()
    double = rows["float64", 1e-2]
    assert 0.5 < np.median(rows["bfloat16", 1e-2][:, -1]) / np.median(double[:, -1]) < 2
    assert np.median(rows["bfloat16", 1e-4][:, -1]) > 10 * np.median(rows["float64", 1e-4][:, -1])


def test_angles_of_the_power_iteration():
    module, committed = figure("dtype_error")
    for row in committed["tensor"]:
        (got,) = module.tensor_gaps(row["variant"], row["dtype"], range(1))
        want = row["gaps"][0]
        assert [value is None for value in got] == [value is None for value in want]
        # Rounding itself is drawn, so only its size is compared.
        u = 2.0**-53 if row["dtype"] == "float64" else 2.0**-24
        for one, other in zip(got, want, strict=True):
            assert one is None or abs(one - other) < 100 * u


def test_tables_of_reach_and_separation():
    module, committed = figure("dtype_error")
    (got,) = module.reach_table((64.0,))
    want = next(row for row in committed["reach"] if row["reach"] == 64)
    assert got["gap"] / 3 < want["gap"] < 3 * got["gap"]  # rounding itself
    (got,) = module.separation_table((4.0,))
    want = next(row for row in committed["separation"] if row["C"] == 4)
    assert close([got["float64"], got["float32"]], [want["float64"], want["float32"]])
    text = PAGE.read_text()
    for row in committed["reach"]:
        assert f"| {row['reach']:g} | {row['gap']:.1e} | {row['ratio']:.2f} |" in text
    for row in committed["separation"]:
        assert f"| {row['C']:g} | {row['zeros']:.2f} | {row['float64']:.1e} | {row['float32']:.1e} |" in text


def test_widths_and_their_errors():
    module, committed = figure("width_eps")
    want = next(row for row in committed["widths"] if row["delta"] == 3e-2)
    got = module.one_width(3e-2)
    assert got["below"] == want["below"]
    for width in module.WIDTHS:
        assert all(np.isclose(got[width][name], want[width][name]) for name in want[width])
    for row in committed["widths"]:
        for target in ("log", "square"):
            below, smallest, paper = (row[part][target] for part in ("below", "minimax", "paper"))
            assert below <= smallest <= below + 2
            assert paper > smallest
            assert all(row[width].get(f"{target}_error", 0) <= row["delta"] for width in module.WIDTHS)


def test_distances_from_em_for_each_width():
    module, committed = figure("width_eps")
    rows = {(row["eps"], row["width"]): row["tasks"] for row in committed["rows"]}
    for width in module.WIDTHS:
        got = module.one_task(0, 3e-2, width)
        assert close(got, rows[3e-2, width][0], rtol=0.05)
        assert not close(got, rows[1e-2, width][0], rtol=0.05)
    found = np.concatenate([np.reshape(tasks, (-1, 2)) for tasks in rows.values()])
    assert (found[:, 0] <= found[:, 1]).all()


def test_costs_have_all_sizes_and_pair_in_rounds():
    module, committed = figure("cost_n")
    assert [row["N"] for row in committed["rows"]] == list(module.SAMPLES)
    text = PAGE.read_text()
    for row in committed["rows"]:
        assert ("dense" in row["seconds"]) == (row["N"] <= module.LARGEST_DENSE)
        assert all(len(times) == module.ROUNDS for times in row["seconds"].values())
        assert all(min(times) > 0 for times in row["seconds"].values())
        cells = []
        for way in ("structured", "dense"):
            found = module.ratios(row, way) if way in row["seconds"] else None
            cells.append(
                "--" if found is None else f"{np.median(found):.3g} ({found.min():.3g} to {found.max():.3g})"
            )
        assert f"| {row['N']} | {cells[0]} | {cells[1]} |" in text
    structured = {row["N"]: np.median(row["seconds"]["structured"]) for row in committed["rows"]}
    assert structured[10_000] < 2 * structured[300]
    assert 0.5 < np.median(module.ratios(committed["rows"][-1], "structured")) < 2
