"""Marks and many items in a real browser: headless Chromium."""

import json
import time

import numpy as np
import pytest
from fixtures.browser import CONTRAST, Browser, choose, shown
from fixtures.report_run import make_run, plain_scenes

from ppt import rle
from ppt.report import build_report
from ppt.report.gather import read_run
from ppt.store import Artifact

pytestmark = pytest.mark.browser

NAMES = ("id", "decision", "candidate", "segmentation", "points", "note", "who", "when", "of")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(autouse=True)
def forgotten(browser, tmp_path):
    """Chromium keeps one store for all pages from disk: a test begins with none."""
    (tmp_path / "blank.html").write_text("")
    browser.open(tmp_path / "blank.html")
    browser.run("localStorage.clear()")


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path, plain_scenes(9))


@pytest.fixture
def report(run):
    return build_report(run, run.parent / "images")


@pytest.fixture
def many(run):
    """The same run, of whose 18 items only 5 are in the page."""
    return build_report(run, run.parent / "images", limit=5)


def marks(browser):
    return browser.run("Object.fromEntries([...marks].map(([id, row]) => [id, row.decision]))")


def id_of(browser, number):
    return browser.run(f"document.querySelector('#item-{number} code').textContent")


def saved(browser, folder):
    """The lines of the file that the button leaves."""
    browser("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    browser.run("document.querySelector('#save').click()")
    until = time.monotonic() + 10
    while not (folder / "review.jsonl").exists():
        assert time.monotonic() < until, "nothing was downloaded"
        time.sleep(0.05)
    return [json.loads(line) for line in (folder / "review.jsonl").read_text().splitlines()]


def hand(browser, path):
    """Give a file to the page's file input."""
    found = browser("Runtime.evaluate", expression="document.querySelector('#load')")["result"]
    browser("DOM.setFileInputFiles", files=[str(path)], objectId=found["objectId"])


def test_keys_mark_the_focused_card_and_nothing_else(browser, report):
    browser.open(report)
    choose(browser, "#who", "Ada")
    for key in ("j", "y", "j", "x", "j", "f", "j", "2", "j", "y", "u"):
        browser.press(key)
    ids = [id_of(browser, number) for number in range(1, 6)]
    assert marks(browser) == dict(zip(ids, ("keep", "drop", "flag", "candidate", "none"), strict=True))
    assert browser.run("document.querySelector('#item-4 .verdict').textContent") == "candidate 2, Ada"
    pressed = "[...document.querySelectorAll('.card [aria-pressed=true]')].map(e => e.textContent)"
    assert browser.run(pressed) == ["Keep", "Drop", "Flag", "Pick"]
    assert browser.run("document.querySelector('#tally').textContent").startswith("4 of 18 marked · keep 1")
    browser.press("9")
    assert marks(browser)[ids[4]] == "none", "there is no ninth candidate to pick"
    assert browser.complaints() == []


def test_buttons_mark_as_the_keys_do(browser, report):
    browser.open(report)
    for selector in ("#item-6 [data-mark=drop]", "#item-17 [data-pick='1']", "#item-8 [data-mark=keep]"):
        browser.run(f'document.querySelector("{selector}").click()')
    browser.run("document.querySelector('#item-8 button[data-mark=none]').click()")
    assert list(marks(browser).values()) == ["drop", "candidate", "none"]
    assert not browser.run("document.querySelector('#large').open")


def test_the_segmenters_mask_is_picked_and_drawn_on_the_card(browser, tmp_path):
    run = make_run(tmp_path, plain_scenes(9), segmenter=True)
    browser.open(build_report(run, run.parent / "images"))
    first = id_of(browser, 1)
    browser.press("j")
    browser.press("s")
    assert marks(browser) == {first: "mask"}
    [row] = saved(browser, tmp_path)
    [stored] = [r["segmentation"] for r in Artifact.open(run / "predictions").rows() if r["id"] == first]
    assert row["segmentation"] == stored
    mask = rle.decode(rle.from_json(stored))
    filled = browser.run(f"""(() => {{
        const path = document.querySelector("#item-1 figure.new path"), rows = [];
        for (let y = 0; y < {mask.shape[0]}; y++) for (let x = 0; x < {mask.shape[1]}; x++)
            rows.push(path.isPointInFill(new DOMPoint(x, y)));
        return rows;
    }})()""")
    assert np.array_equal(np.reshape(filled, mask.shape), mask), "to the pixel"
    assert browser.run("document.querySelector('#item-1 [data-take]').ariaPressed") == "true"
    browser.run("document.querySelector('#item-1 [data-take]').click()")
    assert browser.run("document.querySelectorAll('#item-1 figure.new').length") == 1, "once"
    browser.press("u")
    assert browser.run("document.querySelectorAll('#item-1 figure.new').length") == 0
    assert browser.complaints() == []


def test_what_is_saved_is_one_line_a_decision(browser, report, run, tmp_path):
    browser.open(report)
    choose(browser, "#who", "Ada")
    for key in ("j", "y", "j", "x", "j", "j", "1"):
        browser.press(key)
    note = "document.querySelector('#item-2 .note')"
    browser.run(
        f"{note}.value = 'a “tail” only'; {note}.dispatchEvent(new Event('change', {{bubbles: true}}))"
    )
    rows = saved(browser, tmp_path)
    of = read_run(run).of
    assert [row["decision"] for row in rows] == ["keep", "drop", "candidate"]
    assert [row["candidate"] for row in rows] == [None, None, 0]
    assert [row["note"] for row in rows] == ["", "a “tail” only", ""]
    for row in rows:
        assert sorted(row) == sorted(NAMES)
        assert (row["who"], row["of"], row["segmentation"], row["points"]) == (
            "Ada",
            of[row["id"]],
            None,
            None,
        )
        time.strptime(row["when"], "%Y-%m-%dT%H:%M:%SZ")
    assert browser.complaints() == []


def test_marks_outlive_the_tab_and_are_of_these_masks_alone(browser, report, run, tmp_path):
    browser.open(report)
    with_masks = next(n for n, item in enumerate(read_run(run).items, start=1) if item.labelled)
    for key in (*"j" * with_masks, "y", "j", "x"):
        browser.press(key)
    before = marks(browser)
    assert len(before) == 2
    browser.open(report)
    assert marks(browser) == before
    assert browser.run(f"document.querySelector('#item-{with_masks}').dataset.mark") == "keep"
    other = make_run(tmp_path / "other", plain_scenes(9), seed=1)
    browser.open(build_report(other, other.parent / "images"))
    assert marks(browser) == {}


def test_a_review_is_read_back_and_what_does_not_belong_is_told(browser, report, run, tmp_path):
    browser.open(report)
    of, ids = read_run(run).of, [id_of(browser, n) for n in (1, 2, 3)]
    plain = dict.fromkeys(NAMES, None) | {"note": "", "who": "Bo", "when": "2026-01-02T03:04:05Z"}
    rows = [
        plain | {"id": ids[0], "of": of[ids[0]], "decision": "keep"},
        plain | {"id": ids[0], "of": of[ids[0]], "decision": "drop"},
        plain | {"id": ids[1], "of": of[ids[1]], "decision": "candidate", "candidate": 1},
        plain | {"id": ids[2], "decision": "keep", "of": "0" * 16},
        plain | {"id": "nobody", "decision": "keep"},
        plain | {"id": ids[2], "of": of[ids[2]], "decision": "<b>explode</b>"},
    ]
    (tmp_path / "old.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows) + "{broken\n")
    hand(browser, tmp_path / "old.jsonl")
    browser.wait("!document.querySelector('#told').hidden")
    assert marks(browser) == {ids[0]: "drop", ids[1]: "candidate"}
    told = browser.run("document.querySelector('#told').textContent")
    assert "3 decisions read from old.jsonl" in told
    assert "1 are about other labels" in told
    assert "3 lines are no decision" in told
    choose(browser, ".filter[data-key=mark]", "drop")
    assert len(shown(browser)) == 1
    choose(browser, ".filter[data-key=mark]", "none")
    assert len(shown(browser)) == 16
    assert browser.complaints() == []


def test_keys_typed_into_a_field_mark_nothing(browser, report):
    browser.open(report)
    browser.run("document.querySelector('#who').focus()")
    for key in "yxf1":
        browser.press(key)
    assert marks(browser) == {}
    assert browser.run("document.querySelector('#who').value") == "yxf1"


def test_items_beside_the_page_are_shown_when_they_are_wanted(browser, many):
    browser(
        "Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=0, uploadThroughput=0
    )
    browser.open(many)
    browser.wait("document.querySelector('.cards').ariaBusy === 'false'")
    weights = [float(weight) for weight in shown(browser)]
    assert len(weights) == 18
    assert weights == sorted(weights)
    best = browser.picture("#item-18 figure:nth-of-type(1) .shot").astype(int)
    assert best.std() > 20, "the photograph beside the page is not drawn"
    browser.press("j")
    browser.press("y")
    choose(browser, "#sort", "-worth")
    assert [float(weight) for weight in shown(browser)] == weights[::-1]
    choose(browser, "#search", "left picture_003")
    assert len(shown(browser)) == 1
    assert browser.complaints() == []


def test_a_page_shows_fifty_and_the_keys_turn_it(browser, many):
    browser.open(many)
    browser.run("run.page = 4; arrange()")
    browser.wait("document.querySelectorAll('.card').length === 4")
    assert browser.run("document.querySelector('#page').textContent") == "Page 1 of 5"
    for key in "jjjjj":
        browser.press(key)
    browser.wait("document.querySelector('#page').textContent === 'Page 2 of 5'")
    browser.wait("document.activeElement.id === 'item-5'")
    browser.press("k")
    browser.wait("document.activeElement.id === 'item-4'")
    browser.run("location.hash = '#item-17'")
    browser.wait("document.activeElement.id === 'item-17'")
    assert browser.run("document.querySelector('#after').disabled")


def test_a_page_without_its_files_says_so(browser, many):
    for path in many.with_name("report_files").glob("items_*.js"):
        path.unlink()
    browser.open(many)
    browser.wait("!document.querySelector('#lost').hidden")
    assert "only 5 items are shown" in browser.run("document.querySelector('#lost').textContent")


def test_files_of_another_page_are_refused(browser, many):
    [path] = many.with_name("report_files").glob("items_*.js")
    text = path.read_text()
    path.write_text(text.replace(text[10:22], "0" * 12, 1))
    browser.open(many)
    browser.wait("!document.querySelector('#lost').hidden")
    assert "made anew" in browser.run("document.querySelector('#lost').textContent")


def test_the_page_runs_no_script_but_its_own_and_those_that_asks_for(browser, many):
    browser.open(many)
    (many.parent / "foreign.js").write_text("document.title = 'owned';")
    for markup in ("<script src='foreign.js'></script>", "<img src=x onerror=\"document.title='owned'\">"):
        holder = json.dumps(markup)
        browser.run(f"document.body.insertAdjacentHTML('beforeend', {holder})")
    browser.run(
        "const s = document.createElement('script'); s.src = 'https://example.org/x.js';"
        "document.head.append(s)"
    )
    time.sleep(0.3)
    assert browser.run("document.title") == "run · ppt report"
    blocked = [e["params"]["blockedReason"] for e in browser.events if "blockedReason" in e["params"]]
    assert blocked == ["csp"], blocked


def test_the_map_fades_as_far_as_the_slider_says(browser, report):
    browser.open(report)
    browser.run("document.querySelector('#item-18').focus()")
    browser.press("Enter")
    assert browser.run("document.querySelector('#fade').hidden"), "the photograph has no map to fade"
    browser.press("ArrowRight")
    assert browser.run("document.querySelector('#large p').textContent").startswith("Relevance")
    lit = browser.picture("#large .shot").astype(int)
    slider = "document.querySelector('#opacity')"
    browser.run(f"{slider}.value = 0; {slider}.dispatchEvent(new Event('input'))")
    bare = browser.picture("#large .shot").astype(int)
    assert abs(lit - bare).mean() > 10
    assert abs(bare[..., 0] - bare[..., 2]).max() < 12, "beneath the map the photograph is grey"
    browser.run(f"{slider}.focus()")
    browser.press("ArrowRight")
    said = browser.run("document.querySelector('#large p').textContent")
    assert said.startswith("Relevance"), "the arrows are the slider's while it has them"


def test_two_runs_stand_side_by_side(browser, run, tmp_path):
    other = make_run(tmp_path / "other", plain_scenes(9), seed=1)
    browser.open(build_report(run, run.parent / "images", against=other))
    choose(browser, "#sort", "nearness")
    near = browser.run(
        "[...document.querySelectorAll('.card')]"
        ".map(c => c.textContent.match(/IoU with this run([\\d.]+)/)?.[1])"
    )
    known = [float(value) for value in near if value]
    assert len(known) > 10
    assert known == sorted(known)
    assert browser.complaints() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
def test_a_review_is_to_be_read_in_every_light_and_width(browser, report, scheme, width):
    browser.open(report, width=width, scheme=scheme)
    for key in ("j", "y", "j", "x", "j", "f", "j", "2"):
        browser.press(key)
    assert browser.run(CONTRAST) == []
    assert browser.run("document.documentElement.scrollWidth") <= width
    out = browser.run(
        "[...document.querySelectorAll('.card *, .review *')].filter(e => !e.closest('svg'))"
        ".filter(e => e.offsetParent)"
        f".filter(e => e.getBoundingClientRect().right > {width + 1}).map(e => e.outerHTML.slice(0, 80))"
    )
    assert out == []
