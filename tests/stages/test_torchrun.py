"""Several processes as torchrun starts them: trainings, shares of the other stages, and deaths among them."""

import shutil
import subprocess
import sys
from contextlib import nullcontext

import pytest
import torch
from fixtures.processes import ENVIRONMENT, Forks, snapshot
from fixtures.walk import SMALL, TINY, settings, walk

from pipelines import s5_segmenter
from ppt.config import ConfigError
from ppt.peers import Peers, joined
from ppt.store import Artifact

COMMON = ("device=cpu", "clip.size=null", "shard_size=2", "relevance.redundancy=none")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.fixture(scope="module")
def forks():
    with Forks() as server:
        yield server


@pytest.fixture
def labelled(models, all_train, tmp_path):
    """A run up to its labels, of pictures that may all teach."""
    walk(settings(all_train, *TINY), tmp_path / "two", "labels")
    return all_train, tmp_path / "two"


def together(pictures, output, *more, stage="segmenter", torchrun=(), how=TINY, **environment):
    """`ppt STAGE` in two processes: its exit code and what they printed."""
    made = [f"records.pairs={pictures / 'pairs.jsonl'}", *COMMON, *how]
    options = [word for change in made for word in ("--set", change)]
    asked = ["-m", "fixtures.peer", stage, "custom", "--output", str(output), *options, *map(str, more)]
    command, around = [*TORCHRUN, *torchrun, *asked], {**ENVIRONMENT, **environment}
    ended = subprocess.run(command, env=around, capture_output=True, text=True, check=False)
    return ended.returncode, ended.stdout + ended.stderr


def whole(output, stage="segmenter"):
    """All that was learned, as one vector."""
    tensors = Artifact.open(output / stage).tensors("00000")
    return torch.cat([torch.from_numpy(tensors[name]).double().flatten() for name in sorted(tensors)])


def content(path):
    """The bytes of a file, or of all in a folder."""
    return snapshot(path) if path.is_dir() else path.read_bytes()


@pytest.mark.slow
def test_two_processes_learn_what_one_learns_from_twice_the_batches_whoever_of_them_dies(labelled):
    pictures, output = labelled
    alone, fewer, deadly = (output.parent / name for name in ("alone", "fewer", "deadly"))
    for other in (alone, fewer, deadly):
        shutil.copytree(output, other)
    code, printed = together(pictures, output)
    assert code == 0, printed
    walk(settings(pictures, *TINY, "segmenter.accumulate=2"), alone, "segmenter", first="segmenter")
    walk(settings(pictures, *TINY), fewer, "segmenter", first="segmenter")
    two, one, less = (whole(folder) for folder in (output, alone, fewer))
    assert (two - one).norm() < 0.02 * (less - one).norm(), "rounding aside, the same"
    before = snapshot(output)
    again = settings(pictures, *TINY, "segmenter.accumulate=2")
    assert walk(again, output, "segmenter", first="segmenter").made == 0, "nor is there more for one to do"
    assert snapshot(output) == before
    code, printed = together(
        pictures,
        deadly,
        "--fresh",
        torchrun=("--max-restarts", "2"),
        PPT_TESTS_KILLED=f"0:3:{deadly / 'killed'}",
    )
    assert code == 0, printed
    assert printed.count("segmenter: 1 items") == 1, "one of them speaks"
    assert (deadly / "killed").read_text() == "step_00000002.pt", "what was there when they began again"
    for name in ("shards", "training/log.jsonl"):
        made, expected = (content(folder / "segmenter" / name) for folder in (deadly, output))
        assert made == expected, "to the bit"


@pytest.mark.slow
def test_two_processes_teach_one_generator(models, all_train, tmp_path):
    output, alone, fewer = (tmp_path / name / "run" for name in ("two", "alone", "fewer"))
    config = settings(all_train, *SMALL, "shard_size=1")
    walk(config, output, "relevance")
    for other in (alone, fewer):
        shutil.copytree(output, other)
    code, printed = together(all_train, output, stage="points", how=(*SMALL, "shard_size=1"))
    assert code == 0, printed
    walk(
        settings(all_train, *SMALL, "shard_size=1", "generator.accumulate=2"), alone, "points", first="points"
    )
    walk(config, fewer, "points", first="points")
    two, one, less = (whole(folder, "points") for folder in (output, alone, fewer))
    assert (two - one).norm() < 0.02 * (less - one).norm(), "rounding aside, the same"
    for name in ("object_centric", "mosaics", "referring_0"):
        made, expected = (snapshot(folder / "points" / name) for folder in (output, alone))
        assert made == expected, "each process made its share of them"
    pictures = {path.name for path in (output / "points" / "training").glob("points_*.png")}
    assert pictures == {f"points_00000{step}.png" for step in (2, 4, 6)}


@pytest.mark.slow
def test_a_run_in_two_processes_leaves_the_bytes_of_one(forks, pictures, tmp_path):
    files = ("--pairs", pictures / "pairs.jsonl", "--truth", pictures / "truth.jsonl")
    words = [word for change in (*COMMON, "shard_size=1") for word in ("--set", change)]
    both, alone = tmp_path / "two" / "run", tmp_path / "alone" / "run"
    (pictures / "c.png").write_bytes(b"no picture")
    ended = forks.run(tmp_path / "log", "run", "custom", *files, "--output", alone, *words)
    assert ended.code == 3, "an item was passed over"
    code, printed = together(pictures, both, *files, "--fresh", stage="run", how=("shard_size=1",))
    assert code == 0, "to torchrun any other code is a failure: " + printed
    assert snapshot(both) == snapshot(alone)
    assert [line for line in printed.splitlines() if line.startswith("masks: ")] == [
        line for line in ended.printed.splitlines() if line.startswith("masks: ")
    ]


def test_what_processes_cannot_share_is_refused_before_any_work(labelled, monkeypatch):
    pictures, output = labelled
    monkeypatch.setattr(s5_segmenter, "peers_of", lambda config: nullcontext(Peers(1, 2)))
    with pytest.raises(ConfigError, match=r"noise\.correction: each process would see another curve"):
        s5_segmenter.run(settings(pictures, *TINY, "segmenter.noise.correction=0.5"), output)
    assert not (output / "segmenter").exists()


def test_a_process_that_torchrun_did_not_start_is_alone(monkeypatch):
    for name, value in {"WORLD_SIZE": "8", "RANK": "3"}.items():
        monkeypatch.setenv(name, value)
    with joined() as peers:
        assert peers == Peers(0, 1)
        assert peers.told("this") == "this"
