"""What the generator reads and says, in the words of the rest of the program.

An `Example` is one sentence and one image; its answer is a list of `PointSet`s, the surest first.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32

from ppt.geometry import grid_to_pixels, pixels_to_grid
from ppt.points.generator import IGNORED, POSITIVE, PointSets, Scene
from ppt.types import DenseFeatures, PointSet, RelevanceMap


@dataclass(frozen=True, eq=False)
class Example:
    """One sentence and one image: CLIP's dense features, the sentence's map on the same grid, and CLIP's
    states of the sentence's tokens (t, w) float32.
    """

    features: DenseFeatures
    relevance: RelevanceMap
    words: Float32[np.ndarray, "t w"]


def collate(examples: Sequence[Example], device: torch.device | str = "cpu") -> Scene:
    """A batch of examples, padded to the largest grid and the longest sentence.

    A map that is no evidence is read as zero everywhere.
    """
    cells = max(example.relevance.values.size for example in examples)
    tokens = max(len(example.words) for example in examples)
    count = len(examples)
    dense = torch.zeros(count, cells, examples[0].features.values.shape[2])
    relevance, xy = torch.zeros(count, cells), torch.zeros(count, cells, 2)
    words = torch.zeros(count, tokens, examples[0].words.shape[1])
    has_cell = torch.zeros(count, cells, dtype=torch.bool)
    has_word = torch.zeros(count, tokens, dtype=torch.bool)
    for i, example in enumerate(examples):
        own, read = example.relevance.values.size, len(example.words)
        stretched = example.relevance.normalised()
        dense[i, :own] = torch.from_numpy(example.features.values).flatten(0, 1)
        if stretched is not None:
            relevance[i, :own] = torch.from_numpy(stretched.values).flatten()
        xy[i, :own] = torch.from_numpy(cell_centres(*example.relevance.values.shape))
        words[i, :read] = torch.from_numpy(example.words)
        has_cell[i, :own], has_word[i, :read] = True, True
    return Scene(*(part.to(device) for part in (dense, relevance, xy, has_cell, words, has_word)))


def cell_centres(rows: int, columns: int) -> Float32[np.ndarray, "n 2"]:
    """(x, y) of every cell's centre in [0, 1] of the image, in reading order."""
    y, x = np.indices((rows, columns), dtype=np.float32).reshape(2, -1)
    return np.stack([(x + 0.5) / columns, (y + 0.5) / rows], 1)


def answers(sets: PointSets, sizes: Sequence[tuple[int, int]]) -> list[list[PointSet]]:
    """For each pair its sets of points in original pixels, the surest first.

    sizes: (height, width) of the original images. A set's confidence is its share among the pair's sets, in
    [0, 1]. Ignored points are left out, and so are sets without a positive one: a pair may have no set.
    """
    shares = sets.confidence.softmax(-1).detach().float().cpu().numpy()
    where, what = sets.xy.detach().float().cpu().numpy(), sets.classes.argmax(-1).cpu().numpy()
    found: list[list[PointSet]] = []
    for pair, size in enumerate(sizes):
        order = np.argsort(-shares[pair], kind="stable")
        found.append(
            [
                _points(to_pixels(where[pair, s], size), what[pair, s], float(shares[pair, s]))
                for s in order
                if (what[pair, s] == POSITIVE).any()
            ]
        )
    return found


def _points(xy: np.ndarray, classes: np.ndarray, share: float) -> PointSet:
    said = classes != IGNORED
    labels = np.where(classes[said] == POSITIVE, 1, 0).astype(np.int8)
    return PointSet(xy[said], labels, min(1.0, share), ("generator",))


def to_pixels(xy: Float32[np.ndarray, "n 2"], size: tuple[int, int]) -> Float32[np.ndarray, "n 2"]:
    """Places in [0, 1] of an image of (height, width) -> pixels, whose centres lie at integers."""
    return grid_to_pixels(xy.astype(np.float64) - 0.5, (1, 1), size)


def from_pixels(xy: Float32[np.ndarray, "n 2"], size: tuple[int, int]) -> Float32[np.ndarray, "n 2"]:
    """The inverse of `to_pixels`, within the image."""
    return pixels_to_grid(xy.astype(np.float64), (1, 1), size) + np.float32(0.5)
