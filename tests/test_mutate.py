"""The tool that breaks the code: what it changes, and that it tells killed from surviving."""

import ast

import pytest

from tests.mutate import __main__ as mutate
from tests.mutate.reach import Reach
from tests.mutate.sites import KINDS, OUT_OF_SCOPE, ROOT, files, mutated, sites

CODE = '''
"""A docstring with a - b."""

def f(x: "a - b", n=1 + 1):
    """Another, 2 * 3."""
    if n < 2:
        raise ValueError(f"{n - 1} is too small: {-n}")
    y = -x + 2 * n
    y[0], z = x[1:n], x.T
    return min(y, z.sum(axis=0)) @ x ** 2
'''


def changes(kind):
    return {(s.before, s.after) for s in sites("gmm/em.py", CODE) if s.kind == kind}


def test_every_kind_of_change():
    assert changes("sign") == {("-x", "x"), ("-x + 2 * n", "-x - 2 * n")}
    assert changes("factor") == {
        ("2 * n", "2 / n"),
        ("2 * n", "3 * n"),
        ("x ** 2", "x * 2"),
        ("x ** 2", "x ** 3"),
    }
    assert changes("index") == {("x[1:n]", "x[1 + 1:n]"), ("x[1:n]", "x[2:n]"), ("x[1:n]", "x[1:n + 1]"),
                                ("axis=0", "axis=1")} - {("x[1:n]", "x[1 + 1:n]")}  # fmt: skip
    assert changes("bound") == {("n < 2", "n <= 2"), ("min(y, z.sum(axis=0))", "max(y, z.sum(axis=0))")}
    assert changes("transpose") == {("x.T", "x")}


def test_what_only_says_something_is_left_alone():
    lines = {site.line for site in sites("gmm/em.py", CODE)}
    assert lines == {6, 8, 9, 10}


def test_a_mutant_is_the_file_with_one_change():
    for site in sites("gmm/em.py", CODE):
        before, after = ast.unparse(ast.parse(CODE)), ast.unparse(mutated(site, CODE))
        assert before != after
        assert len(before.splitlines()) == len(after.splitlines())
        differing = [a for a, b in zip(before.splitlines(), after.splitlines(), strict=True) if a != b]
        assert len(differing) == 1


def test_there_are_enough_of_every_kind():
    found = [site for file in files() for site in sites(file)]
    assert len(found) >= 300
    assert {site.kind for site in found} == set(KINDS)
    assert len({site.name for site in found}) == len(found)
    assert {site.file.split("/")[0] for site in found} == {"constructions", "gmm"}


def test_files_out_of_scope_exist_and_have_a_reason():
    assert all((ROOT / name).is_file() and reason for name, reason in OUT_OF_SCOPE.items())


def test_equivalent_mutants_exist_and_have_a_proof():
    names = {site.name for file in files() for site in sites(file)}
    for name, proof in mutate.equivalent().items():
        assert name in names, name
        assert len(proof) > 20


@pytest.mark.slow
def test_a_mutant_that_matters_is_killed_and_one_that_does_not_survives():
    """In a process of its own for each, with the tests of gmm.metrics."""
    matters = next(s for s in sites("gmm/metrics.py") if s.before == "found.weights - wanted.weights")
    other = next(site for site in sites("gmm/whitening.py") if site.kind == "sign")
    worker = mutate.Worker()
    try:
        assert worker.ask(matters, ["tests/gmm/test_metrics.py"], 200) == "killed"
        assert worker.ask(other, ["tests/gmm/test_metrics.py"], 200) == "survived"
    finally:
        worker.close()


def test_the_fastest_tests_come_first():
    site = sites("gmm/metrics.py")[0]
    lines = {"gmm/metrics.py": {str(site.line): ["b", "a"], "1": ["c", "a"]}}
    known = Reach({"a": 0.5, "b": 0.1, "c": 0.01}, lines)
    assert known.tests(site) == ["b", "a"]
    assert known.others(site) == ["c"]


def test_what_is_alive_is_told_and_counted(capsys):
    every = sites("constructions/em_layers.py")
    kept = {site.name: "killed" for site in every} | {every[0].name: "survived"}
    summary = mutate.summarise(every, kept, 0)
    assert summary["alive"] == [every[0].name]
    assert summary["share_killed"] == 1 - 1 / len(every)
    assert summary["grave"] == [every[0].name]
    assert every[0].name in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--jobs", "0"], "--jobs must be at least 1"),
        (["--count", "0"], "--count must be at least 1"),
        (["--only", "nothing*"], "--only nothing* is none of"),
    ],
)
def test_bad_input_is_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as end:
        mutate.main(mutate.PROGRAM, mutate.Options, mutate.run, arguments)
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_the_list(capsys):
    with pytest.raises(SystemExit) as end:
        mutate.main(mutate.PROGRAM, mutate.Options, mutate.run, ["--list", "--only", "gmm/metrics.py"])
    assert end.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    found = sites("gmm/metrics.py")
    assert [line.split(" ")[0] for line in lines[:-1]] == [
        f"{site.file}:{site.line}:{site.column + 1}" for site in found
    ]
    assert lines[-1].startswith(f"{len(found)} mutants: ")
