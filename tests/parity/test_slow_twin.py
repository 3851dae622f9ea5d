"""From pairs to labels, however the work is cut: the same masks as one sentence at a time, to the bit."""

import shutil

import numpy as np
import pytest
import torch
from fixtures.pictures import read_rows, write_rows
from fixtures.walk import rows, settings, walk
from reference import chosen_masks

from pipelines.cli import DEMO_DATA
from pipelines.doors import open_clip_door, open_sam_door
from ppt import rle
from ppt.backbones.sam_attention import as_published

CUTS = {
    "one by one": ("shard_size=1", "sam.prompt_batch=1"),
    "all at once": ("shard_size=32", "sam.prompt_batch=32"),
    "three by three": ("shard_size=3", "sam.prompt_batch=3", "embeddings_gib=1"),
    "by a worker": ("shard_size=2", "workers=1", "threads=1"),
}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Nine sentences about three scenes of the demo."""
    rows = [row for row in read_rows(DEMO_DATA / "pairs.jsonl") if row["split"] == "val"]
    images = list(dict.fromkeys(row["image"] for row in rows))[:3]
    told = [row for image in images for row in [row for row in rows if row["image"] == image][:3]]
    folder = tmp_path_factory.mktemp("twin")
    for image in images:
        (folder / image).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(DEMO_DATA / image, folder / image)
    write_rows(folder / "pairs.jsonl", told)
    return folder


@pytest.fixture(scope="module")
def expected(pairs):
    """What the slow twin makes of them."""
    config = settings(pairs, "clip.size=320")
    network = open_sam_door(config).network
    as_published(network.image_encoder)  # the decoder's own order of sums has other last bits
    clip, masks = open_clip_door(config), config.masks
    return chosen_masks(pairs / "pairs.jsonl", clip, network, masks.min_area, masks.max_area)


@pytest.mark.parametrize(
    "cut", [pytest.param(cut, marks=[pytest.mark.slow] if cut == "by a worker" else []) for cut in CUTS]
)
def test_labels_are_those_of_the_slow_twin(pairs, expected, cut, tmp_path):
    assert torch.get_num_threads() == 1, "the last bits depend on it"
    config, output = settings(pairs, "clip.size=320", *CUTS[cut]), tmp_path / "out"
    alone = config.model_copy(update={"workers": 0})  # where there is no network to ask
    walk(alone, output, "records")
    walk(config, output, "masks", first="relevance")
    walk(alone, output, "labels", first="labels")
    found = rows(output, "labels")
    assert len(found) == len(expected) == 9
    assert sum(row["segmentation"] is not None for row in found.values()) >= 7
    for id, row in found.items():
        assert (expected[id] is None) == (row["segmentation"] is None), id
        if expected[id] is not None:
            mask, scores = expected[id]
            np.testing.assert_array_equal(rle.decode(rle.from_json(row["segmentation"])), mask)
            for name, value in scores.items():
                assert row["scores"][name] == pytest.approx(value, abs=2e-6), name
