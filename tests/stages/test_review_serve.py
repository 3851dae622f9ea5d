"""`ppt review serve` from its start to Ctrl-C, with the stand-in SAM."""

import json
import os
import re
import signal
import time
import urllib.request

import pytest
from fixtures.processes import Forks

from ppt.report.server import Server


@pytest.fixture
def forks():
    with Forks() as forks:
        yield forks


def url_in(log):
    until = time.monotonic() + 30
    while not (
        found := re.search(
            r"review: (http://127\.0\.0\.1:\d+/[\w-]+/)", log.read_text() if log.exists() else ""
        )
    ):
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.02)
    return found[1]


def post(url, path, value):
    origin = re.match(r"http://[^/]+", url)[0]
    headers = {"Origin": origin, "Content-Type": "application/json"}
    request = urllib.request.Request(url + path, json.dumps(value).encode(), headers)
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


def test_a_review_is_served_until_it_is_ended(command, forks, whole, tmp_path):
    log, output = tmp_path / "log", tmp_path / "out"
    assert command(*whole).code == 0
    child = forks.start(log, "review", "serve", output, "--who", "Ada")
    url = url_in(log)
    with urllib.request.urlopen(url, timeout=20) as answer:
        assert b'"who":"Ada"' in answer.read()
    found = post(url, "mask", {"id": "a-right", "points": [[50, 24, 1]]})
    mask = found["masks"][0]["segmentation"]
    row = {"id": "a-right", "decision": "mask", "segmentation": mask, "points": found["points"], "who": "Ada"}
    post(url, "decide", row)
    os.kill(child, signal.SIGINT)
    ended = forks.wait()
    assert ended.code == 0, ended.printed
    assert "1 items decided on" in ended.printed
    assert "Traceback" not in ended.printed
    [saved] = [json.loads(line) for line in (output / "review.jsonl").read_text().splitlines()]
    assert (saved["id"], saved["decision"], saved["segmentation"]) == ("a-right", "mask", mask)


def test_a_run_of_another_sam_is_reviewed_without_one(command, models, whole, tmp_path, monkeypatch):
    assert command(*whole).code == 0
    monkeypatch.setattr(Server, "serve_forever", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    said = command("review", "serve", tmp_path / "out")
    assert (said.code, said.err) == (0, "")
    monkeypatch.setattr(models.sam, "weights_sha256", "00" * 32)
    said = command("review", "serve", tmp_path / "out")
    assert said.code == 0
    assert "the run had another SAM" in said.err


def test_a_folder_without_a_run_is_refused(command, tmp_path):
    (tmp_path / "none").mkdir()
    said = command("review", "serve", tmp_path / "none")
    assert said.code == 2
    assert "holds no finished records" in said.err
