"""The demo's images, sentences and truth, composed once and committed: 200 object-centric images, and 300 /
100 / 200 referring scenes for train / val / test. No layout was seen by either foundation training; the seeds
are their own.
"""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from ppt import rle
from ppt.scenes.compose import Scene
from ppt.scenes.cutouts import Cutout, load_cutouts
from ppt.scenes.sentences import Expression, expressions, name_sentence, sample_scene
from ppt.seeding import generator
from ppt.types import Truth

SHARES = {"object_centric": 200, "train": 300, "val": 100, "test": 200}
SIZES = ((192, 256), (224, 256), (256, 256), (256, 208), (176, 256))
PER_SCENE = 3
QUALITY = 82


def build(folder: Path, times: int = 1) -> None:
    """Write folder/images/*.jpg, pairs.jsonl and truth.jsonl, `times` the demo's images; the same bytes every
    time.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    cutouts = load_cutouts()
    pairs, truth = [], []
    for share, count in SHARES.items():
        for number in range(count * times):
            rng = generator(0, f"demo/{share}", str(number))
            scene, said = _scene(rng, cutouts, share, number)
            name = f"images/{share}_{number:03d}.jpg"
            cv2.imwrite(str(folder / name), scene.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
            for order, sentence in enumerate(said):
                target = scene.instances[sentence.target]
                alone = share == "object_centric"
                row = {"id": f"{share}_{number:03d}_{order}", "image": name, "text": sentence.text}
                source = "object_centric" if alone else "referring"
                pairs.append(
                    {**row, "split": "train" if alone else share, "source": source, "kind": sentence.kind}
                )
                cutout = cutouts[target.cutout]
                tags = {"cutout": cutout.key, "unseen_by_sam": cutout.unseen_by_sam}
                others = [o.mask for o in scene.instances if o is not target and o.name == target.name]
                true = Truth(row["id"], rle.encode(target.mask), tuple(rle.encode(mask) for mask in others))
                truth.append({**true.to_json(), **tags})
    for name, rows in (("pairs.jsonl", pairs), ("truth.jsonl", truth)):
        lines = [json.dumps(row, sort_keys=True, ensure_ascii=False) + "\n" for row in rows]
        (folder / name).write_text("".join(lines), encoding="utf-8")


def _scene(
    rng: np.random.Generator, cutouts: list[Cutout], share: str, number: int
) -> tuple[Scene, list[Expression]]:
    """One scene and up to PER_SCENE of its sentences, of different kinds where it can."""
    height, width = SIZES[int(rng.integers(len(SIZES)))]
    if share == "object_centric":
        index = int(
            generator(0, "demo/object_centric", "order").permutation(len(cutouts))[number % len(cutouts)]
        )
        scene = sample_scene(rng, [cutouts[index]], height, width, 1, twins=False)
        shown = replace(scene.instances[0], cutout=index)
        return replace(scene, instances=(shown,)), [Expression(name_sentence(rng, shown), 0, "name")]
    for _ in range(20):
        scene = sample_scene(rng, cutouts, height, width, int(rng.integers(2, 7)), twins=rng.random() < 0.5)
        said = [e for e in expressions(rng, scene) if scene.instances[e.target].mask.sum() >= 200]
        if len(scene.instances) >= 2 and said:
            break
    order = [said[i] for i in rng.permutation(len(said))]
    chosen: list[Expression] = []
    for sentence in sorted(order, key=lambda e: [o.kind for o in order].count(e.kind)):
        fresh = all(sentence.text != c.text for c in chosen)
        if fresh and (len(chosen) < PER_SCENE):
            chosen.append(sentence)
    return scene, chosen
