"""Pairs and images in a store: the gate's rules, and no fault of the store is taken for a bad image."""

import numpy as np
import pytest
from fixtures.pictures import make_pictures, write_rows

from ppt import places
from ppt.config import load_config
from ppt.places import PlaceError, RemoteError, place
from ppt.records import images, sources
from ppt.records.images import ImageError, ImagePolicy
from ppt.records.pairs import PairsError

POLICY = ImagePolicy(10_000, "ignore", "white", follow_links=False)


@pytest.fixture
def folder(tmp_path):
    """(folder on a disk, one with the same files in memory)"""
    here, there = make_pictures(tmp_path / "pictures"), place("memory://records/data")
    there.remove_all()
    for path in here.iterdir():
        (there / path.name).write_bytes(path.read_bytes())
    yield here, there
    there.remove_all()


def test_an_image_is_the_same_wherever_it_lies(folder):
    one, other = (images.load(root, "copy.jpg", POLICY) for root in folder)
    np.testing.assert_array_equal(one.pixels, other.pixels)
    assert (one.sha256, one.format, one.flags) == (other.sha256, other.format, other.flags)
    assert images.digest(folder[1], "./copy.jpg", POLICY) == one.sha256
    names = ["a.png", "none.png", "../a.png"]
    assert images.sizes(folder[1], names) == {**images.sizes(folder[0], names), "../a.png": None}


@pytest.mark.parametrize(
    ("image", "error"),
    [
        ("none.png", "missing"),
        ("", "missing"),
        ("../data/a.png", "outside"),
        ("/a.png", "outside"),
        ("pairs.jsonl", "bad_image"),
        ("huge.png", "too_large"),
    ],
)
def test_what_is_no_image_to_read_is_told_by_a_code(folder, image, error, monkeypatch):
    monkeypatch.setattr(images, "_HEADER", 1000)
    (folder[1] / "huge.png").write_bytes(bytes(16 * POLICY.max_pixels + 1001))
    with pytest.raises(ImageError) as caught:
        images.load(folder[1], image, POLICY)
    assert caught.value.error == error


def test_an_image_that_changed_is_refused(folder):
    with pytest.raises(ImageError, match="changed: sha256"):
        images.load(folder[1], "a.png", POLICY, "0" * 64)


def test_a_store_that_fails_is_no_bad_image(folder, monkeypatch):
    class Gone:
        def __getattr__(self, name):
            raise OSError("no route")

    monkeypatch.setattr(places, "WAIT", 0)
    monkeypatch.setattr(places, "_store", lambda protocol: Gone())
    for ask in (images.load, images.digest):
        with pytest.raises(RemoteError, match=r"memory://records/data/a\.png: .* failed"):
            ask(folder[1], "a.png", POLICY)
    with pytest.raises(RemoteError):
        sources.read(load_config(None, ["records.pairs=memory://records/data/pairs.jsonl"]).records)


@pytest.mark.parametrize("image", ["s3://other/a.png", "memory://records/data/a.png", "file:///etc/passwd"])
def test_a_row_may_name_no_url(folder, image):
    rows = [{"image": image, "text": "a thing"}, {"image": "a.png", "text": "a thing"}]
    write_rows(folder[0] / "pairs.jsonl", rows)
    (folder[1] / "pairs.jsonl").write_bytes((folder[0] / "pairs.jsonl").read_bytes())
    for root in folder:
        found = sources.read(load_config(None, [f"records.pairs={root}/pairs.jsonl"]).records)
        assert [row.error for row in found.rows] == ["unsafe_path", ""]
        assert "not a URL" in found.rows[0].message
        assert found.images == root


def test_pairs_on_a_disk_may_be_about_images_in_a_store(folder):
    told = f"{{format: pairs, path: {folder[0]}/pairs.jsonl, images: 'memory://records/data'}}"
    found = sources.read(load_config(None, [f"records.sources=[{told}]"]).records)
    assert found.images == folder[1]
    assert all(images.size(found.images, row.pair.image) for row in found.rows if row.pair)


def test_pairs_of_two_folders_of_a_bucket_are_one_run_and_those_of_two_places_are_none(folder):
    (folder[1].parent / "more/pairs.jsonl").write_bytes(b'{"image": "a.png", "text": "one more"}')
    own = "records.pairs=memory://records/data/pairs.jsonl"
    more = "records.sources=[{format: pairs, path: 'memory://records/more/pairs.jsonl'}]"
    found = sources.read(load_config(None, [own, more]).records)
    assert found.images == folder[1].parent
    assert {row.pair.image.split("/")[0] for row in found.rows if row.pair} == {"data", "more"}
    (folder[1].parent / "more").remove_all()
    here = f"records.sources=[{{format: pairs, path: '{folder[0]}/pairs.jsonl'}}]"
    with pytest.raises(PlaceError, match="in one bucket, or on one disk"):
        sources.read(load_config(None, [own, here]).records)


@pytest.mark.parametrize("format", sorted(sources.READERS.keys() - {"pairs"}))
def test_published_layouts_are_read_from_disks_alone(format):
    told = f"records.sources=[{{format: {format}, path: 'memory://records/data'}}]"
    with pytest.raises(PlaceError, match=f"data of format {format}: expected a place on a disk"):
        sources.read(load_config(None, [told]).records)


def test_pairs_that_are_not_there_are_told_by_their_url(folder):
    with pytest.raises(PairsError, match=r"memory://records/data/none\.jsonl cannot be read: does not exist"):
        sources.read(load_config(None, ["records.pairs=memory://records/data/none.jsonl"]).records)
