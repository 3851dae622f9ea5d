import errno
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppt.manifest import Manifest
from ppt.shard import Failure, shard_plan
from ppt.store import Artifact, ArtifactError, BusyArtifact, StaleArtifact, begin

MANIFEST = Manifest("masks", 1, {"masks": {"choice": "agreement"}}, {"points": "aa"}, {"sam": "bb"}, 0)
ITEMS = ("a", "b", "c")
FAILURE = Failure("masks", "c", "ValueError", "no mask\u2028at all")


def make(folder: Path, manifest: Manifest = MANIFEST, size: int = 2, fresh: bool = False) -> list[str]:
    """A stage in small: rows for all but "c", tensors for the first shard. Returns the shards it made."""
    with begin(folder, manifest, shard_plan(ITEMS, size), fresh) as writer:
        for shard in writer.missing:
            rows = [{"id": item, "text": "é\u2028"} for item in shard.items if item != "c"]
            tensors = {"map": np.arange(4, dtype=np.float16)} if "a" in shard.items else None
            shard.write(rows, tensors, [FAILURE] if "c" in shard.items else [])
        if not writer.complete:
            writer.finish()
        return [shard.key for shard in writer.missing]


def snapshot(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(files)}


def make_in_process(folder: Path, failpoint: str = "", fresh: bool = False) -> int:
    code = (
        f"from pathlib import Path; import test_store; test_store.make(Path({str(folder)!r}), fresh={fresh})"
    )
    roots = os.pathsep.join(str(root) for root in (Path(__file__).parents[2], Path(__file__).parent))
    environment = {**os.environ, "PYTHONPATH": roots, "PPT_FAILPOINT": failpoint}
    return subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode


@pytest.fixture
def made(tmp_path: Path) -> Path:
    make(tmp_path / "masks")
    return tmp_path / "masks"


def test_the_layout_is_the_one_documented(made: Path):
    assert set(snapshot(made)) == {
        "manifest.json",
        "config.yaml",
        "index.json",
        "failures.jsonl",
        "shards/00000.jsonl",
        "shards/00000.safetensors",
        "shards/00000.done.json",
        "shards/00001.jsonl",
        "shards/00001.done.json",
    }
    assert (made / "config.yaml").read_text() == "masks:\n  choice: agreement\n"


def test_what_was_written_is_read(made: Path):
    artifact = Artifact.open(made)
    assert artifact.manifest == MANIFEST
    assert artifact.keys == ("00000", "00001")
    assert artifact.items("00001") == ("c",)
    assert [row["id"] for row in artifact.rows()] == ["a", "b"]
    assert next(artifact.rows("00000"))["text"] == "é\u2028"
    np.testing.assert_array_equal(artifact.tensors("00000")["map"], np.arange(4, dtype=np.float16))
    assert artifact.failures() == [FAILURE]
    assert (artifact.index["items"], artifact.index["failed"]) == (3, 1)
    assert artifact.verify() == []
    with pytest.raises(ArtifactError, match=r"00001 has no 00001\.safetensors, only 00001\.jsonl"):
        artifact.tensors("00001")


def test_a_second_run_does_nothing(made: Path):
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*") if path.is_file()}
    assert make(made) == []
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*") if path.is_file()} == before


def test_the_fingerprint_is_of_the_content(made: Path, tmp_path: Path):
    make(tmp_path / "other", replace(MANIFEST, seed=1))
    assert Artifact.open(tmp_path / "other").fingerprint == Artifact.open(made).fingerprint
    make(tmp_path / "cut", size=1)
    assert Artifact.open(tmp_path / "cut").fingerprint != Artifact.open(made).fingerprint


# --- crashes: every durable step, then the same command gives the same bytes

WRITES = 9  # files of an artifact


@pytest.mark.parametrize("step", ["after_tmp", "after_fsync", "after_rename"])
@pytest.mark.parametrize("count", range(1, WRITES + 1))
def test_a_crash_at_any_durable_step_costs_nothing(made: Path, tmp_path: Path, step: str, count: int):
    folder = tmp_path / "crashed"
    assert make_in_process(folder, f"{step}:{count}") == 137
    last_step = (step, count) == ("after_rename", WRITES)
    if not last_step:
        with pytest.raises(ArtifactError, match="no complete artifact"):
            Artifact.open(folder)
    make(folder)
    assert snapshot(folder) == snapshot(made)


def test_no_durable_step_was_left_out(tmp_path: Path):
    assert make_in_process(tmp_path / "masks", f"after_rename:{WRITES + 1}") == 0


def test_a_crash_while_starting_over_still_asks_for_fresh(made: Path, tmp_path: Path):
    folder = tmp_path / "old"
    make(folder, replace(MANIFEST, seed=1))
    assert make_in_process(folder, "while_clearing:1", fresh=True) == 137
    with pytest.raises(StaleArtifact, match="seed: 1 -> 0"):
        make(folder)
    make(folder, fresh=True)
    assert snapshot(folder) == snapshot(made)


def test_a_crash_while_sweeping_leaves_no_index_over_damage(made: Path):
    whole = snapshot(made)
    (made / "shards/00000.jsonl").write_bytes(b"")
    assert make_in_process(made, "while_sweeping:1") == 137
    with pytest.raises(ArtifactError, match="no complete artifact"):
        Artifact.open(made)
    assert make(made) == ["00000"]
    assert snapshot(made) == whole


# --- damage

redone_alone = pytest.mark.parametrize(
    ("name", "redone"),
    [
        ("shards/00000.jsonl", ["00000"]),
        ("shards/00000.safetensors", ["00000"]),
        ("shards/00001.done.json", ["00001"]),
        ("failures.jsonl", []),
        ("index.json", []),
        ("config.yaml", []),
    ],
)
"""Each file of an artifact, and the shards that are made again where it is damaged."""

damages = {
    "truncated": lambda data: data[:-1],
    "zero-filled": lambda data: bytes(len(data)),
    "emptied": lambda data: b"",
    "flipped": lambda data: bytes([data[0] ^ 1]) + data[1:],
    "removed": None,
}


@pytest.mark.parametrize("damage", damages)
@redone_alone
def test_damage_is_seen_and_only_that_shard_redone(made: Path, name: str, redone: list[str], damage: str):
    whole, change = snapshot(made), damages[damage]
    if change:
        (made / name).write_bytes(change(whole[name]))
    else:
        (made / name).unlink()
    assert make(made) == redone
    assert snapshot(made) == whole


def test_reading_damage_names_the_file_and_the_remedy(made: Path):
    path = made / "shards/00000.jsonl"
    path.write_bytes(b"x" * path.stat().st_size)
    artifact = Artifact.open(made)
    assert artifact.verify() == [path]
    with pytest.raises(ArtifactError, match=r"00000\.jsonl: damaged .* run its stage again"):
        list(artifact.rows())
    path.write_bytes(b"short")
    with pytest.raises(ArtifactError, match=r"00000\.jsonl: damaged \(has 5 bytes instead of \d+\)"):
        Artifact.open(made)


# --- staleness


def test_another_recipe_stops_and_tells_the_difference(made: Path):
    whole = snapshot(made)
    changed = replace(MANIFEST, config={"masks": {"choice": "predicted_iou"}}, seed=4)
    with pytest.raises(
        StaleArtifact, match=r"(?s)--fresh.*masks\.choice: 'agreement' -> 'predicted_iou'.*seed: 0 -> 4"
    ):
        make(made, changed)
    assert snapshot(made) == whole
    assert make(made, changed, fresh=True) == ["00000", "00001"]
    assert Artifact.open(made).manifest == changed


@pytest.mark.parametrize("data", [b"", b"\0\0\0", b'{"stage": "masks"}'])
def test_a_damaged_manifest_is_stale_and_unreadable(made: Path, data: bytes):
    (made / "manifest.json").write_bytes(data)
    with pytest.raises(StaleArtifact, match=r"manifest\.json is damaged.*--fresh"):
        make(made)
    with pytest.raises(ArtifactError, match="no complete artifact"):
        Artifact.open(made)
    make(made, fresh=True)
    assert Artifact.open(made).verify() == []


def test_an_index_of_another_run_is_refused(made: Path, tmp_path: Path):
    make(tmp_path / "other", replace(MANIFEST, seed=1))
    (made / "index.json").write_bytes((tmp_path / "other/index.json").read_bytes())
    with pytest.raises(ArtifactError, match="different runs"):
        Artifact.open(made)


def test_a_shard_of_another_recipe_does_not_count(made: Path, tmp_path: Path):
    whole = snapshot(made)
    make(tmp_path / "other", replace(MANIFEST, seed=1))
    (made / "shards/00001.done.json").write_bytes((tmp_path / "other/shards/00001.done.json").read_bytes())
    assert make(made) == ["00001"]
    assert snapshot(made) == whole


def test_another_plan_redoes_the_shards_that_differ(made: Path, tmp_path: Path):
    make(tmp_path / "cut", size=1)
    assert make(made, size=1) == ["00000", "00001", "00002"]
    assert snapshot(made) == snapshot(tmp_path / "cut")
    make(made, size=2)
    assert "shards/00002.done.json" not in snapshot(made)


# --- neighbours


def test_stale_temporary_files_are_swept(made: Path):
    whole = snapshot(made)
    for name in ("index.json.tmp", "shards/00000.jsonl.tmp"):
        (made / name).write_bytes(b"half")
    assert make(made) == []
    assert snapshot(made) == whole


def test_two_runs_on_one_output_are_refused(tmp_path: Path):
    with begin(tmp_path / "masks", MANIFEST, shard_plan(ITEMS, 2)):
        with pytest.raises(BusyArtifact, match="masks: another run is writing here"):
            make(tmp_path / "masks")
        assert make_in_process(tmp_path / "masks") == 1
    assert make(tmp_path / "masks") == ["00000", "00001"]


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path):
    (tmp_path / "thesis.tmp").write_text("precious")
    for fresh in (False, True):
        with pytest.raises(ArtifactError, match=r"holds 'thesis\.tmp'"):
            make(tmp_path, fresh=fresh)
    assert (tmp_path / "thesis.tmp").read_text() == "precious"
    with pytest.raises(ArtifactError, match=r"thesis\.tmp: is a file"):
        make(tmp_path / "thesis.tmp")


def test_an_unfinished_artifact_cannot_be_closed(tmp_path: Path):
    with begin(tmp_path / "masks", MANIFEST, shard_plan(ITEMS, 2)) as writer:
        writer.missing[0].write(rows=[])
        with pytest.raises(ArtifactError, match="1 shards lack: 00001"):
            writer.finish()


def test_a_full_disk_stops_cleanly_and_resumes(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(handle: int) -> None:
        if "00001" in os.readlink(f"/proc/self/fd/{handle}"):
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("ppt.durable.os.fsync", full)
        with pytest.raises(OSError, match="No space left"):
            make(tmp_path / "full")
    assert not list((tmp_path / "full").rglob("*.tmp"))
    assert make(tmp_path / "full") == ["00001"]
    assert snapshot(tmp_path / "full") == snapshot(made)


def test_an_empty_plan_is_an_empty_artifact(tmp_path: Path):
    with begin(tmp_path / "none", MANIFEST, {}) as writer:
        artifact = writer.finish()
    assert (artifact.keys, list(artifact.rows()), artifact.failures()) == ((), [], [])


@given(items=st.lists(st.text(), max_size=30), size=st.integers(1, 7))
def test_a_plan_cuts_in_order_and_loses_nothing(items: list[str], size: int):
    plan = shard_plan(items, size)
    assert [item for shard in plan.values() for item in shard] == items
    assert all(0 < len(shard) <= size for shard in plan.values())
    assert list(plan) == [f"{number:05d}" for number in range(len(plan))]


def test_fresh_removes_what_a_stage_joined_from_its_shards(tmp_path):
    """An interrupted --fresh must not leave joined rows of the old run beside no index."""
    folder = tmp_path / "labels"
    manifest = Manifest("labels", 1, {}, {}, {}, 0)
    with begin(folder, manifest, {"00000": ["a"]}) as writer:
        writer.missing[0].write([{"id": "a"}])
        writer.finish()
    (folder / "labels.jsonl").write_text("{}\n")
    with begin(folder, manifest, {"00000": ["a"]}, fresh=True):
        assert not (folder / "labels.jsonl").exists()
        assert not (folder / "index.json").exists()
