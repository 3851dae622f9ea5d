"""A thousand kills of the whole walk with the stand-in models, and a hundred of the demo with real ones.

PPT_TESTS_KILLS and PPT_TESTS_KILLS_DEMO say how many, PPT_TESTS_KILLS_SEED when. Half an hour on one core.
"""

import os
import time
from pathlib import Path

import pytest
from fixtures.kills import kill_and_resume, lasting, make_scenes
from fixtures.processes import REAL, TRAINING, Forks
from fixtures.walk import SMALL, TINY

import ppt.scenes

pytestmark = pytest.mark.slow
SEED = int(os.environ.get("PPT_TESTS_KILLS_SEED", 0))
DEMO = Path(ppt.scenes.__file__).parent / "demo"
BRIEF = (
    "generator.mosaics=12", "generator.steps=6", "generator.save_every=2", "generator.batch=4",
    "generator.readings=6", "segmenter.steps=6", "segmenter.save_every=2", "segmenter.batch=4",
    "segmenter.size=96", "segmenter.width=16", "clip.size=96", "shard_size=8",
)  # fmt: skip


def told(changes):
    return [word for change in changes for word in ("--set", change)]


def undisturbed(forks, tmp_path, command):
    begin = time.monotonic()
    ended = forks.run(tmp_path / "log", *command, tmp_path / "undisturbed" / "run")
    assert ended.code == 0, ended.printed
    print(f"undisturbed: {time.monotonic() - begin:.1f} s")
    return lasting(tmp_path / "undisturbed" / "run")


def survives(folder, runner, command, kills):
    with Forks(runner) as forks:
        wanted = undisturbed(forks, folder, command)
        assert {"points/index.json", "segmenter/index.json", "report.html"} <= wanted.keys()
        toll = kill_and_resume(forks, folder, command, wanted, kills, SEED)
    print(toll.told())
    assert toll.kills == kills


def test_a_thousand_kills_of_the_whole_walk(tmp_path):
    files = make_scenes(tmp_path / "pictures")
    command = ["run", "custom", *files, *told((*SMALL, *TINY, "shard_size=2")), "--output"]
    survives(tmp_path, TRAINING, command, int(os.environ.get("PPT_TESTS_KILLS", 1000)))


def test_a_hundred_kills_of_the_demo_with_real_models(tmp_path):
    files = ["--pairs", DEMO / "pairs.jsonl", "--truth", DEMO / "truth.jsonl"]
    command = ["run", "demo", *files, "--limit", "24", *told(BRIEF), "--output"]
    survives(tmp_path, REAL, command, int(os.environ.get("PPT_TESTS_KILLS_DEMO", 100)))
