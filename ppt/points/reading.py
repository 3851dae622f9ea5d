"""What the judge goes by: each thing found for a sentence, alone, compared, and as the words light it.

Nothing here is learned, so that what is known of a mosaic is read once and stored.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from ppt.points.scene import Scene

DESCRIPTION, COMPARISONS = 9, 6
"""Numbers that describe a thing alone, and that compare it."""
RELEVANT = 3
"""Of a description, the first of two: relevance inside, the mean and the most."""
SHARP = 10.0
"""How much more a rival counts for its relevance: e^SHARP from none to full."""


@dataclass(frozen=True)
class Reading:
    """b sentences, each about s things in t words, padded.

    alone: centre, root of the area, relevance inside (mean, most) and outside, extents, correlation with the
    map. compared: centre and half the logarithm of the area's root, less those of the rivals, and less the
    image's middle. lit: by each word, in standard deviations of the words' maps. there, has_word: False for
    padding. words: what they are known by.
    """

    alone: Float[Tensor, "b s 9"]
    compared: Float[Tensor, "b s 6"]
    lit: Float[Tensor, "b s t"]
    there: Bool[Tensor, "b s"]
    words: Float[Tensor, "b t d"]
    has_word: Bool[Tensor, "b t"]


def read(scene: Scene, things: Float[Tensor, "b s n"], there: Bool[Tensor, "b s"]) -> Reading:
    """things: the share of each of the n = h * w cells that each thing covers, in [0, 1]. there: False for
    padding.
    """
    alone, q = _described(scene, things)
    compared = _compared(q, alone[..., RELEVANT], others(things, there))
    return Reading(alone, compared, _lit(scene, things), there, scene.words, scene.has_word)


def packed(reading: Reading) -> list[Float32[np.ndarray, "_ _"]]:
    """Each sentence's reading less its words, for the store: (s, 15 + t)."""
    rows = torch.cat([reading.alone, reading.compared, reading.lit], -1).float().cpu().numpy()
    there, words = reading.there.sum(1).tolist(), reading.has_word.sum(1).tolist()
    end = DESCRIPTION + COMPARISONS
    return [row[:s, : end + t].copy() for row, s, t in zip(rows, there, words, strict=True)]


def unpacked(
    rows: Sequence[Float32[np.ndarray, "_ _"]],
    words: Sequence[Float32[np.ndarray, "_ _"]],
    device: torch.device | str = "cpu",
) -> Reading:
    """The inverse of `packed`; words[i]: what the words of sentence i are known by."""
    count, dimension = len(rows), words[0].shape[1]
    s, t = max(len(row) for row in rows), max(len(own) for own in words)
    end = DESCRIPTION + COMPARISONS
    stored, known = torch.zeros(count, s, end + t), torch.zeros(count, t, dimension)
    there, has_word = torch.zeros(count, s, dtype=torch.bool), torch.zeros(count, t, dtype=torch.bool)
    for i, (row, own) in enumerate(zip(rows, words, strict=True)):
        stored[i, : len(row), : row.shape[1]] = torch.from_numpy(row)
        known[i, : len(own)] = torch.from_numpy(own)
        there[i, : len(row)], has_word[i, : len(own)] = True, True
    alone, compared, lit = stored.split([DESCRIPTION, COMPARISONS, t], -1)
    return Reading(*(part.to(device) for part in (alone, compared, lit, there, known, has_word)))


def _described(scene: Scene, things: Tensor) -> tuple[Float[Tensor, "b s 9"], Float[Tensor, "b s 3"]]:
    """Each thing alone: centre, root of its area, relevance inside (mean, most) and outside, extents, and the
    correlation with the map. And what is compared: centre and half the logarithm of the area's root.
    """
    has = scene.has_cell.flatten(1).to(things.dtype)[:, None]
    xy, relevance = scene.xy.flatten(1, 2), scene.relevance.flatten(1)[:, None]
    things, cells = things * has, has.sum(-1, keepdim=True)
    size = things.sum(-1, keepdim=True)
    inside = things / size.clamp(min=1e-3)
    centre = torch.einsum("bsn,bnc->bsc", inside, xy)
    square = torch.einsum("bsn,bnc->bsc", inside, xy.square())
    extent = (square - centre.square()).clamp(min=1e-8).sqrt()
    root = (size / cells).clamp(min=1e-6).sqrt()
    mean = (inside * relevance).sum(-1, keepdim=True)
    most = (things.gt(0.3) * relevance).amax(-1, keepdim=True)
    rest = (has - things).clamp(min=0)
    outside = (rest * relevance).sum(-1, keepdim=True) / rest.sum(-1, keepdim=True).clamp(min=1e-3)
    agreement = _correlation(things, relevance.expand_as(things), has, cells)
    described = torch.cat([centre, 2 * root, mean, most, 4 * extent, outside, agreement], -1)
    return described, torch.cat([centre, root.log() / 2], -1)


def _correlation(a: Tensor, b: Tensor, has: Tensor, cells: Tensor) -> Float[Tensor, "b s 1"]:
    a = (a - (a * has).sum(-1, keepdim=True) / cells) * has
    b = (b - (b * has).sum(-1, keepdim=True) / cells) * has
    scale = (a.square().sum(-1, keepdim=True) * b.square().sum(-1, keepdim=True)).clamp(min=1e-8).sqrt()
    return (a * b).sum(-1, keepdim=True) / scale


def others(things: Float[Tensor, "b s n"], there: Bool[Tensor, "b s"]) -> Bool[Tensor, "b s s"]:
    """Which things are other things: two that share half of the smaller are one, found twice."""
    both = torch.einsum("bsn,brn->bsr", things, things)
    size = things.square().sum(-1)
    smaller = torch.minimum(size[:, :, None], size[:, None])
    return there[:, None] & there[..., None] & (both < 0.5 * smaller)


def _compared(q: Tensor, relevance: Tensor, rival: Tensor) -> Float[Tensor, "b s 6"]:
    """Each thing less the mean of its rivals, and less the image's middle."""
    weight = (SHARP * relevance)[:, None].masked_fill(~rival, -1e4).softmax(-1) * rival
    against = (q - weight @ q) * rival.any(-1, keepdim=True)
    middle = torch.tensor([0.5, 0.5, -0.5], device=q.device, dtype=q.dtype)
    return torch.cat([against, q - middle], -1)


def _lit(scene: Scene, things: Tensor) -> Float[Tensor, "b s t"]:
    """How much more than the image each thing is lit by each word, in standard deviations of all the words'
    maps: what a cosine is worth differs from one CLIP to another.
    """
    has = scene.has_cell.flatten(1).to(things.dtype)
    cells = scene.cells.flatten(1, 2)
    inside = things * has[:, None]
    inside = inside / inside.sum(-1, keepdim=True).clamp(min=1e-3)
    maps = torch.einsum("bnd,btd->btn", cells, scene.words)
    count = has.sum(-1)[:, None, None]
    mean = (maps * has[:, None]).sum(-1, keepdim=True) / count
    variance = ((maps - mean).square() * has[:, None]).sum(-1, keepdim=True) / count
    read = scene.has_word[..., None].to(things.dtype)
    spread = ((variance * read).sum(1, keepdim=True) / read.sum(1, keepdim=True)).clamp(min=1e-8).sqrt()
    return torch.einsum("bsn,btn->bst", inside, (maps - mean) / spread)
