"""What the embedded SAM is trained on: composed scenes of cut-outs and drawings, their masks, and clicks."""

import functools
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from pipelines.foundation.drawings import find_drawings, sample_drawing
from pipelines.foundation.pool import Sample
from ppt.backbones.sam_encoder import CELL, PIXEL_MEAN
from ppt.scenes.compose import Scene
from ppt.scenes.cutouts import Cutout, load_cutouts
from ppt.scenes.sentences import sample_scene
from ppt.seeding import generator

SCENE = 256  # pixels along the longest side of a scene as composed
OBJECTS = 4
DRAWN = 0.4  # of the things in a scene; the rest are photographed


@functools.cache
def _cutouts() -> list[Cutout]:
    return [c for c in load_cutouts() if not c.unseen_by_sam]


@functools.cache
def _drawings() -> list[Path]:
    return find_drawings()


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
    some = [sample_drawing(rng, _drawings(), c.rgba) if rng.random() < DRAWN else c for c in some]
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
    fill = [round(c) for c in PIXEL_MEAN]
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
