"""The report in a real browser: headless Chromium."""

import numpy as np
import pytest
from fixtures.browser import CONTRAST, Browser, choose, shown
from fixtures.report_run import make_run, plain_scenes

from ppt.report import build_report

pytestmark = pytest.mark.browser

HOSTILE = "<script>document.title='owned'</script><b onclick=x>the cup</b>"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    scenes = plain_scenes(9)
    (_, mask), other = scenes[0].sentences
    scenes[0] = type(scenes[0])("a<b>&c.png", scenes[0].image, ((HOSTILE, mask), other))
    other, (_, mask) = scenes[1].sentences
    scenes[1] = type(scenes[1])("n" * 200 + ".png", scenes[1].image, (other, ("w" * 400, mask)))
    root = tmp_path_factory.mktemp("report")
    return build_report(make_run(root, scenes), root / "images")


def test_it_opens_offline_without_a_complaint(browser, report):
    browser(
        "Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=0, uploadThroughput=0
    )
    browser.open(report)
    asked = [
        e["params"]["request"]["url"] for e in browser.events if e["method"] == "Network.requestWillBeSent"
    ]
    assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()]
    assert browser.complaints() == []


def test_hostile_text_is_shown_as_text_and_does_nothing(browser, report):
    browser.open(report)
    assert browser.run("document.title") == "run · ppt report"
    titles = browser.run("[...document.querySelectorAll('.card h3')].map(title => title.textContent)")
    assert HOSTILE in titles
    assert browser.run("document.querySelectorAll('.card script, .card b[onclick]').length") == 0


def test_without_scripts_the_whole_list_is_there_worst_first(browser, report):
    browser.open(report, script=False)
    browser("Emulation.setScriptExecutionDisabled", value=False)
    weights = [float(weight) for weight in shown(browser)]
    assert len(weights) == 18
    assert weights == sorted(weights)
    assert browser.run("document.querySelector('#bar').offsetParent === null"), (
        "a bar that cannot work is hidden"
    )


def test_the_list_sorts(browser, report):
    browser.open(report)
    for order, key, sign in (("-worth", "worth", -1), ("iou", "iou", 1), ("-surprise", "surprise", -1)):
        choose(browser, "#sort", order)
        values = [sign * float(value) for value in shown(browser, key) if value != ""]
        assert len(values) >= 17
        assert values == sorted(values)
        assert shown(browser, key)[-1] == "" or "" not in shown(browser, key), "what has no value comes last"


def test_the_list_narrows_by_words_and_by_choice_and_recovers(browser, report):
    browser.open(report)
    choose(browser, "#search", "ELLIPSE left picture_003")
    assert len(shown(browser)) == 1
    assert browser.run("document.querySelector('#count').textContent") == "1 of 18"
    choose(browser, "#search", "no such thing")
    assert browser.run("document.querySelector('#nothing').offsetParent !== null")
    browser.run("document.querySelector('#clear').click()")
    assert len(shown(browser)) == 18
    choose(browser, ".filter[data-key=split]", "val")
    assert set(shown(browser, "split")) == {"val"}


def test_the_keyboard_moves_enlarges_and_searches(browser, report):
    browser.open(report)
    for key in "jjjk":
        browser.press(key)
    assert browser.run("document.activeElement.id") == "item-2"
    browser.press("Enter")
    assert browser.run("document.querySelector('#large').open")
    before = browser.run("document.querySelector('#large p').textContent")
    browser.press("ArrowRight")
    assert browser.run("document.querySelector('#large p').textContent") != before
    browser.press("Escape")
    assert not browser.run("document.querySelector('#large').open")
    browser.press("/")
    assert browser.run("document.activeElement.id") == "search"
    browser.press("j")
    assert browser.run("document.activeElement.value") == "j", "keys typed into the search are its own"


def test_the_pictures_are_drawn(browser, report):
    browser.open(report)
    best = f"#item-{len(shown(browser))}"
    photo, heat, points = (
        browser.picture(f"{best} figure:nth-of-type({n}) .shot").astype(int) for n in (1, 2, 3)
    )
    chosen = browser.picture(f"{best} .chosen .shot").astype(int)
    assert photo.std() > 20, "the photograph is blank"
    assert np.abs(photo - heat).mean() > 10
    green = (np.abs(points - (34, 160, 84)).sum(2) < 30).sum()
    assert green > 30, "no positive point is to be seen"
    area = browser.run(f"document.querySelector('{best} .chosen dl').textContent.match(/area([\\d.]+)/)[1]")
    tinted = (np.abs(chosen - points).max(2) > 25).mean()
    assert tinted == pytest.approx(float(area) / 100, abs=0.05), "the tint is not where the mask is"
    off = np.abs(chosen - (0.58 * points + 0.42 * np.array([38, 132, 255]))).max(2)
    assert np.median(off[np.abs(chosen - points).max(2) > 25]) < 12, "the tint is not the legend's colour"


@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_runs_out_of_the_window(browser, report, width):
    browser.open(report, width=width)
    assert browser.run("document.documentElement.scrollWidth") <= width
    out = browser.run(
        "[...document.querySelectorAll('.card *')].filter(e => !e.closest('svg'))"
        f".filter(e => e.getBoundingClientRect().right > {width + 1}).map(e => e.outerHTML.slice(0, 80))"
    )
    assert out == []
    cut = browser.run(
        "[...document.querySelectorAll('.card *, header *')].filter(e => e.scrollWidth > e.clientWidth + 1)"
        ".filter(e => e.clientWidth).map(e => e.outerHTML.slice(0, 80))"
    )
    assert cut == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(browser, report, scheme):
    browser.open(report, scheme=scheme)
    assert browser.run(CONTRAST) == []
    ground = browser.picture("body").mean()
    assert ground > 180 if scheme == "light" else ground < 90


def test_every_control_has_a_name(browser, report):
    browser.open(report)
    names = browser.run(
        "[...document.querySelectorAll('input, select, button, svg[role=img]')]"
        ".map(e => e.getAttribute('aria-label') || e.textContent.trim())"
    )
    assert len(names) > 50
    assert all(names)
