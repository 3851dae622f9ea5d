"""The loop of a research script, as the README of each library shows it: for every sentence the image is
read, encoded by CLIP and by SAM, and a file is written.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from PIL import Image
from pycocotools import mask as coco
from segment_anything import SamPredictor
from segment_anything.modeling import Sam
from segment_anything.utils.amg import calculate_stability_score
from torch import from_numpy

from ppt import rle
from ppt.backbones.clip import Clip
from ppt.points.from_maps import peak_points
from ppt.prompting import Rules, choose, judge
from ppt.relevance import Redundancy, relevance_maps
from ppt.rle import Rle
from ppt.types import MaskCandidates, PointSet, RelevanceMap


@dataclass(frozen=True)
class Job:
    """A sentence about an image, and the points that its map gives."""

    id: str
    image: Path
    text: str
    points: PointSet


def drawn(network: Sam, jobs: Sequence[Job], folder: Path) -> list[Rle | None]:
    """SAM alone: the candidates for the known points of each sentence, and a file for each."""
    predictor: Any = SamPredictor(network)
    found: list[Rle | None] = []
    for job in jobs:
        predictor.set_image(np.array(Image.open(job.image).convert("RGB")))
        masks, scores, _ = predictor.predict(job.points.xy, job.points.labels, multimask_output=True)
        rows = _coded(masks)
        (folder / f"{job.id}.json").write_text(json.dumps({"masks": rows, "scores": scores.tolist()}))
        found += [rle.from_json(row) for row in rows]
    return found


def labelled(
    network: Sam, clip: Clip, jobs: Sequence[Job], folder: Path, redundancy: Redundancy, rules: Rules
) -> list[Rle | None]:
    """From the image and the sentence to the chosen mask, and a file for each."""
    predictor: Any = SamPredictor(network)
    found: list[Rle | None] = []
    for job in jobs:
        pixels = np.array(Image.open(job.image).convert("RGB"))
        [text, empty] = clip.encode_texts([job.text, ""])[0]
        [relevance] = relevance_maps(clip.encode_image(pixels), text[None], empty, redundancy)
        points, chosen = peak_points(relevance), None
        if len(points.labels):
            predictor.set_image(pixels)
            logits, scores, _ = predictor.predict(
                points.xy, points.labels, multimask_output=True, return_logits=True
            )
            chosen = _chosen(logits, scores, relevance, rules, network.mask_threshold)
        row = {"id": job.id, "segmentation": chosen.to_json() if chosen else None}
        (folder / f"{job.id}.json").write_text(json.dumps(row))
        found.append(chosen)
    return found


def _chosen(
    logits: np.ndarray, scores: np.ndarray, relevance: RelevanceMap, rules: Rules, threshold: float
) -> Rle | None:
    stability = calculate_stability_score(from_numpy(logits), threshold, 1.0).numpy()
    rles = tuple(rle.from_json(row) for row in _coded(logits > threshold))
    candidates = MaskCandidates(rles, scores.astype(np.float32), np.nan_to_num(stability.astype(np.float32)))
    choice = choose(candidates, judge(candidates, relevance), rules)
    return None if choice.index is None else rles[choice.index]


def _coded(masks: Bool[np.ndarray, "c h w"]) -> list[dict[str, Any]]:
    coded: list[Any] = [coco.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks]
    return [{"size": one["size"], "counts": one["counts"].decode()} for one in coded]
