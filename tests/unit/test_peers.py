"""Two processes that train together: one process's curve on the batches of both, asked for once a step."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from fixtures.processes import ENVIRONMENT
from fixtures.two import STEPS, learn

from ppt.peers import Peers

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two processes left."""
    folder = tmp_path_factory.mktemp("two")
    command = [*TORCHRUN, "-m", "fixtures.two", str(folder)]
    ended = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return folder


def curve(folder):
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [row.get("fit") for row in rows]


def weights(folder):
    state = torch.load(folder / f"step_{STEPS:08d}.pt", weights_only=True)["model"]
    return torch.cat([value.flatten() for value in state.values()])


def test_two_processes_have_the_curve_of_one_with_twice_the_batches(two, tmp_path):
    learn(tmp_path / "one", Peers(), accumulate=2)
    both, one = curve(two / "whole"), curve(tmp_path / "one")
    assert len(both) == STEPS
    assert both[4] is one[4] is None, "batch 8, which has no loss, is in step 4 of either"
    assert both == pytest.approx(one, abs=2e-6)
    torch.testing.assert_close(weights(two / "whole"), weights(tmp_path / "one"), rtol=0, atol=1e-6)


def test_one_process_goes_on_along_the_curve_of_two(two, tmp_path):
    shutil.copytree(two / "begun", tmp_path / "on")
    assert len(curve(tmp_path / "on")) == STEPS // 2
    learn(tmp_path / "on", Peers(), accumulate=2)
    assert curve(tmp_path / "on")[: STEPS // 2] == curve(two / "begun")
    assert curve(tmp_path / "on") == pytest.approx(curve(two / "whole"), abs=2e-6)
    shutil.copytree(two / "begun", tmp_path / "half")
    learn(tmp_path / "half", Peers())
    assert curve(tmp_path / "half")[-1] != pytest.approx(curve(two / "whole")[-1], abs=2e-6), (
        "half the batches"
    )


def test_a_step_asks_the_others_once_and_leaves_them_alike(two):
    for rank in range(2):
        told = json.loads((two / f"asked_{rank}.json").read_text())
        assert (told["rank"], told["of"], told["alike"]) == (rank, 2, True)
        parameters = 3 * (9 + 3)
        said = 1 + 6 + 1  # whether all is well, which of six tensors have a gradient, and the loss
        assert told["asked"] == [parameters + said] * STEPS
