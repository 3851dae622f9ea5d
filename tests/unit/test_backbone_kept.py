"""Embeddings kept on disk: the same masks in less time, or no time lost that was not lost before."""

import numpy as np
import pytest
import torch
from fixtures.small_sam import photo, points, write

from ppt.backbones.kept import KeptEmbeddings
from ppt.backbones.sam import load_sam


@pytest.fixture
def made():
    """Keys in the order in which something was made for them."""
    return []


@pytest.fixture
def making(made):
    def make(key, size=8):
        def one():
            made.append(key)
            return torch.arange(size, dtype=torch.float32) + len(key)

        return one

    return make


def test_a_key_is_made_once_and_comes_back_equal(tmp_path, making, made):
    first = KeptEmbeddings(tmp_path / "kept", 10_000)("a", making("a"))
    again = KeptEmbeddings(tmp_path / "kept", 10_000)("a", making("a"))
    assert torch.equal(first, again)
    assert made == ["a"]
    again += 1  # its own


def test_beyond_the_limit_nothing_is_added(tmp_path, making, made):
    kept = KeptEmbeddings(tmp_path / "kept", 700)
    for _ in range(2):
        for key in ("a", "bb", "ccc", "dddd"):
            kept(key, making(key, 64))  # 256 bytes, and a header
    assert made == ["a", "bb", "ccc", "dddd", "ccc", "dddd"]
    again = KeptEmbeddings(tmp_path / "kept", 700)
    again("ccc", making("ccc", 64))
    assert made[-1] == "ccc"
    assert len(list((tmp_path / "kept").iterdir())) == 2, "what is there counts after a restart, too"


@pytest.mark.parametrize("damage", [b"", b"short", None])
def test_what_is_damaged_is_made_anew(tmp_path, making, made, damage):
    kept = KeptEmbeddings(tmp_path, 10_000)
    first = kept("a", making("a"))
    data = bytearray((tmp_path / "a.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "a.safetensors").write_bytes(bytes(data) if damage is None else damage)
    assert torch.equal(kept("a", making("a")), first)
    assert made == ["a", "a"]
    kept("a", making("a"))
    assert made == ["a", "a"], "and is whole again"


def test_no_room_on_the_disk_is_no_failure(tmp_path, making, made):
    (tmp_path / "kept").write_text("a file where the folder would be")
    kept = KeptEmbeddings(tmp_path / "kept", 10_000)
    kept("a", making("a"))
    kept("a", making("a"))
    assert made == ["a", "a"]


def test_sam_looks_once_and_draws_the_same(tmp_path, monkeypatch):
    path, images = write(tmp_path), [photo(40, 60), photo(60, 40)]
    plain = load_sam("embedded", path, "cpu")
    prompts = [points((10, 12)), points((20, 30), (5, 5))]
    wanted = [plain.predict(plain.embed(image), prompts) for image in images]
    for _ in range(2):
        sam = load_sam("embedded", path, "cpu", kept=KeptEmbeddings(tmp_path / "kept", 10_000_000))
        for image, known in zip(images, wanted, strict=True):
            embedding = sam.embed(image)
            for found, one in zip(sam.predict(embedding, prompts), known, strict=True):
                assert [m.counts for m in found.rles] == [m.counts for m in one.rles]
                assert np.array_equal(found.predicted_iou, one.predicted_iou)
            assert (embedding.original_size, embedding.input_size) == (
                plain.embed(image).original_size,
                plain.embed(image).input_size,
            )
        monkeypatch.setattr(
            type(plain._model.image_encoder), "forward", lambda *_: pytest.fail("looked again")
        )
        plain = sam
    assert len(list((tmp_path / "kept").iterdir())) == 2


def test_another_sam_sees_for_itself(tmp_path):
    kept = KeptEmbeddings(tmp_path / "kept", 10_000_000)
    for seed in (0, 1):
        load_sam("embedded", write(tmp_path, seed), "cpu", kept=kept).embed(photo(40, 60))
    assert len(list((tmp_path / "kept").iterdir())) == 2
