"""Trainings that are asked to stop, killed between two checkpoints, or cut off while one is saved: the same
command ends in the same weights, to the bit.
"""

import os
import shutil
import signal
import time

import pytest
import torch
from fixtures.kills import lasting, make_scenes
from fixtures.processes import TRAINING, Forks
from fixtures.walk import SMALL, TINY

from ppt.checkpoint import Checkpoints
from ppt.durable import json_object, parsed_lines

SETTINGS = (
    *SMALL, *TINY, "shard_size=8", "generator.steps=24", "generator.save_every=6", "generator.refreshes=1",
    "segmenter.steps=24", "segmenter.save_every=6",
)  # fmt: skip
FIRST = 6
TRAININGS = ("points", "segmenter")
SAVED = {"points": 3, "segmenter": 2}
"""Which of the files that a training writes, from one, is the first checkpoint."""
STEPS = ("after_tmp", "after_fsync", "after_rename")


@pytest.fixture(scope="module")
def forks():
    with Forks(TRAINING) as server:
        yield server


@pytest.fixture(scope="module")
def trained(forks, tmp_path_factory):
    """The folder of a whole run, and the arguments of a stage of it, but for the name of the output."""
    folder = tmp_path_factory.mktemp("stops")
    words = [word for change in SETTINGS for word in ("--set", change)]
    arguments = ["custom", *make_scenes(folder / "pictures"), *words, "--output"]
    ended = forks.run(folder / "log", "run", *arguments, folder / "run")
    assert ended.code == 0, ended.printed
    return folder / "run", arguments


@pytest.fixture
def untrained(trained, tmp_path):
    """For a stage: the command, what it should leave, and the output where it has not begun to train."""
    whole, arguments = trained

    def make(stage):
        output = tmp_path / "run"
        shutil.copytree(whole, output)
        shutil.rmtree(output / stage / "training")
        for path in (*output.glob(f"{stage}/shards/*"), output / stage / "index.json"):
            path.unlink()
        return [stage, *arguments, output], lasting(whole / stage), output / stage

    return make


def last_step(folder):
    """Of the last checkpoint; 0 where there is none."""
    return max((int(path.stem[5:]) for path in folder.glob("training/step_*.pt")), default=0)


def wait_for_a_checkpoint(folder):
    until = time.monotonic() + 60
    while last_step(folder) == 0 and time.monotonic() < until:
        time.sleep(0.002)


@pytest.mark.parametrize(
    ("stage", "number", "code"),
    [
        pytest.param("segmenter", signal.SIGINT, 130, marks=pytest.mark.slow),
        ("points", signal.SIGTERM, 143),
    ],
)
def test_a_signal_ends_a_training_after_its_step_with_a_checkpoint(
    forks, untrained, tmp_path, stage, number, code
):
    command, wanted, folder = untrained(stage)
    process = forks.start(tmp_path / "log", *command)
    wait_for_a_checkpoint(folder)
    os.kill(process, number)
    ended = forks.wait()
    assert ended.code == code, ended.printed
    assert ended.printed.endswith(f"ppt: stopped by {number.name}; the same command resumes\n")
    rows = list(parsed_lines((folder / "training" / "log.jsonl").read_bytes()))
    assert FIRST < last_step(folder) == len(rows) < 24
    assert json_object(folder / "index.json") is None
    assert forks.run(tmp_path / "log", *command).code == 0
    assert lasting(folder) == wanted


def test_a_second_signal_does_not_wait(forks, untrained, tmp_path):
    command, wanted, folder = untrained("segmenter")
    process = forks.start(tmp_path / "log", *command)
    wait_for_a_checkpoint(folder)
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(process, number)
    assert forks.wait().code in (130, 143)
    assert forks.run(tmp_path / "log", *command).code == 0
    assert lasting(folder) == wanted


@pytest.mark.parametrize("stage", TRAININGS)
def test_a_training_killed_between_two_checkpoints_ends_in_the_same_weights(
    forks, untrained, tmp_path, stage
):
    command, wanted, folder = untrained(stage)
    process = forks.start(tmp_path / "log", *command)
    wait_for_a_checkpoint(folder)
    time.sleep(0.03)
    os.kill(process, signal.SIGKILL)
    assert forks.wait().code == 137
    assert forks.run(tmp_path / "log", *command).code == 0
    assert lasting(folder) == wanted


@pytest.mark.parametrize("stage", ["points", pytest.param("segmenter", marks=pytest.mark.slow)])
def test_a_training_cut_off_while_it_saves_ends_in_the_same_weights(forks, untrained, tmp_path, stage):
    command, wanted, folder = untrained(stage)
    half = set()
    for count in (SAVED[stage], SAVED[stage] + 1):
        for step in STEPS:
            ended = forks.run(tmp_path / "log", *command, PPT_FAILPOINT=f"{step}:{count}")
            assert ended.code == 137, ended.printed
            half |= {path.name for path in folder.glob("training/*.tmp")}
    assert any(name.endswith(".pt.tmp") for name in half), half
    assert any(name.endswith(".json.tmp") for name in half), half
    assert forks.run(tmp_path / "log", *command).code == 0
    assert lasting(folder) == wanted


def test_what_a_kill_left_of_older_checkpoints_is_removed(tmp_path):
    known = Checkpoints(tmp_path, "a")
    known.save(8, {"step": 8})
    for name in ("step_00000004.pt", "step_00000012.pt.tmp"):
        (tmp_path / name).write_bytes(b"left")
    assert known.load() == (8, {"step": 8})
    assert not [path for path in tmp_path.iterdir() if path.read_bytes() == b"left"]


def test_a_state_has_the_same_bytes_whether_it_was_loaded_or_not(tmp_path):
    """A pickle tells a name from one that is equal to it."""
    model, known = torch.nn.Linear(2, 2).state_dict(), Checkpoints(tmp_path, "a")
    known.save(1, {"model": model, "average": {n: v.clone() for n, v in model.items()}})
    first = (tmp_path / "step_00000001.pt").read_bytes()
    known.save(1, {"model": model, "average": known.load()[1]["average"]})
    assert (tmp_path / "step_00000001.pt").read_bytes() == first
