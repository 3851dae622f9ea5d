"""What the generator says, in the words of the rest of the program: points in pixels, shapes as maps."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float32
from torch import Tensor

from ppt.geometry import grid_to_pixels, pixels_to_grid
from ppt.points.generator import IGNORED, POSITIVE, PointSets
from ppt.points.scene import Example
from ppt.prompting import Prompt
from ppt.types import PointSet, RelevanceMap


def answers(
    sets: PointSets, confidence: Float[Tensor, "b s"], examples: Sequence[Example]
) -> list[list[Prompt]]:
    """For each pair its sets of points in original pixels, each with its soft shape, the surest first.

    confidence: logits of the sets, to be compared; a set's is its share among the pair's, in [0, 1]. Ignored
    points are left out; the anchor, which is positive, stays.
    """
    shares = confidence.softmax(-1).detach().float().cpu().numpy()
    where, what = sets.xy.detach().float().cpu().numpy(), sets.classes.argmax(-1).cpu().numpy()
    shapes = sets.shapes.detach().float().sigmoid().cpu().numpy()
    across = max(example.relevance.values.shape[1] for example in examples)  # padding lies right and below
    found: list[list[Prompt]] = []
    for pair, example in enumerate(examples):
        size = example.relevance.height, example.relevance.width
        rows, columns = example.relevance.values.shape
        order = np.argsort(-shares[pair], kind="stable")
        prompts: list[Prompt] = []
        for s in order:
            points = _points(to_pixels(where[pair, s], size), what[pair, s], float(shares[pair, s]))
            shape = shapes[pair, s].reshape(-1, across)[:rows, :columns]
            prompts.append(Prompt(points, RelevanceMap(np.ascontiguousarray(shape), *size)))
        found.append(prompts)
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
