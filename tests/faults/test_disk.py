"""Disks that are full, read-only, gone or damaged, and outputs made of something else: one line names the
file and says what to do, nothing that was good is lost, and the same command goes on.
"""

import errno
import json
import os
import random
import resource
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures.processes import snapshot
from PIL import Image

from ppt.backbones.kept import KeptEmbeddings
from ppt.durable import StorageError, json_object, write_atomic
from ppt.shard import Shard


@pytest.fixture
def undisturbed(ppt, whole, tmp_path):
    """What the command leaves when nothing happens."""
    assert ppt(*whole, tmp_path / "undisturbed" / "run").code == 0
    return snapshot(tmp_path / "undisturbed" / "run")


@pytest.fixture
def output(tmp_path):
    return tmp_path / "cut" / "run"


def assert_one_line(ended, *parts):
    """One line of an error, without a traceback, that holds the parts."""
    *_, last = [line for line in ended.printed.splitlines() if not line.startswith("  ")]
    assert last.startswith("ppt: ")
    assert "Traceback" not in ended.printed
    for part in parts:
        assert part in last


def assert_nothing_lost(before, after):
    """Every file that was there still has its bytes, and none is half there."""
    assert {name: after.get(name) for name in before} == before
    assert not [name for name in after if name.endswith(".tmp")]


# --- no room, no right, no folder

TROUBLES = {
    errno.ENOSPC: "make room on the disk",
    errno.EDQUOT: "make room within the quota",
    errno.EROFS: "make the folder writable",
    errno.EACCES: "make the folder writable",
    errno.EIO: "look after the disk",
}


@pytest.mark.parametrize("number", TROUBLES)
def test_a_write_that_fails_stops_with_the_file_and_the_remedy_and_resumes(
    ppt, whole, undisturbed, output, monkeypatch, number
):
    left, seen = [random.Random(number).randrange(5, 40)], []

    def failing(handle):
        left[0] -= 1
        if left[0] <= 0:
            if not seen:
                seen.append(snapshot(output))
            raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr("ppt.durable.os.fsync", failing)
        cut = ppt(*whole, output)
    assert cut.code == 1
    assert_one_line(
        cut, f"{output}/", f"could not be written ({os.strerror(number)}); {TROUBLES[number]}, then"
    )
    before = {name: sha256 for name, sha256 in seen[0].items() if not name.endswith(".tmp")}
    assert_nothing_lost(before, snapshot(output))
    assert ppt(*whole, output).code == 0
    assert snapshot(output) == undisturbed


def test_a_file_that_may_grow_no_further_keeps_what_was_there(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, b"good")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    try:
        with pytest.raises(
            StorageError, match=r"file: could not be written \(File too large\); allow larger"
        ):
            write_atomic(path, bytes(1 << 17))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_bytes() == b"good"
    assert list(tmp_path.iterdir()) == [path]


@contextmanager
def small_disk(folder, size):
    """A disk of its own at `folder`. The test is skipped where none may be mounted."""
    folder.mkdir(parents=True)
    made = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    if shutil.which("mount") is None or subprocess.run(made, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(folder, options):
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def test_a_disk_that_fills_up_and_is_given_room(ppt, whole, undisturbed, tmp_path):
    with small_disk(tmp_path / "disk", "260k") as disk:
        cut = ppt(*whole, disk / "run")
        assert cut.code == 1
        assert_one_line(cut, f"{disk}/run/", "No space left on device); make room on the disk")
        remount(disk, "size=20m")
        assert ppt(*whole, disk / "run").code == 0
        assert snapshot(disk / "run") == undisturbed


def test_a_read_only_disk_is_refused_before_any_work(ppt, whole, tmp_path, monkeypatch):
    monkeypatch.setattr("ppt.records.images.digest", lambda *_: pytest.fail("an image was read"))
    with small_disk(tmp_path / "disk", "1m") as disk:
        remount(disk, "ro")
        refused = ppt(*whole, disk / "run")
    assert refused.code == 2
    assert_one_line(
        refused, "run: cannot be written to", "make it writable, or choose another folder with --output"
    )


def test_a_folder_of_another_user_is_refused_before_any_work(ppt, whole, output, monkeypatch):
    monkeypatch.setattr("ppt.records.images.digest", lambda *_: pytest.fail("an image was read"))
    monkeypatch.setattr("ppt.store.writing.os.access", lambda _, mode: not mode & os.W_OK)
    refused = ppt(*whole, output)
    assert refused.code == 2
    assert_one_line(refused, f"{output}: cannot be written to", "is read-only, or another user's")
    assert not output.exists()


def test_a_folder_that_cannot_be_made_is_refused(ppt, whole, output, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("ppt.store.writing.Path.mkdir", refuse)
    refused = ppt(*whole, output)
    assert refused.code == 2
    assert_one_line(refused, "records: cannot be written to (Permission denied)")


def test_a_folder_that_vanishes_stops_the_run_which_never_says_that_it_was_saved(
    ppt, whole, undisturbed, output, monkeypatch
):
    write = Shard.write

    def vanishing(shard, *what):
        if shard.folder.name == "masks":
            shutil.rmtree(output)
        write(shard, *what)

    with monkeypatch.context() as patch:
        patch.setattr(Shard, "write", vanishing)
        cut = ppt(*whole, output)
    assert cut.code == 1
    assert_one_line(
        cut, f"{output}/masks/shards/", "could not be written", "bring the folder back, which has gone"
    )
    assert "masks:" not in cut.printed
    assert not output.exists()
    assert ppt(*whole, output).code == 0
    assert snapshot(output) == undisturbed


def test_every_file_is_written_beside_its_place_so_that_no_rename_crosses_disks(
    ppt, whole, output, monkeypatch
):
    moves, replace = [], os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (moves.append((Path(a), Path(b))), replace(a, b)))
    assert ppt(*whole, output).code == 0
    assert all(one.parent == other.parent for one, other in moves)
    assert {str(path.relative_to(output)) for _, path in moves} - {"times.jsonl"} == snapshot(output).keys()


def test_embeddings_that_cannot_be_kept_are_said_once_and_made_each_time(tmp_path, monkeypatch, capsys):
    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    kept = KeptEmbeddings(tmp_path / "kept", 10_000)
    monkeypatch.setattr("ppt.durable.os.fsync", full)
    for key in ("a", "a", "b"):
        assert torch.equal(kept(key, lambda: torch.ones(3)), torch.ones(3))
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("embeddings: no more are kept, which costs only time: ")
    assert "a.safetensors: could not be written (No space left on device); make room" in said
    assert list((tmp_path / "kept").iterdir()) == []


# --- damage


def damaged(data, how):
    match how:
        case "truncated":
            return data[: len(data) // 2]
        case "zero-filled":
            return bytes(len(data))
        case "flipped":
            return data[:-2] + bytes([data[-2] ^ 4]) + data[-1:]
    return b""


@pytest.mark.parametrize("how", ["truncated", "zero-filled", "flipped", "emptied"])
def test_damage_in_every_stage_at_once_is_found_and_redone(ppt, whole, undisturbed, output, how):
    assert ppt(*whole, output).code == 0
    kinds = {"flipped": [".jsonl", ".safetensors"]}.get(
        how, [".jsonl", ".safetensors", ".done.json", "index.json"]
    )
    rng, hit = random.Random(how), set()
    for stage in sorted(path for path in output.iterdir() if (path / "shards").is_dir()):
        for kind in kinds:
            there = [path for path in sorted(stage.rglob(f"*{kind}")) if path.stat().st_size > 2]
            for path in there and [rng.choice(there)]:
                path.write_bytes(damaged(path.read_bytes(), how))
                hit.add(stage.name)
    assert len(hit) == 8
    assert ppt(*whole, output).code == 0
    assert snapshot(output) == undisturbed


def test_a_disk_that_gives_an_error_on_reading_stops_with_the_file(
    ppt, whole, undisturbed, output, monkeypatch
):
    assert ppt(*whole, output).code == 0
    read = Path.read_bytes

    def failing(path):
        if path.parts[-3:] == ("masks", "shards", "00000.jsonl"):
            raise OSError(errno.EIO, "Input/output error")
        return read(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", failing)
        cut = ppt(*whole, output)
    assert cut.code == 1
    assert_one_line(
        cut, "masks/shards/00000.jsonl: could not be read (Input/output error); look after the disk"
    )
    assert ppt(*whole, output).code == 0
    assert snapshot(output) == undisturbed


def test_half_written_files_of_a_run_that_was_killed_are_swept(ppt, whole, undisturbed, output):
    assert ppt(*whole, output).code == 0
    for name in (
        "times.jsonl",
        "source.json",
        "masks/index.json",
        "labels/shards/00000.jsonl",
    ):
        (output / f"{name}.tmp").write_bytes(b"half")
    assert ppt(*whole, output).code == 0
    assert snapshot(output) == undisturbed


# --- made of something else


def test_a_second_run_on_the_output_is_refused_and_the_first_goes_on(
    ppt, whole, undisturbed, output, monkeypatch
):
    from pipelines import s3_masks

    made, second = s3_masks.shard_of_masks, []

    def meanwhile(context, shard):
        if not second:
            second.append(ppt("masks", "custom", *whole[2:], output))
        made(context, shard)

    with monkeypatch.context() as patch:
        patch.setattr(s3_masks, "shard_of_masks", meanwhile)
        first = ppt(*whole, output)
    assert [ended.code for ended in second] == [2]
    assert_one_line(second[0], "masks: another run is writing here; wait for it, or choose another folder")
    assert first.code == 0
    assert snapshot(output) == undisturbed


def test_another_version_of_the_code_or_config_is_refused_with_what_differs(ppt, whole, undisturbed, output):
    assert ppt(*whole, output).code == 0
    manifest = json_object(output / "masks" / "manifest.json")
    (output / "masks" / "manifest.json").write_text(json.dumps({**manifest, "code_version": "0.0.9"}) + "\n")
    refused = ppt(*whole, output)
    assert refused.code == 2
    assert "masks: made by another recipe; pass --fresh to start over, or choose another" in refused.printed
    assert "\n  code_version: '0.0.9' -> " in refused.printed
    refused = ppt("masks", "custom", *whole[2:], output, "--set", "masks.max_area=0.5")
    assert refused.code == 2
    assert "\n  masks.max_area: 0.9 -> 0.5\n" in refused.printed
    assert ppt(*whole, output, "--fresh").code == 0
    assert snapshot(output) == undisturbed


def test_images_that_change_or_vanish_after_the_records_are_reported_and_kept_out(
    ppt, whole, pictures, output
):
    assert ppt("records", "custom", *whole[2:], output).code == 0
    Image.fromarray(np.full((48, 64, 3), 7, np.uint8)).save(pictures / "b.png")
    (pictures / "c.png").unlink()
    made = ppt("relevance", "custom", *whole[2:], output)
    assert made.code == 3
    assert "relevance: 4 items, 3 skipped (changed 2, missing 1)" in made.printed
