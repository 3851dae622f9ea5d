"""Power cuts at every durable step of the whole walk, kills at random moments: the same command, the same
bytes.
"""

import os
import random
import shutil
import signal
import subprocess
import time

import pytest
from fixtures.pictures import picture, write_rows
from fixtures.processes import ENVIRONMENT, RUNNER, Forks, snapshot
from fixtures.walk import SMALL
from PIL import Image

STEPS = ("after_tmp", "after_fsync", "after_rename")
KILLS = 8
BEFORE = ("records", "relevance")
"""The stages that points read."""


@pytest.fixture(scope="module")
def forks():
    with Forks() as server:
        yield server


@pytest.fixture
def command(pictures):
    """Everything from pairs and truth to the report, in two shards a stage; the output is yet to be named."""
    files = ["--pairs", pictures / "pairs.jsonl", "--truth", pictures / "truth.jsonl"]
    return ["run", "custom", *files, "--set", "shard_size=2", "--output"]


@pytest.fixture
def undisturbed(forks, command, tmp_path):
    """What the command leaves when nothing happens. The folder's own name is in the report: always `run`."""
    ended = forks.run(tmp_path / "log", *command, tmp_path / "undisturbed" / "run")
    assert ended.code == 0, ended.printed
    return snapshot(tmp_path / "undisturbed" / "run")


def differing(folder, undisturbed):
    """Names of the files that are missing, too many, or of other bytes."""
    return sorted({name for name, _ in snapshot(folder).items() ^ undisturbed.items()})


def files(folder):
    return sum(not name.endswith(".tmp") for name in snapshot(folder))


@pytest.mark.parametrize("each", [1, pytest.param(len(STEPS), marks=pytest.mark.slow)])
def test_a_power_cut_at_every_durable_step_of_every_file(forks, command, undisturbed, tmp_path, each):
    """each: of the steps that a file takes, how many in turn are its end."""
    output, log = tmp_path / "run", tmp_path / "log"
    ended, most, count, steps, cuts = 137, 0, 1, 0, 0
    while ended == 137:
        for step in [STEPS[(steps + n) % len(STEPS)] for n in range(each)]:  # at the count-th file from here
            ended = forks.run(log, *command, output, PPT_FAILPOINT=f"{step}:{count}").code
            cuts += ended == 137
        # A shard that was cut off is begun again, so it takes a longer run-up to get past its later files.
        progress = files(output) > most
        most, count, steps = max(most, files(output)), 1 if progress else count + 1, steps + progress
        assert count < 6, f"no progress beyond {most} files: {log.read_text()}"
    assert (ended, differing(output, undisturbed)) == (0, [])
    assert most == files(tmp_path / "undisturbed" / "run") > 50
    # Cut off three times on one image a run watches a worker, which has steps of its own.
    assert steps > (50 if each == 1 else 40), "every file was written in a run of its own"
    assert cuts >= each * steps


@pytest.mark.parametrize("count", [1, 3, 6])
def test_a_power_cut_before_a_stage_is_swept(forks, command, undisturbed, tmp_path, count):
    output, log = tmp_path / "run", tmp_path / "log"
    assert forks.run(log, *command, output, PPT_FAILPOINT=f"while_sweeping:{count}").code == 137
    assert forks.run(log, *command, output).code == 0
    assert differing(output, undisturbed) == []


@pytest.mark.parametrize("count", [1, 3, 6])
def test_a_power_cut_while_starting_over(forks, command, undisturbed, tmp_path, count):
    output, log = tmp_path / "run", tmp_path / "log"
    other = ["--set", "masks.choice=predicted_iou", "--set", "seed=1"]
    assert forks.run(log, *command, output, *other).code == 0
    assert forks.run(log, *command, output, "--fresh", PPT_FAILPOINT=f"while_clearing:{count}").code == 137
    assert forks.run(log, *command, output, "--fresh").code == 0
    assert differing(output, undisturbed) == []


def test_kills_at_random_moments(forks, command, undisturbed, tmp_path):
    log, rng = tmp_path / "log", random.Random(0)
    begin = time.monotonic()
    assert forks.run(log, *command, tmp_path / "timed" / "run").code == 0
    usual = time.monotonic() - begin
    killed = 0
    for number in range(KILLS):
        output = tmp_path / f"{number}" / "run"
        process = forks.start(log, *command, output)
        time.sleep(rng.uniform(0, usual))
        os.kill(process, signal.SIGKILL)  # a process that has ended already takes no harm
        killed += forks.wait().code == 137
        ended = forks.run(log, *command, output)
        assert (ended.code, differing(output, undisturbed)) == (0, []), f"kill {number}: {ended.printed}"
    assert killed > KILLS // 2


@pytest.mark.slow
def test_workers_write_the_same_bytes_and_their_deaths_lose_nothing(command, undisturbed, tmp_path):
    output = tmp_path / "run"
    pooled = [*RUNNER, *map(str, command), str(output), "--set", "workers=2"]
    environment = {**ENVIRONMENT, "PPT_FAILPOINT": "after_rename:7"}  # in this process, and in each worker
    cut = subprocess.run(pooled, env=environment, capture_output=True, text=True, check=False)
    assert cut.returncode == 137, cut.stderr
    whole = subprocess.run(pooled, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert (whole.returncode, whole.stderr) == (0, "")
    assert differing(output, undisturbed) == []


@pytest.mark.slow
def test_workers_make_the_same_lessons_and_mosaics(forks, tmp_path):
    """And so the same generator."""
    folder, pairs = tmp_path / "pictures", []
    folder.mkdir()
    scenes = {"one": {"left": "red"}, "two": {"right": "blue"}, "both": {"left": "red", "right": "blue"}}
    for name, discs in scenes.items():
        Image.fromarray(picture(discs)).save(folder / f"{name}.png")
        source = "object_centric" if len(discs) == 1 else "referring"
        pairs += [
            {"image": f"{name}.png", "text": f"the {colour} disc", "source": source}
            for colour in discs.values()
        ]
    write_rows(folder / "pairs.jsonl", pairs)
    small = [word for change in (*SMALL, "shard_size=1") for word in ("--set", change)]
    asked = ["custom", "--pairs", folder / "pairs.jsonl", *small, "--output"]
    run, alone = tmp_path / "run", tmp_path / "alone" / "run"
    for output, stages in ((run, BEFORE), (alone, (*BEFORE, "points"))):
        for stage in stages:
            made = forks.run(tmp_path / "log", stage, *asked, output)
            assert made.code == 0, made.printed
    pooled = [*RUNNER, "points", *map(str, asked), str(run), "--set", "workers=2"]
    ended = subprocess.run(pooled, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    for folder in (run, alone):
        shutil.rmtree(folder / "points" / "training" / "tensorboard")  # holds times
    assert differing(run, snapshot(alone)) == []
