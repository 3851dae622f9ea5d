"""Several processes train one segmenter: what one process learns from all their batches."""

import shutil
import subprocess
import sys
from contextlib import nullcontext

import pytest
import torch
from fixtures.pictures import read_rows, write_rows
from fixtures.processes import ENVIRONMENT, snapshot
from fixtures.walk import TINY, settings, walk

from pipelines import s5_segmenter
from ppt.config import ConfigError
from ppt.peers import Peers, joined
from ppt.store import Artifact

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.fixture
def labelled(models, pictures, tmp_path):
    """A run up to its labels, of pictures that may all teach."""
    pairs = read_rows(pictures / "pairs.jsonl")
    write_rows(pictures / "pairs.jsonl", [{**row, "split": "train"} for row in pairs])
    walk(settings(pictures, *TINY), tmp_path / "two", "labels")
    return pictures, tmp_path / "two"


def together(pictures, output):
    """`ppt segmenter` in two processes: its exit code and what they printed."""
    mine = output.parent / "mine.yaml"
    mine.write_text("device: cpu\n")
    made = [f"records.pairs={pictures / 'pairs.jsonl'}", "shard_size=2", "relevance.redundancy=none"]
    options = [word for change in (*made, *TINY) for word in ("--set", change)]
    command = [*TORCHRUN, "-m", "fixtures.peer", "segmenter", str(mine), "--output", str(output), *options]
    ended = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    return ended.returncode, ended.stdout + ended.stderr


def whole(output):
    """All that was learned, as one vector."""
    tensors = Artifact.open(output / "segmenter").tensors("00000")
    return torch.cat([torch.from_numpy(tensors[name]).double().flatten() for name in sorted(tensors)])


def test_two_processes_learn_what_one_learns_from_twice_the_batches(labelled):
    pictures, output = labelled
    alone, fewer = output.parent / "alone", output.parent / "fewer"
    for other in (alone, fewer):
        shutil.copytree(output, other)
    code, printed = together(pictures, output)
    assert code == 0, printed
    walk(settings(pictures, *TINY, "segmenter.accumulate=2"), alone, "segmenter", first="segmenter")
    walk(settings(pictures, *TINY), fewer, "segmenter", first="segmenter")
    two, one, less = (whole(folder) for folder in (output, alone, fewer))
    assert (two - one).norm() < 0.02 * (less - one).norm(), "rounding aside, the same"
    before = snapshot(output)
    code, printed = together(pictures, output)
    assert code == 0, printed
    assert snapshot(output) == before, "a second time there is nothing to do"


def test_what_processes_cannot_share_is_refused_before_any_work(labelled, monkeypatch):
    pictures, output = labelled
    monkeypatch.setattr(s5_segmenter, "joined", lambda: nullcontext(Peers(1, 2)))
    with pytest.raises(ConfigError, match=r"noise\.correction: each process would see another curve"):
        s5_segmenter.run(settings(pictures, *TINY, "segmenter.noise.correction=0.5"), output)
    assert not (output / "segmenter").exists()


def test_a_process_that_torchrun_did_not_start_is_alone(monkeypatch):
    for name, value in {"WORLD_SIZE": "8", "RANK": "3"}.items():
        monkeypatch.setenv(name, value)
    with joined() as peers:
        assert peers == Peers(0, 1)
        assert peers.told("this") == "this"
