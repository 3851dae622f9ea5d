"""Artifacts in a store: the bytes of those on a disk, found by their names, and whole or absent."""

import pickle
import threading
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
from test_store import ITEMS, MANIFEST, make, redone_alone, snapshot

from ppt import places
from ppt.places import place
from ppt.shard import Shard, shard_plan
from ppt.store import Artifact, ArtifactError, StaleArtifact, begin

FOLDER = "memory://stored/run/masks"


@pytest.fixture
def folder():
    found = place(FOLDER)
    place("memory://stored").remove_all()
    yield found
    place("memory://stored").remove_all()


@pytest.fixture
def made(folder):
    make(folder)
    return folder


@pytest.fixture
def written(monkeypatch):
    """The names of the objects that are put or removed, in order."""
    names, kind = [], type(fsspec.filesystem("memory"))
    for method in ("pipe_file", "rm_file"):
        whole = getattr(kind, method)

        def noted(self, path, *arguments, whole=whole, **options):
            names.append(str(path).removeprefix(f"{FOLDER}/"))
            return whole(self, path, *arguments, **options)

        monkeypatch.setattr(kind, method, noted)
    return names


@pytest.fixture
def nothing_is_listed(monkeypatch):
    def refuse(self, path, **options):
        raise AssertionError(f"{path} was listed")

    for method in ("ls", "find", "walk", "glob"):
        monkeypatch.setattr(type(fsspec.filesystem("memory")), method, refuse)


def contents() -> dict[str, bytes]:
    store = fsspec.filesystem("memory")
    return {name.removeprefix("/stored/run/masks/"): store.cat(name) for name in store.find("/stored/run")}


def test_the_bytes_are_those_of_an_artifact_on_a_disk(made, tmp_path):
    make(tmp_path / "masks")
    assert contents() == snapshot(tmp_path / "masks")
    artifact = Artifact.open(made)
    assert artifact.fingerprint == Artifact.open(tmp_path / "masks").fingerprint
    assert [row["id"] for row in artifact.rows()] == ["a", "b"]
    assert artifact.verify() == []


def test_the_marker_comes_after_its_shard_and_the_index_last(folder, written):
    make(folder)
    for key in ("00000", "00001"):
        assert written.index(f"shards/{key}.jsonl") < written.index(f"shards/{key}.done.json")
    assert written[-1] == "index.json"


def test_a_second_run_writes_nothing_and_lists_nothing(made, written, nothing_is_listed):
    assert make(made) == []
    assert written == []


@pytest.mark.parametrize("kept", range(9))
def test_a_run_that_was_killed_goes_on_with_what_it_finds_by_name(folder, written, monkeypatch, kept):
    class Killed(BaseException):
        pass

    kind = type(fsspec.filesystem("memory"))
    whole, left = kind.pipe_file, [kept]

    def put(self, path, *arguments, **options):
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        whole(self, path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(kind, "pipe_file", put)
        with pytest.raises(Killed):
            make(folder)
    with pytest.raises(ArtifactError, match="no complete artifact"):
        Artifact.open(folder)
    marked = [name for name in ("00000", "00001") if f"shards/{name}.done.json" in contents()]
    assert make(folder) == [key for key in ("00000", "00001") if key not in marked]
    found = contents()
    make(folder, fresh=True)
    assert found == contents()


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: bytes([data[0] ^ 1]) + data[1:], None]
)
@redone_alone
def test_damage_is_seen_and_only_that_shard_redone(made, name, redone, damage):
    whole = contents()
    if damage:
        (made / name).write_bytes(damage(whole[name]))
    else:
        (made / name).unlink()
    assert make(made) == redone
    assert contents() == whole


def test_reading_damage_names_the_object_and_the_remedy(made):
    (made / "shards/00000.jsonl").write_bytes(b"short")
    artifact = Artifact.open(made)
    assert artifact.verify() == [made / "shards/00000.jsonl"]
    with pytest.raises(ArtifactError, match=r"memory://.*/00000\.jsonl: damaged .* run its stage again"):
        list(artifact.rows())
    (made / "shards/00000.jsonl").unlink()
    with pytest.raises(ArtifactError, match=r"memory://.*/00000\.jsonl: damaged"):
        list(artifact.rows())


def test_another_recipe_stops_and_starting_over_leaves_nothing_of_it(made):
    whole = contents()
    (made / "labels.jsonl").write_bytes(b"of the old recipe")
    (made / "preview.png").write_bytes(b"of the old recipe")
    beside = made.parent / "mine.txt"
    beside.write_bytes(b"mine")
    other = replace(MANIFEST, seed=1)
    with pytest.raises(StaleArtifact, match="seed: 0 -> 1"):
        make(made, other)
    assert make(made, other, fresh=True) == ["00000", "00001"]
    assert beside.read_bytes() == b"mine"
    beside.unlink()
    assert contents().keys() == whole.keys()
    assert Artifact.open(made).manifest == other


def test_another_plan_removes_what_the_index_names_and_lists_nothing(made, nothing_is_listed):
    assert make(made, size=1) == ["00000", "00001", "00002"]
    assert make(made, size=2) == ["00000", "00001"]
    artifact = Artifact.open(made)
    assert artifact.keys == ("00000", "00001")
    assert not (made / "shards/00002.done.json").is_file()
    assert not (made / "shards/00002.jsonl").is_file()


def test_other_inputs_redo_what_they_touch_and_leave_nothing_of_what_went(folder):
    def made_of(parts, inputs):
        plan, manifest = {key: [key] for key in parts}, replace(MANIFEST, inputs={"records": inputs})
        with begin(folder, manifest, plan, parts=parts) as writer:
            for shard in writer.missing:
                shard.write([{"id": shard.key, "of": parts[shard.key]}])
            return [shard.key for shard in writer.missing], [*writer.finish().rows()]

    made_of({"00000": "a", "00001": "b", "00002": "c"}, "before")
    (folder / "labels.jsonl").write_bytes(b"of all before")
    made, rows = made_of({"00000": "a", "00002": "d"}, "now")
    assert made == ["00002"]
    assert rows == [{"id": "00000", "of": "a"}, {"id": "00002", "of": "d"}]
    assert not [name for name in contents() if "00001" in name or "labels" in name]


def test_a_longer_plan_keeps_what_it_shares_with_the_shorter(folder):
    with begin(folder, MANIFEST, {"00000": ITEMS[:2]}) as writer:
        writer.missing[0].write([{"id": "a"}])
        writer.finish()
    writer = begin(folder, MANIFEST, shard_plan(ITEMS, 2))
    assert [shard.key for shard in writer.missing] == ["00001"]
    assert not (folder / "index.json").exists()
    writer.missing[0].write([{"id": "c"}])
    assert [row["id"] for row in writer.finish().rows()] == ["a", "c"]


def test_two_runs_at_once_write_the_same_bytes(folder, tmp_path):
    make(tmp_path / "masks")
    meeting, lost = threading.Barrier(2, timeout=20), []

    def run():
        try:
            meeting.wait()
            for _ in range(5):
                make(folder)
        except BaseException as error:
            lost.append(error)

    for _ in range(5):
        folder.remove_all()
        racing = [threading.Thread(target=run) for _ in range(2)]
        for thread in racing:
            thread.start()
        for thread in racing:
            thread.join()
        assert lost == []
        assert contents() == snapshot(tmp_path / "masks")


def test_a_run_that_begins_while_another_ends_removes_nothing_of_it(folder):
    late = begin(folder, MANIFEST, shard_plan(ITEMS, 2))  # sees that all is missing
    make(folder)
    whole = contents()
    begin(folder, MANIFEST, shard_plan(ITEMS, 2))
    assert contents() == whole
    for shard in late.missing:
        assert shard.is_whole()
    late.finish()
    assert contents() == whole


def test_of_two_recipes_at_once_none_is_mixed(folder):
    first, other = begin(folder, MANIFEST, shard_plan(ITEMS, 2)), replace(MANIFEST, seed=1)
    first.missing[0].write([{"id": "a"}])
    (folder / "manifest.json").unlink()  # as if both had begun before either was heard of
    make(folder, other)
    with pytest.raises(ArtifactError, match="cannot finish, 2 shards lack"):
        first.finish()
    assert Artifact.open(folder).manifest == other


def test_a_store_that_is_gone_stops_the_run_and_it_goes_on_later(folder, monkeypatch):
    monkeypatch.setattr(places, "WAIT", 0)
    kind = type(fsspec.filesystem("memory"))

    def gone(self, path, *arguments, **options):
        raise OSError("no route")

    with begin(folder, MANIFEST, shard_plan(ITEMS, 2)) as writer, monkeypatch.context() as patch:
        patch.setattr(kind, "pipe_file", gone)
        with pytest.raises(places.RemoteError, match=r"shards/00000\.jsonl: writing failed 5 times"):
            writer.missing[0].write([{"id": "a"}])
    assert make(folder) == ["00000", "00001"]


def test_a_shard_can_be_written_by_another_process_that_knows_its_url(folder):
    writer = begin(folder, MANIFEST, shard_plan(ITEMS, 2))
    shard = pickle.loads(pickle.dumps(writer.missing[0]))
    assert isinstance(shard, Shard)
    assert str(shard.folder) == FOLDER
    assert not isinstance(shard.folder, Path)
