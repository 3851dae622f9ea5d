"""Slow twins: what the fast code must equal to the bit, one sentence at a time and as plainly as can be.

The networks are asked as their own libraries show it; what follows has no batch, no cache and no run-length
code.
"""

import json
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from segment_anything import SamPredictor
from segment_anything.utils.amg import calculate_stability_score

from ppt.backbones.clip import Clip


def chosen_masks(pairs: Path, clip: Clip, network, smallest: float, largest: float):
    """For each pair the chosen mask (h, w) of bool, or None; and the scores of the candidate.

    The map is the plain cosine, the point is on its peak.
    """
    found = {}
    for line in pairs.read_text().splitlines():
        row = json.loads(line)
        pixels = np.array(Image.open(pairs.parent / row["image"]).convert("RGB"))
        values, sentence = clip.encode_image(pixels).values, clip.encode_texts([row["text"]])[0][0]
        relevance = (values.reshape(-1, values.shape[2]) @ sentence).reshape(values.shape[:2])
        found[row["id"]] = _best(pixels, relevance, network, smallest, largest)
    return found


def _best(pixels, relevance, network, smallest, largest):
    predictor = SamPredictor(network)
    predictor.set_image(pixels)
    logits, scores, _ = predictor.predict(_peak(pixels, relevance), np.array([1]), return_logits=True)
    stabilities = calculate_stability_score(torch.from_numpy(logits), network.mask_threshold, 1.0).numpy()
    best, best_score = None, 0.0
    for mask, predicted, stability in zip(logits > network.mask_threshold, scores, stabilities, strict=True):
        if not smallest <= mask.mean() <= largest:
            continue
        agreement = _agreement(mask, relevance)
        score = agreement * np.clip(float(predicted), 0, 1) * np.clip(np.nan_to_num(float(stability)), 0, 1)
        if score > best_score:
            told = {"predicted_iou": float(predicted), "stability": float(stability), "agreement": agreement}
            best, best_score = (mask, told), score
    return best


def _peak(pixels, relevance):
    """The middle of the highest cell, (1, 2), where the first pixel's own middle is 0."""
    row, column = np.unravel_index(relevance.argmax(), relevance.shape)
    (height, width), (rows, columns) = pixels.shape[:2], relevance.shape
    x, y = (column + 0.5) * width / columns - 0.5, (row + 0.5) * height / rows - 0.5
    return np.array([[x, y]], np.float32)


def _agreement(mask, relevance):
    """Correlation of the share of each cell that is covered with how relevant the cell is."""
    covered = cv2.resize(mask.astype(np.float32), relevance.shape[::-1], interpolation=cv2.INTER_AREA)
    return float(np.corrcoef(covered.ravel(), relevance.ravel())[0, 1]) if covered.any() else 0.0
