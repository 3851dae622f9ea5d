"""Sentences of one image -> their sets of points, the configured way: from maps, or by the generator."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ppt.config import PointsConfig
from ppt.points import from_maps
from ppt.points.examples import Example, answers, collate
from ppt.points.generator import PointGenerator
from ppt.types import PointSet, RelevanceMap


@dataclass(frozen=True)
class Prompter:
    """The configured way to points. generator: trained, in evaluation mode; None for ways without."""

    config: PointsConfig
    generator: PointGenerator | None = None

    def __call__(self, examples: Sequence[Example]) -> list[list[PointSet]]:
        """At least one set for each sentence of an image, the surest first; empty without evidence."""
        if self.generator is None:
            return [[from_map(example.relevance, self.config)] for example in examples]
        with torch.inference_mode():
            found = self.generator(collate(examples))
        sizes = [(e.relevance.height, e.relevance.width) for e in examples]
        return [
            self._asked(example, sets) for example, sets in zip(examples, answers(found, sizes), strict=True)
        ]

    def _asked(self, example: Example, sets: list[PointSet]) -> list[PointSet]:
        if example.relevance.normalised() is None:
            return [from_maps.no_points()]
        return sets[: self.config.sets] or [from_maps.no_points("no_positive_point")]


def from_map(relevance: RelevanceMap, config: PointsConfig) -> PointSet:
    """The points of one of the ways without training: config.method is "peak", "surgery" or "read"."""
    match config.method:
        case "peak":
            return from_maps.peak_points(relevance)
        case "surgery":
            return from_maps.surgery_points(relevance, config.surgery_threshold)
        case "read":
            return from_maps.read_points(
                relevance, config.read_positive, config.read_negative, config.read_points
            )
        case "generator":
            raise ValueError("points from a map: the generator reads more than a map")
