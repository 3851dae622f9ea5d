"""Sentences of one image -> their prompts, the configured way: from maps, or by the generator."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32

from ppt.points import from_maps
from ppt.points.examples import answers
from ppt.points.generator import PointGenerator
from ppt.points.scene import Example, collate
from ppt.prompting import Look, Prompt
from ppt.settings import PointsConfig
from ppt.types import PointSet, RelevanceMap


@dataclass(frozen=True)
class Prompter:
    """The configured way to points. generator: trained, in evaluation mode; None for ways without."""

    config: PointsConfig
    generator: PointGenerator | None = None

    def __call__(self, examples: Sequence[Example]) -> list[list[Prompt]]:
        """At least one prompt for each sentence of an image, the surest first; empty without evidence."""
        if self.generator is None:
            return [[Prompt(from_map(e.relevance, self.config), e.relevance)] for e in examples]
        scene = collate(examples, self._device())
        with torch.inference_mode():
            found = self.generator(scene)
            sure = self.generator.confidence(scene, found.shapes.sigmoid())
        return [self._asked(*asked) for asked in zip(examples, answers(found, sure, examples), strict=True)]

    def look(self, examples: Sequence[Example]) -> Look | None:
        """How sure the generator is of things that were found for a sentence of these; None without one."""
        generator = self.generator
        if generator is None:
            return None

        def judged(sentence: int, covers: Float32[np.ndarray, "s gh gw"]) -> list[float]:
            scene = collate([examples[sentence]], self._device())
            things = torch.from_numpy(covers).flatten(1)[None].to(self._device())
            with torch.inference_mode():
                return generator.confidence(scene, things).softmax(-1)[0].tolist()

        return judged

    def _device(self) -> torch.device:
        assert self.generator is not None
        return next(self.generator.parameters()).device

    def _asked(self, example: Example, prompts: list[Prompt]) -> list[Prompt]:
        if example.relevance.normalised() is None:
            return [Prompt(from_maps.no_points(), example.relevance)]
        return prompts[: self.config.sets]


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
