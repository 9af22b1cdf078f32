"""The pytest plugin behind the table of claims: `--claims`, `--claims-json`, `--claims-seed`.

A test declares the claim that it decides with `@pytest.mark.claim(28)`, takes the fixture `claim` and
records what it found. Evidence travels with the test reports, so that it also arrives from parallel
workers; which tests decide a claim is known from the collection, before anything is deselected.
"""

import zlib
from collections.abc import Generator, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.claims import registry
from tests.claims.evidence import Recorder
from tests.claims.session import ClaimsSession

SESSION = pytest.StashKey[ClaimsSession]()
RECORDER = pytest.StashKey[Recorder]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("claims", "the paper's claims")
    group.addoption("--claims", action="store_true", help="run only the tests that decide a claim")
    group.addoption("--claims-json", metavar="FILE", help="write the table of claims to FILE as JSON")
    group.addoption(
        "--claims-seed", type=int, default=0, metavar="N", help="other random numbers in the tests of claims"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "claim(id): decides this claim of the paper")
    # `-k "Lemma C.4"` is two words to pytest and one label to a reader.
    config.option.keyword = registry.as_keywords(config.option.keyword)
    target = config.getoption("--claims-json")
    if target is not None and not (folder := Path(target).absolute().parent).is_dir():
        raise pytest.UsageError(f"--claims-json {target}: there is no folder {folder}")
    config.stash[SESSION] = ClaimsSession(config)
    config.pluginmanager.register(config.stash[SESSION], "claims-session")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    claims = registry.load()
    deciding = []
    for item in items:
        marker = item.get_closest_marker("claim")
        if marker is None:
            continue
        if len(marker.args) != 1 or marker.args[0] not in claims:
            raise pytest.UsageError(f"{item.nodeid}: {marker.args} is not one claim of the list")
        item.extra_keyword_matches.update(claims[marker.args[0]].keywords)
        config.stash[SESSION].expected[item.nodeid] = marker.args[0]
        deciding.append(item)
    if config.getoption("--claims"):
        kept = set(deciding)
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = deciding


@pytest.fixture
def claim(request: pytest.FixtureRequest) -> Iterator[Recorder]:
    """The recorder of the claim that the test decides."""
    marker = request.node.get_closest_marker("claim")
    if marker is None:
        raise pytest.UsageError(f"{request.node.nodeid}: the fixture `claim` needs @pytest.mark.claim(id)")
    seed = [request.config.getoption("--claims-seed"), zlib.crc32(request.node.nodeid.encode())]
    recorder = Recorder(marker.args[0], np.random.default_rng(seed))
    request.node.stash[RECORDER] = recorder
    yield recorder
    request.node.user_properties.append(("claim", recorder.as_data()))


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    result = yield
    if pyfuncitem.get_closest_marker("claim") is not None:
        recorder = pyfuncitem.stash.get(RECORDER, None)
        if recorder is None or not any(entry.kind in ("holds", "rate") for entry in recorder.entries):
            pytest.fail("declares a claim and records nothing that holds", pytrace=False)
    return result
