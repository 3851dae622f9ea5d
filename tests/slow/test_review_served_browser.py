"""The served page in a real browser: marks that are saved as they are made, and masks at a click."""

import contextlib
import json
import threading

import pytest
from fixtures.browser import CONTRAST, Browser, choose
from fixtures.models import FakeSam
from fixtures.report_run import make_run, plain_scenes

from ppt import rle
from ppt.report.desk import Desk
from ppt.report.gather import read_run
from ppt.report.journal import Journal
from ppt.report.server import Server

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def output(tmp_path):
    return make_run(tmp_path, plain_scenes(9))


@contextlib.contextmanager
def serving(output, limit=400):
    images, sam, run = {scene.name: scene.image for scene in plain_scenes(9)}, FakeSam(), read_run(output)

    def ask(record, points):
        return sam.predict(images[record.pair.image], [points])[0]

    with Journal(output, run.of) as journal:
        desk = Desk(run, output.parent / "images", journal, ask)
        with Server(desk, desk.page("Ada", limit)) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
            thread.start()
            yield server.url
            server.shutdown()
            thread.join()


def rows(output):
    path = output / "review.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def click(browser, x, y, shift=False):
    """At a share of the large picture's width and height."""
    box = browser.run(
        "(() => { const r = document.querySelector('#large .shot').getBoundingClientRect();"
        f"return [r.x + {x} * r.width, r.y + {y} * r.height]; }})()"
    )
    for kind in ("mousePressed", "mouseReleased"):
        browser(
            "Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1,
            modifiers=8 if shift else 0,
        )  # fmt: skip


def points(browser):
    return browser.run("editor.points.map(([x, y, label]) => [Math.round(x), Math.round(y), label])")


def test_marks_are_saved_as_they_are_made_and_are_there_again(browser, output):
    with serving(output) as url:
        browser.open(url)
        for key in ("j", "y", "j", "x", "u"):
            browser.press(key)
        browser.wait("marks.size === 2 && !saving")
        browser.open(url)
        browser.wait("marks.size === 2")
        assert browser.run("document.querySelector('#item-1').dataset.mark") == "keep"
        assert browser.complaints() == []
    assert [row["decision"] for row in rows(output)] == ["keep", "drop", "none"]
    assert {row["who"] for row in rows(output)} == {"Ada"}


def test_a_click_shows_sams_mask_and_enter_accepts_it(browser, output):
    best = 18
    with serving(output) as url:
        browser.open(url)
        browser.run(f"document.querySelector('#item-{best}').focus()")
        browser.press("Enter")
        browser.wait("editor.points.length > 0")
        browser.press("c")
        browser.wait("!editor.points.length")
        scene = plain_scenes(9)[int(browser.run(f"items[{best - 1}].id.slice(0, 4)"))]
        height, width = scene.image.shape[:2]
        mask = scene.sentences[1][1]
        y, x = (int(values.mean()) for values in mask.nonzero())
        click(browser, (x + 0.5) / width, (y + 0.5) / height)
        browser.wait("editor.masks.length === 3")
        assert points(browser) == [[x, y, 1]]
        assert browser.run("document.querySelectorAll('#large .edit use').length") == 1
        click(browser, 0.02, 0.02, shift=True)
        browser.wait("editor.points.length === 2")
        assert [label for *_, label in points(browser)] == [1, 0]
        browser.press("n")
        click(browser, 0.9, 0.02)
        browser.wait("editor.points.length === 3")
        assert [label for *_, label in points(browser)] == [1, 0, 0]
        browser.press("Backspace")
        browser.wait("editor.points.length === 2 && editor.masks.length === 3")
        browser.press("o")  # the stand-in believes most in nearly everything
        shown = browser.picture("#large .shot").astype(int)
        assert abs(shown - browser.picture(f"#item-{best} figure .shot").astype(int).mean()).mean() > 10
        browser.press("Enter")
        browser.wait(f"document.querySelector('#item-{best}').dataset.mark === 'mask'")
        assert not browser.run("document.querySelector('#large').open")
        browser.wait("marks.size === 1 && !saving")
        assert browser.complaints() == []
    [row] = rows(output)
    assert row["decision"] == "mask"
    assert [point[2] for point in row["points"]] == [1, 0]
    assert rle.iou(rle.from_json(row["segmentation"]), rle.encode(mask)) > 0.95


def test_a_mark_that_is_not_saved_is_not_shown_as_if_it_were(browser, output):
    with serving(output) as url:
        browser.open(url)
        browser.press("j")
    browser.press("y")
    browser.wait("document.querySelector('#told').textContent.startsWith('Not saved')")
    assert browser.run("document.querySelector('#item-1').dataset.mark") == "none"
    assert rows(output) == []


def test_items_beside_the_page_are_served(browser, output):
    with serving(output, limit=5) as url:
        browser.open(url)
        browser.wait("document.querySelectorAll('.card').length === 18")
        choose(browser, "#sort", "-worth")
        browser.run("document.querySelector('#item-18').focus()")
        browser.press("1")
        browser.wait("document.querySelector('#item-18').dataset.mark === 'candidate'")
        picture = browser.picture("#item-18 figure .shot").astype(int)
        assert picture.std() > 20
        assert browser.complaints() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
def test_the_large_picture_fits(browser, output, scheme, width):
    with serving(output) as url:
        browser.open(url, width=width, scheme=scheme)
        browser.run("document.querySelector('#item-18').focus()")
        browser.press("Enter")
        browser.wait("document.querySelector('#large').open && editor.points.length > 0")
        click(browser, 0.5, 0.5)
        browser.wait("!document.querySelector('#accept').hidden")
        assert browser.run(CONTRAST.replace("script, dialog", "script")) == []
        out = browser.run(
            "[...document.querySelectorAll('#large *')].filter(e => !e.closest('svg'))"
            f".filter(e => e.getBoundingClientRect().right > {width}).map(e => e.outerHTML.slice(0, 80))"
        )
        assert out == []
