"""Dense CLIP features x a sentence -> a relevance map on CLIP's grid.

The value path (MaskCLIP, Zhou et al. 2022) gives each place of the image a feature of its own; its cosine
with the sentence is the map. What all sentences light up alike is redundant and can be taken out first:

- "none": the plain cosine.
- "empty_text": the cosine with the empty sentence is subtracted (CLIP Surgery, Li et al. 2023, section 3.3,
  the form for one text).
- "other_texts": the mean over the other sentences of the same image is subtracted, each weighted as CLIP
  Surgery weights classes; where a sentence has no company, the empty sentence stands in.
"""

from typing import Literal

import numpy as np
from jaxtyping import Float32

from ppt.types import DenseFeatures, RelevanceMap

Redundancy = Literal["none", "empty_text", "other_texts"]


def relevance_maps(
    features: DenseFeatures,
    texts: Float32[np.ndarray, "n d"],
    empty_text: Float32[np.ndarray, " d"],
    redundancy: Redundancy,
) -> list[RelevanceMap]:
    """One map (gh, gw) float32 for each sentence of an image, in order.

    texts: unit vectors of the image's distinct sentences; empty_text: that of "". Values are differences of
    cosines, in [-2, 2]; higher is more relevant.
    """
    cosines = _dot(features.values, texts)
    if redundancy == "none":
        maps = cosines
    elif redundancy == "empty_text" or len(texts) == 1:
        maps = cosines - _dot(features.values, empty_text[None])
    else:
        maps = cosines - _company(cosines)
    return [RelevanceMap(np.ascontiguousarray(m), features.height, features.width) for m in maps]


def _dot(
    values: Float32[np.ndarray, "gh gw d"], texts: Float32[np.ndarray, "n d"]
) -> Float32[np.ndarray, "n gh gw"]:
    # One sentence at a time: a matrix product's last bits depend on how many sentences it has.
    flat = values.reshape(-1, values.shape[2])
    return np.stack([(flat @ text).reshape(values.shape[:2]) for text in texts])


def _company(cosines: Float32[np.ndarray, "n gh gw"]) -> Float32[np.ndarray, "n gh gw"]:
    """For each sentence the mean map of the image's other sentences, those that fit the whole image counting
    more.
    """
    overall = 2 * cosines.mean((1, 2))  # CLIP Surgery's temperature (clip_feature_surgery, t = 2)
    share = np.exp(overall - overall.max())
    out = np.empty_like(cosines)
    for i in range(len(cosines)):
        others = np.delete(np.arange(len(cosines)), i)
        weight = share[others] / share[others].sum()
        out[i] = np.tensordot(weight, cosines[others], axes=1)
    return out


def contrast(map_values: Float32[np.ndarray, "gh gw"]) -> float:
    """How far the peak stands out: (max - mean) / standard deviation; 0 for a map flat up to rounding."""
    values = map_values.astype(np.float64)
    spread = float(values.std())
    flat = spread <= 1e-6 * float(np.abs(values).max())
    return 0.0 if flat else float((values.max() - values.mean()) / spread)
