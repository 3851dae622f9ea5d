import errno
import pickle
import threading
from pathlib import Path

import fsspec
import pytest

from ppt import places
from ppt.config import ConfigError, load_config
from ppt.places import PlaceError, Remote, RemoteError, above_all, each, from_above, on_disk, place


class Flaky:
    """A store that fails so many times, with one error, before it does what the one in memory does."""

    def __init__(self, error: BaseException, times: int) -> None:
        self._error, self._left, self._store = error, times, fsspec.filesystem("memory")
        self.calls = 0

    def __getattr__(self, name):
        def call(*arguments, **options):
            self.calls += 1
            if self._left > 0:
                self._left -= 1
                raise self._error
            return getattr(self._store, name)(*arguments, **options)

        return call


@pytest.fixture
def folder():
    """A folder in memory, empty."""
    found = place("memory://places/run")
    found.remove_all()
    yield found
    found.remove_all()


@pytest.fixture
def flaky(monkeypatch):
    """Makes the store fail; nobody waits."""
    monkeypatch.setattr(places.time, "sleep", waits.append)
    waits.clear()

    def make(error, times):
        store = Flaky(error, times)
        monkeypatch.setattr(places, "_store", lambda protocol: store)
        return store

    return make


waits: list[float] = []


# --- names


@pytest.mark.parametrize("text", ["a/b", "/a/b", "file:///a/b", "local:///a/b", ".", "../a", "a:b", "~/a"])
def test_what_is_on_a_disk_is_a_path(text):
    assert place(text) == Path(text.removeprefix("file://").removeprefix("local://"))


def test_what_is_in_a_store_has_paths_names():
    found = place("memory://bucket/run/") / "shards" / "00000.done.json"
    assert str(found) == "memory://bucket/run/shards/00000.done.json"
    assert (found.name, found.stem, found.suffix) == ("00000.done.json", "00000.done", ".json")
    assert found.parent == place("memory://bucket/run/shards") == found.parent.resolve().absolute()
    assert found.with_name("a.json") == found.parent / "a.json"
    assert place("memory://bucket").parent == place("memory://bucket")
    assert found.parent / "./a//b.jpg" == found.parent / "a" / "b.jpg"
    assert pickle.loads(pickle.dumps(found)) == found


@pytest.mark.parametrize("below", ["../other", "a/../../other", "/other", "/"])
def test_no_name_leads_out_of_a_folder(below):
    with pytest.raises(ValueError, match="leads out of it"):
        place("memory://bucket/run") / below


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nothing://bucket/run", "no protocol of that name is known"),
        ("memory://", "expected memory://bucket/folder"),
        ("memory://bucket//run", "without empty parts"),
        ("memory://bucket/../other", r"without '\.\.'"),
    ],
)
def test_a_url_that_names_no_place_is_refused(text, told):
    with pytest.raises(PlaceError, match=told):
        place(text)


def test_a_protocol_whose_package_is_missing_says_how_to_get_it(monkeypatch):
    def absent(protocol):
        raise ImportError("Please install gcsfs")

    monkeypatch.setattr(fsspec, "get_filesystem_class", absent)
    with pytest.raises(PlaceError, match=r"gs://b/run: its package .*: pip install gcsfs"):
        place("gs://b/run")
    with pytest.raises(PlaceError, match="Please install gcsfs"):
        place("other://b/run")


def test_what_has_to_be_on_a_disk_is_refused_in_a_store():
    assert on_disk(Path("a"), "--to") == Path("a")
    with pytest.raises(PlaceError, match="--to: expected a place on a disk, got memory://b/run"):
        on_disk(place("memory://b/run"), "--to")


def test_the_folder_above_all_images():
    one, two = place("memory://b/data/one"), place("memory://b/data/two")
    assert above_all([one, two]) == place("memory://b/data") == above_all([one, place("memory://b/data")])
    assert above_all([place("memory://b/da"), one]) == place("memory://b")
    assert above_all([Path("/a/b"), Path("/a/c")]) == Path("/a")
    assert (from_above(one, place("memory://b")), from_above(one, one)) == ("data/one", "")
    assert (from_above(Path("/a/b"), Path("/a")), from_above(Path("/a"), Path("/a"))) == ("b", "")
    for other in (Path("/a"), place("memory://other/data")):
        with pytest.raises(PlaceError, match="in one bucket, or on one disk"):
            above_all([one, other])


# --- objects


def test_what_is_put_is_there_and_found_by_its_name(folder):
    path = folder / "a" / "b.json"
    assert not any((path.exists(), path.is_file(), folder.exists(), folder.is_dir(), [*folder.iterdir()]))
    path.write_bytes(b"one")
    path.write_bytes(b"three")
    (folder / "a" / "empty").write_bytes(b"")
    assert (path.read_bytes(), path.size(), (folder / "a" / "empty").read_bytes()) == (b"three", 5, b"")
    assert path.is_file()
    assert folder.is_dir()
    assert not folder.is_file()
    assert [*folder.glob("*/b*.json")] == [path]
    assert [one.name for one in (folder / "a").iterdir()] == ["b.json", "empty"]
    path.unlink()
    path.unlink(missing_ok=True)
    assert not path.exists()
    folder.remove_all()
    folder.remove_all()
    assert not folder.exists()


@pytest.mark.parametrize("ask", [Remote.read_bytes, Remote.size, Remote.unlink])
def test_what_is_not_there_is_told_as_on_a_disk(folder, ask):
    with pytest.raises(FileNotFoundError, match=r"does not exist: 'memory://places/run/a'") as caught:
        ask(folder / "a")
    assert caught.value.errno == errno.ENOENT


def test_settings_name_places_by_url_where_they_may():
    found = load_config(None, ["records.pairs=memory://b/pairs.jsonl", "records.truth=file:///t.jsonl"])
    assert found.records.pairs == place("memory://b/pairs.jsonl")
    assert found.records.truth == Path("/t.jsonl")
    assert "pairs" not in found.sections("records")["records"]
    for key in ("sam.weights", "clip.weights", "segmenter.dino_weights"):
        with pytest.raises(ConfigError, match=r"weights: expected a path on a disk.*got memory://b/a\.pt"):
            load_config(None, [f"{key}=memory://b/a.pt"])
    with pytest.raises(ConfigError, match="pairs: nothing://b: no protocol of that name"):
        load_config(None, ["records.pairs=nothing://b"])


# --- faults


@pytest.mark.parametrize("error", [OSError("reset"), TimeoutError("late"), RuntimeError("of the network")])
def test_a_fault_is_tried_again_after_longer_and_longer_waits(folder, flaky, error):
    (folder / "a").write_bytes(b"one")
    store = flaky(error, 3)
    assert (folder / "a").read_bytes() == b"one"
    assert store.calls == 3 + 2
    assert waits == [0.25, 0.5, 1.0]


def test_a_fault_that_stays_ends_in_an_error_that_names_the_url(folder, flaky):
    store = flaky(OSError("reset by peer"), 99)
    for ask in (Remote.read_bytes, Remote.exists, lambda one: one.write_bytes(b""), Remote.unlink):
        store.calls = 0
        with pytest.raises(RemoteError, match=r"memory://places/run/a: .* failed 5 times \(OSError: reset"):
            ask(folder / "a")
        assert store.calls == places.TRIES


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (FileNotFoundError(), FileNotFoundError),
        (PermissionError("no"), PermissionError),
        (NotImplementedError(), RemoteError),
    ],
)
def test_what_the_store_answers_is_not_asked_again(folder, flaky, error, expected):
    store = flaky(error, 99)
    with pytest.raises(expected, match="memory://places/run/a"):
        (folder / "a").read_bytes()
    assert (store.calls, waits) == (1, [])


def test_a_body_that_is_too_short_is_read_again(folder, monkeypatch):
    (folder / "a").write_bytes(b"whole")
    store = fsspec.filesystem("memory")
    bodies = [b"", b"who", b"whole"]
    monkeypatch.setattr(places, "WAIT", 0)
    monkeypatch.setattr(type(store), "cat_file", lambda *_, **__: bodies.pop(0))
    assert (folder / "a").read_bytes() == b"whole"
    bodies += [b"who"] * places.TRIES
    with pytest.raises(RemoteError, match=r"3 bytes came, of 5"):
        (folder / "a").read_bytes()


def test_an_object_that_is_not_all_there_is_put_again(folder, monkeypatch):
    store = fsspec.filesystem("memory")
    whole, asked = type(store).pipe_file, []

    def lossy(self, path, data, **options):
        asked.append(path)
        whole(self, path, data[: 2 * len(asked)], **options)

    monkeypatch.setattr(places, "WAIT", 0)
    monkeypatch.setattr(type(store), "pipe_file", lossy)
    (folder / "a").write_bytes(b"whole")
    assert ((folder / "a").read_bytes(), len(asked)) == (b"whole", 3)


def test_several_are_asked_at_once_and_answer_in_order(folder):
    meeting = threading.Barrier(4, timeout=10)

    def ask(number):
        meeting.wait()
        return -number

    assert [*each(ask, range(8), folder)] == [-number for number in range(8)]
    assert [*each(lambda number: -number, iter([1, 2]), Path("a"))] == [-1, -2]
