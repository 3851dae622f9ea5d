"""GPUs that have no memory left, and GPUs that are lost. Simulated: torch's own errors are raised by hand."""

import pytest
import torch
from fixtures import small_sam
from fixtures.models import FakeClip
from fixtures.processes import snapshot
from fixtures.walk import TINY, failures, rows, settings, walk

from ppt.backbones.clip import load_clip
from ppt.backbones.memory import memory_errors
from ppt.backbones.sam import load_sam
from ppt.segmenter.reader import Reader
from ppt.store import Artifact

FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has ...")
LOST = "CUDA error: device-side assert triggered\nCUDA kernel errors might be reported later"
B = "b-left", "b-middle"
"""The sentences about b.png, whose discs are green and red."""


def is_b(image):
    return tuple(image[24, 14]) == (40, 200, 60) and tuple(image[24, 32]) == (220, 40, 40)


def failing(function, error, which=is_b):
    """The same function, but for an image like b.png."""

    def one(self, image, *others):
        if which(image):
            raise error
        return function(self, image, *others)

    return one


# --- out of memory


@pytest.mark.parametrize(
    ("owner", "name", "stage"),
    [("clip", "encode_image", "relevance"), ("sam", "embed", "masks"), ("sam", "predict", "masks")],
)
def test_an_image_for_which_there_is_no_memory_is_passed_over(
    ppt, whole, models, tmp_path, monkeypatch, owner, name, stage
):
    assert ppt(*whole, tmp_path / "run").code == 0
    kind = type(getattr(models, owner))
    monkeypatch.setattr(kind, name, failing(getattr(kind, name), MemoryError(f"{owner}: no room")))
    ended = ppt(*whole, tmp_path / "short")
    assert ended.code == 3
    assert f"{stage}: 5 items, 2 skipped (out_of_memory 2)" in ended.printed
    assert failures(tmp_path / "short", stage) == dict.fromkeys(B, "out_of_memory")
    others = {id: row for id, row in rows(tmp_path / "run", stage).items() if id not in B}
    assert rows(tmp_path / "short", stage) == others


def test_another_look_for_which_there_is_no_memory_is_passed_over(models, pictures, tmp_path, monkeypatch):
    walk(settings(pictures), tmp_path / "run", "labels")
    monkeypatch.setattr(FakeClip, "encode_image", failing(FakeClip.encode_image, MemoryError("no room")))
    summary = walk(settings(pictures), tmp_path / "run", "views", "views")
    assert summary.reasons == {"out_of_memory": 2}
    assert failures(tmp_path / "run", "views") == dict.fromkeys(B, "out_of_memory")


def test_a_segmenter_without_memory_for_an_image_goes_on_with_the_next(
    models, all_train, tmp_path, monkeypatch
):
    config = settings(all_train, *TINY)
    walk(config, tmp_path / "run", "predictions")
    before = rows(tmp_path / "run", "predictions")
    monkeypatch.setattr(Reader, "_looked", failing(Reader._looked, FULL))
    from pipelines.run import STAGES

    summary = STAGES["predictions"](config, tmp_path / "run", True)
    assert summary.reasons == {"out_of_memory": 2}
    [failure, _] = Artifact.open(tmp_path / "run" / "predictions").failures()
    assert failure.message == (
        "b.png: segmenter: reading the image: CUDA out of memory. Tried to allocate 2.00 GiB."
    )
    assert rows(tmp_path / "run", "predictions") == {id: row for id, row in before.items() if id not in B}


def test_the_doors_tell_what_they_had_no_memory_for(tmp_path, monkeypatch):
    def full(*_, **__):
        raise FULL

    sam, clip = load_sam("embedded", small_sam.write(tmp_path), "cpu"), load_clip("embedded", None, "cpu")
    monkeypatch.setattr(type(sam.network.image_encoder), "forward", full)
    monkeypatch.setattr(type(clip), "_values", full)
    photo = small_sam.photo(40, 60)
    with pytest.raises(MemoryError, match=r"^sam: encoding the image: CUDA out of memory\. .* 2\.00 GiB\.$"):
        sam.embed(photo)
    with pytest.raises(MemoryError, match=r"^clip: encoding the image: CUDA out of memory"):
        clip.encode_image(photo)


def test_no_memory_on_the_cpu_is_told_alike_and_other_errors_are_let_through():
    with pytest.raises(MemoryError, match=r"^a great tensor: "), memory_errors("a great tensor"):
        torch.empty(1 << 48)
    with pytest.raises(RuntimeError, match="size of tensor"), memory_errors("no matter"):
        torch.ones(2) + torch.ones(3)


# --- a lost GPU


@pytest.mark.parametrize(
    ("owner", "name", "stage"), [("clip", "encode_image", "relevance"), ("sam", "embed", "masks")]
)
def test_a_lost_gpu_ends_the_run_with_the_images_name_and_keeps_what_was_made(
    ppt, whole, models, tmp_path, monkeypatch, owner, name, stage
):
    output, kind = tmp_path / "cut" / "run", type(getattr(models, owner))
    made = [*whole[:-1], "--set", "shard_size=1", "--output"]
    assert ppt(*made, tmp_path / "whole" / "run").code == 0
    with monkeypatch.context() as patch:
        lost = getattr(torch, "AcceleratorError", RuntimeError)(LOST)
        patch.setattr(kind, name, failing(getattr(kind, name), lost))
        ended = ppt(*made, output)
    assert ended.code == 1
    assert "\nppt: b.png: CUDA error: device-side assert triggered\n" in ended.printed
    assert "the same command goes on from there" in ended.printed.replace("\n", " ")
    assert "Traceback" not in ended.printed
    assert [path.name for path in output.glob(f"{stage}/shards/*.done.json")] == ["00000.done.json"]
    assert ppt(*made, output).code == 0
    assert snapshot(output) == snapshot(tmp_path / "whole" / "run")
