"""Several processes write shares of one artifact at once: whoever comes when, the same bytes."""

import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ppt.manifest import Manifest
from ppt.shard import shard_plan
from ppt.store import Artifact, ArtifactError, BusyArtifact, StaleArtifact, begin, begin_share, clear

MANIFEST = Manifest("masks", 1, {"masks": {"choice": "agreement"}}, {"points": "aa"}, {"sam": "bb"}, 0)
PLAN = shard_plan([f"item {number}" for number in range(40)], 2)
ROOTS = os.pathsep.join((str(Path(__file__).parents[2]), str(Path(__file__).parent)))


def write(writer) -> list[str]:
    for shard in writer.missing:
        values = np.full(20_000, int(shard.key), np.float32)  # large enough to be caught half written
        shard.write([{"id": item} for item in shard.items], {"map": values})
    return [shard.key for shard in writer.missing]


def write_share(folder: Path, number: int, count: int) -> list[str]:
    with begin_share(folder, MANIFEST, PLAN, (number, count)) as writer:
        return write(writer)


def finish(folder: Path) -> list[str]:
    with begin(folder, MANIFEST, PLAN) as writer:
        made = write(writer)
        writer.finish()
        return made


def in_process(folder: Path, number: int, count: int, at: float) -> subprocess.Popen[str]:
    """A process that writes a share from the moment `at` on."""
    code = (
        "import time; from pathlib import Path; import test_shares as t;"
        f"time.sleep(max(0, {at} - time.time())); t.write_share(Path({str(folder)!r}), {number}, {count})"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": ROOTS},
        stderr=subprocess.PIPE,
        text=True,
    )


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def undisturbed(tmp_path):
    assert len(finish(tmp_path / "undisturbed")) == 20
    return snapshot(tmp_path / "undisturbed")


def test_shares_take_in_other_inputs(tmp_path):
    folder, parts = tmp_path / "out", dict.fromkeys(PLAN, "before")
    with begin(folder, MANIFEST, PLAN, parts=parts) as writer:
        write(writer)
        writer.finish()
    (folder / "preview.png").write_bytes(b"of before")
    other, parts = replace(MANIFEST, inputs={"points": "cc"}), {**parts, "00003": "now", "00010": "now"}
    made = []
    for number in range(3):
        with begin_share(folder, other, PLAN, (number, 3), parts) as writer:
            made += write(writer)
    assert sorted(made) == ["00003", "00010"]
    assert not (folder / "preview.png").exists()
    with pytest.raises(ArtifactError, match="no complete artifact"):
        Artifact.open(folder)
    with begin(folder, other, PLAN, parts=parts) as writer:
        assert not writer.missing
        assert writer.finish().manifest == other
    with pytest.raises(StaleArtifact, match=r"masks\.choice: 'agreement' -> 'other'"):
        begin(folder, replace(other, config={"masks": {"choice": "other"}}), PLAN, parts=parts)


@pytest.mark.parametrize("shares", [[(0, 1)] * 3, [(0, 3), (1, 3), (2, 3)]], ids=["the_same", "disjoint"])
def test_processes_that_race_on_one_plan_leave_the_bytes_of_one(undisturbed, tmp_path, shares):
    folder, at = tmp_path / "raced", time.time() + 1.5
    processes = [in_process(folder, *share, at) for share in shares]
    assert [(process.communicate()[1], process.returncode) for process in processes] == [("", 0)] * 3
    assert not (folder / "index.json").exists(), "nobody closed it"
    with pytest.raises(ArtifactError, match="no complete artifact"):
        Artifact.open(folder)
    assert finish(folder) == []
    assert snapshot(folder) == undisturbed


def test_what_another_begins_at_the_same_moment_is_not_foreign(undisturbed, tmp_path, monkeypatch):
    folder, listed = tmp_path / "masks", Path.iterdir
    folder.mkdir()

    def meanwhile(path):
        if path == folder and not (folder / "manifest.json").exists():
            shutil.copy(tmp_path / "undisturbed" / "manifest.json", folder)
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", meanwhile)
    assert len(write_share(folder, 0, 2)) == 10


def test_a_share_is_every_nth_shard_and_what_is_there_is_kept(undisturbed, tmp_path):
    folder = tmp_path / "masks"
    assert write_share(folder, 3, 8) == ["00003", "00011", "00019"]
    (folder / "shards" / "00011.safetensors").write_bytes(b"half")
    assert write_share(folder, 3, 8) == ["00011"]
    assert write_share(folder, 30, 40) == [], "more tasks than shards"
    made = finish(folder)
    assert len(made) == 17
    assert not {"00003", "00011", "00019"} & set(made)
    assert snapshot(folder) == undisturbed


def test_a_share_of_a_complete_artifact_changes_nothing_unless_a_shard_is_damaged(undisturbed, tmp_path):
    folder = tmp_path / "masks"
    finish(folder)
    assert write_share(folder, 0, 2) == []
    Artifact.open(folder)
    (folder / "shards" / "00001.jsonl").write_bytes(b"")
    assert write_share(folder, 0, 2) == [], "not its own"
    assert write_share(folder, 1, 2) == ["00001"]
    assert finish(folder) == []
    assert snapshot(folder) == undisturbed


def test_the_whole_waits_for_shares_and_they_for_the_whole(tmp_path, monkeypatch):
    folder = tmp_path / "masks"
    with begin_share(folder, MANIFEST, PLAN, (0, 2)):
        with pytest.raises(BusyArtifact, match=r"shares of it are being written \(\.lock\..*\); wait"):
            finish(folder)
        with pytest.raises(BusyArtifact, match="shares of it"):
            clear(folder)
    monkeypatch.setattr("ppt.store.writing.PATIENCE", 0.1)
    with begin(folder, MANIFEST, PLAN), pytest.raises(BusyArtifact, match="another run is writing here"):
        write_share(folder, 0, 2)
    assert len(write_share(folder, 0, 2)) == 10


def test_shares_of_another_recipe_are_refused_until_it_is_cleared(tmp_path):
    folder = tmp_path / "masks"
    other = Manifest("masks", 1, {"masks": {"choice": "predicted_iou"}}, {"points": "aa"}, {"sam": "bb"}, 0)
    with begin(folder, other, PLAN) as writer:
        write(writer)
        writer.finish()
    with pytest.raises(StaleArtifact, match=r"masks\.choice: 'predicted_iou' -> 'agreement'"):
        write_share(folder, 0, 2)
    clear(folder)
    assert len(write_share(folder, 0, 2)) == 10
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("precious")
    with pytest.raises(ArtifactError, match=r"holds 'chapter\.txt'"):
        write_share(tmp_path / "thesis", 0, 2)
