"""The explorer's page: it opens from disk in a real browser, shows every layer, and shows what is there."""

import base64
import json
import re
import shutil

import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from constructions import em_demo, explore
from constructions.construction import Run
from constructions.explore_page import contents
from tests.naive import forward

BROWSER, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
)


def write(folder, *arguments):
    """A page as the command writes it."""
    out = folder / "page.html"
    with pytest.raises(SystemExit) as end:
        explore.main(explore.PROGRAM, explore.Options, explore.run, ["--out", str(out), *arguments])
    assert end.value.code == 0
    return out


def embedded(page):
    """The numbers in a page."""
    return json.loads(re.search(r"const DATA = (.*);\n", page.read_text()).group(1))


def unpack(text, dtype):
    return np.frombuffer(base64.b64decode(text), dtype=dtype)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return write(tmp_path_factory.mktemp("page"), "--n", "40", "--depth", "3", "--seed", "5")


@pytest.fixture
def browser():
    if BROWSER is None or DRIVER is None:
        pytest.skip("needs chromium and chromedriver (Debian: apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


def values(browser):
    """The table of the chosen token, by subspace."""
    rows = browser.find_elements(By.CSS_SELECTOR, "#values tr")
    return {
        row.find_element(By.TAG_NAME, "th").text: [
            float(x) for x in row.find_element(By.TAG_NAME, "td").text.split()
        ]
        for row in rows
    }


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 800])
def test_the_page_in_a_browser(browser, page, width):
    """It opens from disk without errors or requests; arrow keys reach every layer; it shows the trace."""
    browser.set_window_size(width, 900)
    browser.get(page.as_uri())
    subject = explore.em_subject(explore.Options(n=40, depth=3), np.random.default_rng(5))
    trace = Run(subject.construction.layout)
    list(subject.construction.iterate(subject.construction.as_tokens(subject.H), 3, "dense", trace))
    slider = browser.find_element(By.ID, "state")
    assert browser.switch_to.active_element == slider
    seen = set()
    for state in range(13):
        layer, stage = (state + 1) // 2, "mlp" if state % 2 == 0 else "attention"
        seen.add(browser.find_element(By.ID, "where").text)
        Select(browser.find_element(By.ID, "token")).select_by_visible_text(str(state + 1))
        for name, shown in values(browser).items():
            assert np.allclose(shown, trace.trace.at(layer, name, stage)[state], rtol=1e-6, atol=1e-6), name
        slider.send_keys(Keys.ARROW_RIGHT)
    assert len(seen) == 13
    assert "layer 6 of 6, after the MLP" in seen
    wide = browser.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
    assert wide <= 0
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert {url.split(":")[0] for url in asked} <= {"file", "data"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tensor", "spectral"])
def test_other_constructions_in_a_browser(browser, tmp_path, kind):
    browser.get(write(tmp_path, "--construction", kind, "--n", "60", "--depth", "2").as_uri())
    slider = browser.find_element(By.ID, "state")
    first = values(browser)
    slider.send_keys(Keys.END)
    last = int(slider.get_attribute("max")) // 2
    assert browser.find_element(By.ID, "where").text.startswith(f"layer {last} of {last}")
    assert values(browser) != first
    assert browser.get_log("browser") == []


def test_the_size_of_a_page(tmp_path):
    assert write(tmp_path, "--n", "300", "--depth", "12").stat().st_size < 10e6


def test_streams_and_patterns_are_the_definitions(page):
    """Against the naive loop over Definitions 1 to 3."""
    data = embedded(page)
    subject = explore.em_subject(explore.Options(n=40, depth=3), np.random.default_rng(5))
    stream = unpack(data["stream"], np.float32).reshape(13, 40, -1)
    H, matrices = subject.H, subject.construction.transformer(3).matrices()
    for number, layer in enumerate(matrices):
        assert np.allclose(stream[2 * number], H, rtol=1e-6, atol=1e-6)
        for head, shown in enumerate(data["layers"][number]["patterns"]):
            scores = (H @ layer["Q"][head].T) @ (H @ layer["K"][head].T).T
            weights = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
            got = unpack(shown["shares"], np.uint8).reshape(40, 40) / 255
            got = got * unpack(shown["largest"], np.float32)[:, None]
            assert np.allclose(got, weights, atol=weights.max(axis=1, keepdims=True) / 500)
        H = forward([layer], H)


def test_few_tokens_are_shown_of_many(monkeypatch):
    subject = explore.em_subject(explore.Options(n=200, depth=3), np.random.default_rng(5))
    monkeypatch.setattr("constructions.explore_page._STREAM", 13 * subject.H.shape[1] * 20)
    data = contents(subject)
    assert len(data["shown"]) == 20
    assert data["shown"][:10] == list(range(10))
    assert data["shown"][-1] == 199
    assert data["tokens"] == 200


def test_your_own_data(tmp_path):
    table = tmp_path / "samples.csv"
    rng = np.random.default_rng(0)
    np.savetxt(table, np.concatenate([rng.normal(3, 2, (30, 3)), rng.normal(-9, 2, (30, 3))]), delimiter=",")
    data = embedded(write(tmp_path, "--data", str(table), "--K", "2", "--depth", "2", "--scale", "auto"))
    assert data["measure"] == "distance from EM"
    assert data["axes"] == ["first principal axis", "second principal axis"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--construction", "tensor", "--data", "x.csv"], "a tensor has no samples"),
        (["--data", "missing.csv"], "no such file"),
        (["--K", "0"], "--K must be at least 1"),
        (["--depth", "0"], "--depth must be at least 1"),
        (["--out", "nowhere/page.html"], "no folder"),
    ],
)
def test_bad_input_is_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        explore.main(explore.PROGRAM, explore.Options, explore.run, arguments)
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_demo_and_the_explorer_draw_the_same_data():
    subject = explore.em_subject(explore.Options(n=50, depth=1), np.random.default_rng(1))
    task = em_demo.problem(em_demo.Options(n=50, depth=1), np.random.default_rng(1))
    assert np.array_equal(subject.points, task.X)
