"""What the stages of a run have to compute, counted, and how long that takes at the rate of this machine."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pipelines.s5_segmenter import design
from ppt.backbones.clip import Reading, staged, untrained_clip
from ppt.backbones.cost import LENGTH, clip_cost, counted, sam_cost
from ppt.config import Config
from ppt.points.generator import PointGenerator
from ppt.points.scene import Scene
from ppt.segmenter.drawing import CLICKS
from ppt.segmenter.model import Segmenter
from ppt.types import Pair

HEIGHT, WIDTH = 480, 640
"""Pixels of the image that is counted: the most common size of COCO's."""


@dataclass(frozen=True)
class Costs:
    """operations: by stage; steps: of them, those of trainings, which workers do not share. cells: of an
    image's dense features; features: bytes of them that stage 1 keeps. pictures: the images and the mirror
    images of them that SAM sees; looks: how often it sees one, in all stages; embedding: bytes that it takes
    to keep what it saw of one; seeing: operations of one look.
    """

    operations: dict[str, float]
    steps: float
    cells: int
    features: int
    pictures: int
    looks: int
    embedding: int
    seeing: float


def count(config: Config, pairs: Sequence[Pair]) -> Costs:
    """What a whole run over the pairs computes. Raises WeightsError for models that are not known."""
    reading = Reading(config.relevance.method, config.relevance.scales, config.relevance.mirror)
    clip = clip_cost(config.clip.model, config.clip.size, config.clip.max_long, reading, HEIGHT, WIDTH)
    sam = sam_cost(config.sam.model)
    images, texts = len({pair.image for pair in pairs}), len({pair.text for pair in pairs})
    generated = config.points.method == "generator"
    sets = config.points.sets if generated else 1
    found = {
        "relevance": images * clip.image + texts * clip.sentence,
        "masks": images * sam.embed + len(pairs) * sets * sam.prompt,
    }
    if asked := config.views.ask:
        found["views"] = len(asked) * texts * clip.sentence
        scales = {"mirrored": 1.0, "smaller": config.views.scale}
        for scale in (scales[view] for view in asked if view in scales):
            again = reading.at(scale)
            more = clip_cost(config.clip.model, config.clip.size, config.clip.max_long, again, HEIGHT, WIDTH)
            found["views"] += images * more.image
    pictures = looks = images
    steps = 0.0
    if generated:
        how = config.generator
        teaching = [pair for pair in pairs if pair.split in how.splits]
        alone = {pair.image for pair in teaching if pair.source == "object_centric"}
        others = [pair for pair in teaching if pair.source == "referring"]
        rounds = how.refreshes if "referring" in how.sources else 0
        views = 2 if how.steadiness else 1
        shown = {pair.image for pair in others} if rounds else set[str]()
        seen = views * (len(alone) + rounds * len(shown))
        asked = views * (len(alone) + rounds * len(others) * how.sets)
        mosaics = how.mosaics if "mosaic" in how.sources else 0
        side = how.mosaic_side
        mosaic = clip_cost(config.clip.model, config.clip.size, config.clip.max_long, reading, side, side)
        through = round(mosaics * how.through_sam)
        taught = how.steps * (how.batch + how.readings) * _of_generator(config, clip.dimension, clip.cells)
        steps += taught
        found["points"] = (
            (seen + through) * sam.embed
            + (asked + through * how.sets * how.points) * sam.prompt
            + mosaics * mosaic.image
            + taught
        )
        looks += seen
        pictures += (views - 1) * len(alone | shown)
    if config.with_segmenter:
        how = config.segmenter
        forward, both = _of_segmenter(config)
        found["segmenter"] = how.steps * how.accumulate * how.batch * both
        steps += found["segmenter"]
        found["predictions"] = len(pairs) * forward
        if how.decoder == "point":
            looks += images
            found["predictions"] += images * sam.embed + len(pairs) * (how.things + CLICKS) * sam.prompt
    kept = 2 * clip.cells * clip.dimension, pictures, looks, 4 * sam.embedding
    return Costs(found, steps, clip.cells, *kept, sam.embed)


def _of_generator(config: Config, dimension: int, cells: int) -> float:
    """Operations of a sentence in a step of the point generator's training."""
    how, side = config.generator, max(1, round(cells**0.5))
    network = PointGenerator(
        dimension, how.width, how.sets, how.points, how.layers, ignore=how.ignore, judges=how.judges
    )
    scene = Scene(
        torch.randn(1, side, side, dimension),
        torch.rand(1, side, side),
        torch.rand(1, side, side, 2),
        torch.ones(1, side, side, dtype=torch.bool),
        torch.randn(1, LENGTH - 2, dimension),
        torch.ones(1, LENGTH - 2, dtype=torch.bool),
    )
    return counted(lambda: network(scene).shapes.sum().backward())


def _of_segmenter(config: Config) -> tuple[float, float]:
    """Operations of the segmenter that the config describes, for a sentence in use, and in training."""
    how = config.segmenter
    with torch.random.fork_rng(devices=[]):
        segmenter = Segmenter(staged(untrained_clip(config.clip.model)), design(config))
        pixels = torch.randn(1, 3, how.size, how.size)
    tokens = torch.zeros(1, LENGTH, dtype=torch.long)
    tokens[0, -1] = 1  # the end has the highest number
    with torch.inference_mode():
        forward = counted(lambda: segmenter.eval()(pixels, tokens))
    return forward, counted(lambda: segmenter.train()(pixels, tokens).logits.sum().backward())
