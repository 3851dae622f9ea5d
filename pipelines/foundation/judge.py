"""What the embedded weights can do, measured through the doors on scenes from seeds of their own."""

import numpy as np

from pipelines.foundation.clicks import draw_clicks
from ppt import rle
from ppt.backbones.clip import Clip
from ppt.backbones.sam import SamModel
from ppt.points.from_maps import peak_points
from ppt.relevance import Redundancy, relevance_maps
from ppt.scenes.cutouts import Cutout
from ppt.scenes.sentences import sample_scene
from ppt.seeding import generator
from ppt.types import PointSet


def sentence(name: str) -> str:
    """The wording that names are judged with."""
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def zero_shot(clip: Clip, cutouts: list[Cutout], count: int) -> float:
    """Top-1 accuracy over all names on one-object scenes (n = count), every cut-out in turn."""
    names = sorted({c.name for c in cutouts})
    words, _ = clip.encode_texts([sentence(n) for n in names])
    hits = 0
    for number in range(count):
        rng = generator(0, "judge/one", str(number))
        scene = sample_scene(rng, [cutouts[number % len(cutouts)]], 224, 224, 1, twins=False)
        guess = names[int((words @ clip.encode_image_global(scene.image)).argmax())]
        hits += guess == scene.instances[0].name
    return hits / count


def pointing(
    clip: Clip, cutouts: list[Cutout], count: int, redundancy: Redundancy = "none"
) -> tuple[float, int]:
    """Share of objects whose map's peak lies inside them, in scenes of 2 to 4 distinct names; and the objects
    judged.
    """
    hits, asked = 0, 0
    empty = clip.encode_texts([""])[0][0]
    for number in range(count):
        rng = generator(0, "judge/several", str(number))
        scene = sample_scene(rng, cutouts, 224, 256, int(rng.integers(2, 5)), twins=False)
        if len(scene.instances) < 2:
            continue
        features = clip.encode_image(scene.image)
        words, _ = clip.encode_texts([sentence(o.name) for o in scene.instances])
        for target, found in zip(
            scene.instances, relevance_maps(features, words, empty, redundancy), strict=True
        ):
            x, y = peak_points(found).xy[0].round().astype(int)
            hits += bool(target.mask[y, x])
            asked += 1
    return hits / asked, asked


def clicks(
    sam: SamModel, cutouts: list[Cutout], count: int, kind: str, unseen: bool = True
) -> list[tuple[float, float]]:
    """(share of the scene's area, IoU of the candidate that SAM itself scores highest) of every object of
    `count` scenes.

    kind: "mixed" (1-3 positive, 0-3 negative clicks) or "one" (a single interior click).
    """
    scores: list[tuple[float, float]] = []
    cutouts = [c for c in cutouts if c.unseen_by_sam == unseen]
    for number in range(count):
        rng = generator(0, f"judge/sam/{unseen}/{kind}", str(number))
        scene = sample_scene(rng, cutouts, 256, 256, int(rng.integers(1, 6)), twins=rng.random() < 0.3)
        objects = [o for o in scene.instances if o.mask.sum() >= 40]
        embedding = sam.embed(scene.image)
        for target in objects:
            others = [o.mask for o in objects if o is not target]
            xy, labels = draw_clicks(rng, target.mask, others, kind)
            used = labels >= 0
            prompt = PointSet(xy[used], labels[used].astype(np.int8), 1.0)
            found = sam.predict(embedding, [prompt])[0]
            best = found.rles[int(found.predicted_iou.argmax())]
            scores.append((float(target.mask.mean()), rle.iou(best, rle.encode(target.mask))))
    return scores


def by_size(scores: list[tuple[float, float]]) -> dict[str, list[float]]:
    """IoUs of `clicks`, all of them and by the object's share of its scene."""
    limits = {
        "all objects": (0.0, 1.0),
        "under 2 % of the scene": (0.0, 0.02),
        "2 to 6 %": (0.02, 0.06),
        "over 6 %": (0.06, 1.0),
    }
    return {name: [iou for share, iou in scores if a < share <= b] for name, (a, b) in limits.items()}
