"""Full-size architectures through the same doors as the embedded ones, on weights written here.

The weights are random on purpose and by name: the test is about loading, shapes and memory, not quality.
About one minute and 4 GB of memory on one core.
"""

import json
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import yaml
from PIL import Image
from segment_anything import sam_model_registry

from pipelines.run import run
from ppt.backbones.clip import load_clip
from ppt.backbones.sam import load_sam
from ppt.backbones.weights import file_sha256
from ppt.config import load_config
from ppt.store import Artifact
from ppt.types import PointSet

pytestmark = pytest.mark.slow
SIZES = [(240, 320), (333, 250)]


def photos():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]


@pytest.fixture(scope="module")
def clip_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "random-vit-b-16.pt"
    torch.manual_seed(0)
    recipe: Any = open_clip.get_model_config("ViT-B-16")
    torch.save(open_clip.CLIP(**recipe).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def sam_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("sam") / "random-vit-b.pth"
    torch.manual_seed(0)
    torch.save(sam_model_registry["vit_b"]().state_dict(), path)
    return path


def test_clip_vit_b_16(clip_file):
    clip = load_clip("ViT-B-16", clip_file, "auto")
    assert (clip.stride, clip.size, clip.context_length) == (16, 224, 77)
    for image, (height, width) in zip(photos(), SIZES, strict=True):
        features = clip.encode_image(image)
        gh, gw, dimension = features.values.shape
        assert (min(gh, gw), dimension) == (14, 512)
        assert abs(gw / gh - width / height) < 0.1
        assert clip.encode_image_global(image).shape == (512,)
    vectors, truncated = clip.encode_texts(["the dog on the left", "dog " * 100])
    assert vectors.shape == (2, 512)
    assert truncated == [False, True]


def test_sam_vit_b(sam_file):
    sam = load_sam("vit_b", sam_file, "auto", prompt_batch=2)
    prompts = [
        PointSet(np.array([[50, 60]], np.float32), np.array([1], np.int8), 1.0),
        PointSet(np.array([[50, 60], [10, 10]], np.float32), np.array([1, 0], np.int8), 1.0),
        PointSet(np.array([[150, 160]], np.float32), np.array([1], np.int8), 1.0),
    ]
    for image, size in zip(photos(), SIZES, strict=True):
        answers = sam.predict(sam.embed(image), prompts)
        assert [len(one.rles) for one in answers] == [3, 3, 3]
        assert {(mask.height, mask.width) for one in answers for mask in one.rles} == {size}


def test_the_whole_walk_on_large_models_is_a_change_of_config(clip_file, sam_file, tmp_path):
    """Two photographs from pairs to labels, the models named in the YAML and nothing else changed."""
    for number, image in enumerate(photos()):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    texts = ["the dog on the left", "a red bus"]
    rows = [{"image": f"{number}.png", "text": text} for number, text in enumerate(texts)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {
        "records": {"pairs": "pairs.jsonl"},
        "clip": {"model": "ViT-B-16", "weights": str(clip_file)},
        "sam": {"model": "vit_b", "weights": str(sam_file)},
    }
    (tmp_path / "large.yaml").write_text(yaml.safe_dump(settings))
    summaries = list(run(load_config(tmp_path / "large.yaml"), tmp_path / "out"))
    assert [(s.stage, s.items, s.skipped) for s in summaries[:4]] == [
        (stage, 2, 0) for stage in ("records", "relevance", "masks", "labels")
    ]
    masks = list(Artifact.open(tmp_path / "out" / "masks").rows())
    assert [len(row["candidates"]) for row in masks] == [3, 3]
    lines = (tmp_path / "out" / "labels" / "labels.jsonl").read_text().splitlines()
    labels = [json.loads(line) for line in lines]
    assert sorted(label["text"] for label in labels) == sorted(texts)
    manifest = Artifact.open(tmp_path / "out" / "masks").manifest
    assert manifest.weights == {"sam": file_sha256(sam_file)}
