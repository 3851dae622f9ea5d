"""Models of the size that is published, on random weights, through every stage on two images of
photographed things; and their dense paths against open_clip's own answer.

A quarter of an hour on two cores, most of it SAM vit_l and ViT-L/14 at 336 pixels.
"""

import shutil
from typing import Any

import pytest
import torch
from fixtures.pictures import read_rows, write_rows
from fixtures.walk import ORDER, SMALL, TINY

from pipelines.cli import DEMO_DATA
from pipelines.run import run
from ppt.backbones import clip_dense
from ppt.backbones.clip import dense_values, load_clip, untrained_clip
from ppt.backbones.sam import untrained_sam
from ppt.config import load_config
from ppt.store import Artifact

pytestmark = pytest.mark.slow
CLIPS = {"RN50-quickgelu": 16, "ViT-B-16-quickgelu": 16, "ViT-L-14-336-quickgelu": 14}
IMAGES = "images/object_centric_000.jpg", "images/train_000.jpg"
"""Of the demo: one with one sentence, one with three."""
SAMS = {"RN50-quickgelu": "vit_b", "ViT-B-16-quickgelu": "vit_b", "ViT-L-14-336-quickgelu": "vit_l"}


def saved(folder, name, network) -> str:
    path = folder / f"{name}.pt"
    torch.save(network.state_dict(), path)
    return str(path)


def decided_sam(model) -> Any:
    """A random SAM whose logits leave no doubt and whose scores are high: its masks are some masks."""
    network = untrained_sam(model)
    with torch.no_grad():
        for head in network.mask_decoder.output_hypernetworks_mlps:
            head.layers[-1].weight *= 300
        network.mask_decoder.iou_prediction_head.layers[-1].bias += 1
    return network


@pytest.mark.parametrize("model", CLIPS)
def test_the_dense_path_and_open_clips_own_answer_share_every_token(model):
    """Of a ViT the class token through the last block, of a ResNet the pool over all cells, at full size."""
    torch.manual_seed(0)
    net: Any = untrained_clip(model).eval().requires_grad_(False)
    visual, side = net.visual, net.visual.image_size
    side = side[0] if isinstance(side, tuple) else side
    image = torch.randn(1, 3, side, side)
    if model.startswith("RN"):
        pool, cells = visual.attnpool, visual.stem(image)
        for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
            cells = layer(cells)
        tokens = cells.flatten(2).transpose(1, 2)
        values = pool.c_proj(pool.v_proj(tokens)).unflatten(1, cells.shape[-2:])
        fine = dense_values(visual, image)
        assert fine.shape[:2] == (2 * values.shape[1], 2 * values.shape[2])
        tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], 1) + pool.positional_embedding
        parts = [
            layer(one).unflatten(2, (pool.num_heads, -1)).transpose(1, 2)
            for layer, one in ((pool.q_proj, tokens[:, :1]), (pool.k_proj, tokens), (pool.v_proj, tokens))
        ]
        whole = torch.nn.functional.scaled_dot_product_attention(*parts)
        found = pool.c_proj(whole.transpose(1, 2).flatten(2))[:, 0]
    else:
        tokens, grid = clip_dense.tokens_before_last_blocks(visual, image, 1)
        assert dense_values(visual, image).shape == (*grid, visual.output_dim)
        found = visual.ln_post(visual.transformer.resblocks[-1](tokens))[:, 0] @ visual.proj
    torch.testing.assert_close(found, net.encode_image(image), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", CLIPS)
def test_every_stage_on_two_images(model, tmp_path):
    """The generator and the segmenter take a few steps; random weights promise nothing but shapes."""
    torch.manual_seed(0)
    weights = {
        "clip": saved(tmp_path, "clip", untrained_clip(model)),
        "sam": saved(tmp_path, "sam", decided_sam(SAMS[model])),
    }
    rows = read_rows(DEMO_DATA / "pairs.jsonl")
    pairs = [row for row in rows if row["image"] in IMAGES]
    write_rows(tmp_path / "pairs.jsonl", pairs)
    kept = {row["id"] for row in pairs}
    truth = [row for row in read_rows(DEMO_DATA / "truth.jsonl") if row["id"] in kept]
    write_rows(tmp_path / "truth.jsonl", truth)
    for image in IMAGES:
        (tmp_path / image).parent.mkdir(exist_ok=True)
        shutil.copy(DEMO_DATA / image, tmp_path / image)
    # Random weights may agree with no map, and such labels teach nothing: a person takes SAM's first masks.
    (tmp_path / "out").mkdir()
    taken = [{"id": id, "decision": "candidate", "candidate": 0} for id in sorted(kept)]
    write_rows(tmp_path / "out/review.jsonl", taken)
    side = 8 * CLIPS[model]
    config = load_config(
        None,
        [
            f"records.pairs={tmp_path / 'pairs.jsonl'}", f"records.truth={tmp_path / 'truth.jsonl'}",
            f"clip.model={model}", f"clip.weights={weights['clip']}", f"sam.model={SAMS[model]}",
            f"sam.weights={weights['sam']}", *SMALL, *TINY, "generator.sources=[object_centric, referring]",
            f"segmenter.size={side}", "labels.min_stability=0", "labels.min_agreement=-1",
            "masks.min_area=0", "masks.max_area=1",
        ],
    )  # fmt: skip
    found = {summary.stage: summary for summary in run(config, tmp_path / "out")}
    assert tuple(found) == ORDER
    asked = ("records", "relevance", "masks", "labels", "predictions", "quality")
    assert {found[name].items for name in asked} == {len(pairs)}
    assert found["evaluate"].items == len(truth)
    masks = list(Artifact.open(tmp_path / "out/masks").rows())
    assert all(row["candidates"] for row in masks)
    assert {row["id"] for row in read_rows(tmp_path / "out/predictions/predictions.jsonl")} == kept
    clip = load_clip(model, weights["clip"], "cpu")
    assert clip.stride == CLIPS[model]
