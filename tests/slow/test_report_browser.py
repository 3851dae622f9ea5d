"""The report in a real browser: headless Chromium, driven over its debugging pipe."""

import base64
import io
import itertools
import json
import os
import shutil
import subprocess

import numpy as np
import pytest
from fixtures.report_run import make_run, plain_scenes
from PIL import Image

from ppt.report import build_report

pytestmark = pytest.mark.browser

HOSTILE = "<script>document.title='owned'</script><b onclick=x>the cup</b>"
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-sync", "--disable-component-update", "--disable-quic", "--remote-debugging-pipe"),
    "--hide-scrollbars",
]


class Browser:
    """One page of Chromium; `events` keeps what the page reported since it was opened."""

    def __init__(self, profile):
        program = (
            shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        )
        assert program, "these tests need Chromium: apt-get install chromium"
        ours, self._out = os.pipe()
        self._in, theirs = os.pipe()
        command = f'exec "$0" "$@" 3<&{ours} 4>&{theirs}'
        self._process = subprocess.Popen(
            ["/bin/bash", "-c", command, program, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(ours, theirs),
            stderr=subprocess.DEVNULL,
        )
        os.close(ours)
        os.close(theirs)
        self._pipe = os.fdopen(self._in, "rb")
        self._ids, self.events, self._session = itertools.count(1), [], None
        targets = self("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        self._session = self("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self(f"{domain}.enable")

    def close(self):
        self._session = None
        self("Browser.close")
        assert self._process.wait(20) == 0
        self._pipe.close()
        os.close(self._out)

    def __call__(self, method, **params):
        number = next(self._ids)
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            reply = self._read()
            if reply.get("id") == number:
                assert "error" not in reply, (method, reply)
                return reply["result"]

    def _read(self):
        message = bytearray()
        while (byte := self._pipe.read(1)) not in (b"\0", b""):
            message += byte
        reply = json.loads(message)
        if "method" in reply:
            self.events.append(reply)
        return reply

    def open(self, path, width=1280, height=900, scheme="light", script=True):
        self(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        self("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self("Emulation.setScriptExecutionDisabled", value=not script)
        self.events.clear()
        self("Page.navigate", url=path.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._read()

    def run(self, expression):
        result = self("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def press(self, key):
        text = {"text": "\r" if key == "Enter" else key} if len(key) == 1 or key == "Enter" else {}
        code = {"Enter": 13, "Escape": 27}.get(key, 0)
        self("Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=code, **text)
        self("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def picture(self, selector):
        """What is to be seen of one element, (h, w, 3) uint8."""
        # Cards out of sight have a guessed height: measure only once the page around the element has settled.
        box = self.run(
            f"(async () => {{ const e = document.querySelector({json.dumps(selector)});"
            "for (let i = 0; i < 4; i++) { e.scrollIntoView({block: 'center'});"
            "await new Promise(requestAnimationFrame); }"
            "const r = e.getBoundingClientRect();"
            "return {x: r.x + scrollX, y: r.y + scrollY, width: r.width, height: r.height, scale: 1}; })()"
        )
        shot = self("Page.captureScreenshot", format="png", clip=box, captureBeyondViewport=True)
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB"))


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


def shown(browser, what="weight"):
    """A data attribute of every card to be seen, in the order on the page."""
    cards = "[...document.querySelectorAll('.card')].filter(card => card.offsetParent)"
    return browser.run(f"{cards}.map(card => card.dataset.{what})")


def choose(browser, selector, value):
    browser.run(
        f"(() => {{ const e = document.querySelector('{selector}'); e.value = '{value}';"
        "e.dispatchEvent(new Event(e.tagName === 'INPUT' ? 'input' : 'change')); })()"
    )


def test_it_opens_offline_without_a_complaint(browser, report):
    browser(
        "Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=0, uploadThroughput=0
    )
    browser.open(report)
    asked = [
        e["params"]["request"]["url"] for e in browser.events if e["method"] == "Network.requestWillBeSent"
    ]
    assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()]
    complaints = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
    assert [event for event in browser.events if event["method"] in complaints] == []


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


CONTRAST = """(() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const channel = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const style = getComputedStyle(e), colour = parse(style.backgroundColor);
      if (style.backgroundColor.startsWith('rgb') && (colour.length === 3 || colour[3] === 1)) return colour;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || e.closest('svg, script, dialog') || !e.offsetParent) continue;
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(behind(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push([ratio.toFixed(2), e.outerHTML.slice(0, 80)]);
  }
  return poor;
})()"""


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
