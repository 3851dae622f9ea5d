import pytest
import torch
from fixtures.towers import RESNET, VIT, pixels, random_clip, towers_of

from ppt.segmenter.album import Album
from ppt.segmenter.model import Design, Segmenter


def segmenter(kind=VIT, adapter="none") -> Segmenter:
    torch.manual_seed(0)
    design = Design(adapter, "rca", 0, "add", "point", width=32, adapter_width=16, layers=1)
    return Segmenter(towers_of(random_clip(kind)), design)


def counted(model, monkeypatch) -> list[int]:
    """How many images each look was at, from now on."""
    looks, real = list[int](), model.look

    def look(images):
        looks.append(len(images))
        return real(images)

    monkeypatch.setattr(model, "look", look)
    return looks


def size(model) -> int:
    return sum(tap.nbytes for tap in model.look(pixels(1)).taps)


@pytest.mark.parametrize("kind", [VIT, RESNET])
def test_what_is_remembered_is_what_would_be_seen_anew(monkeypatch, kind):
    model, images = segmenter(kind), pixels(4)
    album, fresh = Album(model, 2**30), Album(model, 2**30)
    album.look(images[[2, 0]], [12, 10])
    looks = counted(model, monkeypatch)
    again = album.look(images, [10, 11, 12, 13])
    assert looks == [1, 1], "the two that are new, each by itself"
    assert again.pixels is images
    for kept, anew in zip(again.taps, fresh.look(images, [10, 11, 12, 13]).taps, strict=True):
        assert torch.equal(kept, anew)
    for kept, anew in zip(again.taps, model.look(images).taps, strict=True):
        torch.testing.assert_close(kept, anew)


def test_it_remembers_no_more_than_it_has_room_for(monkeypatch):
    model, images = segmenter(), pixels(3)
    album = Album(model, 2 * size(model) + 1)
    album.look(images, [0, 1, 2])
    looks = counted(model, monkeypatch)
    album.look(images, [0, 1, 2])
    assert looks == [1]
    album.look(images[:2], [0, 1])
    assert looks == [1]


def test_what_is_not_seen_again_takes_no_room(monkeypatch):
    model, images = segmenter(), pixels(3)
    album = Album(model, 2**30)
    album.look(images, [-1, -4, 0])
    looks = counted(model, monkeypatch)
    album.look(images, [-1, -4, 0])
    assert looks == [1, 1]


def test_without_room_a_batch_is_looked_at_at_once(monkeypatch):
    model = segmenter()
    looks = counted(model, monkeypatch)
    album = Album(model, 0)
    for _ in range(2):
        album.look(pixels(3), [0, 1, 2])
    assert looks == [3, 3]


def test_where_words_have_a_say_in_what_is_seen_nothing_is_remembered(monkeypatch):
    model = segmenter(adapter="bridger")
    looks = counted(model, monkeypatch)
    album = Album(model, 2**30)
    for _ in range(2):
        assert album.look(pixels(2), [0, 1]).first is not None
    assert looks == [2, 2]
