"""The generator's training: sources opened by the curriculum, in stretches between rounds of pseudo-masks."""

import functools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from pipelines.s2_points import mosaics, own_pairs
from pipelines.s2_points.sources import LessonSource, ReadingSource, Taught
from pipelines.s2_points.watch import Watch
from pipelines.together import made
from ppt.backbones.clip import Clip
from ppt.backbones.sam import SamModel
from ppt.backbones.weights import resolve_device
from ppt.checkpoint import Checkpoints
from ppt.config import Config
from ppt.curriculum import SOURCES, Curriculum, Source, ordered
from ppt.durable import identity, json_lines, write_atomic
from ppt.peers import Peers
from ppt.places import Place
from ppt.points.generator import PointGenerator
from ppt.points.losses import confidence_loss, point_losses
from ppt.points.prompter import Prompter
from ppt.points.reading import unpacked
from ppt.points.scene import collate, names_mixed
from ppt.points.through_sam import ThroughSam, led_through, sam_loss, verdicts
from ppt.seeding import generator, torch_generator
from ppt.settings import GeneratorConfig
from ppt.store import Artifact
from ppt.training import Plan, train

STAGE = own_pairs.STAGE
WEIGHTS = {
    "middle": 1.0,
    "shape": 2.0,
    "distance": 5.0,
    "look": 0.2,
    "classes": 1.0,
    "confidence": 1.0,
    "mask": 0.5,
}
"""Of the losses; distance against classes as in DETR (Carion et al. 2020, section A.4)."""


SHOWN = 60
"""Moments of the training in schedule.json, less one."""
THROUGH_SAM = 1
"""Lessons of a step, at most, whose points are led through SAM."""


@dataclass(frozen=True)
class Workshop:
    """What a training works with. home: where its own artifacts lie, DIR/points in a run. fingerprint: of the
    manifest there; a checkpoint belongs to one. peers: who train it together.
    """

    config: Config
    output: Place
    home: Place
    clip: Clip
    sam: SamModel
    fingerprint: str
    peers: Peers

    @cached_property
    def relevance(self) -> Artifact:
        return Artifact.open(self.output / "relevance")

    @property
    def folder(self) -> Place:
        """Where checkpoint, log and the weights of every round lie."""
        return self.home / "training"


def train_generator(shop: Workshop) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Train to the end, resuming where it stopped; returns the arguments of `PointGenerator` and the averaged
    state.
    """
    settings, peers = shop.config.generator, shop.peers
    shop.folder.mkdir(parents=True, exist_ok=True)
    sources, readings = _first_sources(shop)
    if "referring" in settings.sources:
        sources["referring"] = None  # made when its time comes
    if not sources:
        raise ValueError(
            "points: nothing to learn from: generator.sources names no referring pairs, and no object-centric"
            " pair has a pseudo-mask; add referring to generator.sources, or say points.method: peak"
        )
    curriculum = _curriculum(shop.config, sources)
    sizes = _sizes(shop)
    device = resolve_device(shop.config.device)
    network = _new_network(shop, sizes).to(device)
    plan = Plan(settings.steps, settings.rate, save_every=settings.save_every, accumulate=settings.accumulate)
    checkpoints = Checkpoints(shop.folder, shop.fingerprint)
    watch = Watch(shop.config, shop.output, shop.folder, network) if peers.first else None

    def progress(number: int) -> float:
        return number // (settings.accumulate * peers.count) / settings.steps

    def drawn(number: int) -> list[Taught]:
        return draw(sources, curriculum, progress(number), number, settings.batch, settings.seed)

    def losses_of(number: int) -> dict[str, Tensor]:
        batch = drawn(number)
        scene = collate([one.example for one in batch], device)
        lessons = [one.lesson if settings.negative else one.lesson.positive() for one in batch]
        sets = network(scene)
        asked = led_through(sets, scene, lessons, _through(batch)) if settings.through_sam else []
        by_sam = settings.ignore and settings.through_sam > 0 and readings is not None
        said = verdicts(shop.sam, sets, asked, settings.negative) if by_sam else None
        found = point_losses(sets, scene, lessons, settings.ignore, said)
        losses = {name: getattr(found, name) for name in WEIGHTS if hasattr(found, name)}
        if readings is not None and curriculum.shares(progress(number))["mosaic"] > 0:
            losses["confidence"] = _confidence(network, readings, number, settings)
        if settings.through_sam:
            losses["mask"] = sam_loss(shop.sam, sets, asked)
        return {name: WEIGHTS[name] * loss for name, loss in losses.items()}

    def stretch(until: int | None) -> dict[str, Tensor]:
        log = shop.folder / "log.jsonl"
        named = functools.partial(_named, drawn)
        return train(network, losses_of, plan, checkpoints, log, watch, until, peers=peers, items_of=named)

    known: list[tuple[int, LessonSource]] = []
    for number, step in enumerate(rounds(curriculum, settings.refreshes, settings.steps)):
        path = shop.folder / f"round_{number}.safetensors"
        if step > 0:
            state = stretch(step)  # to there, even where an older checkpoint must do
            if peers.first and not path.exists():
                write_atomic(path, save(state))
            peers.told(None)
        masks = _referring(shop, number, sizes, path if step > 0 else None)
        before = sources["referring"]
        if before is not None and not (masks.confidence > 0).any():
            if peers.first:
                said = f"points: round {number} found no mask; the pseudo-masks before it stay"
                print(said, file=sys.stderr)
        else:
            sources["referring"] = masks
            known.append((step, masks))
    state = stretch(None)
    if peers.first:
        moments = [*schedule(curriculum, known, settings.steps)]
        write_atomic(shop.folder / "schedule.json", json_lines(moments))
    return sizes, state


def _confidence(
    network: PointGenerator, readings: ReadingSource, step: int, settings: GeneratorConfig
) -> Tensor:
    drawn = readings.draw(step, settings.readings)
    if not drawn:
        return network.judge.common.sum() * 0
    reading = unpacked(
        [one.reading for one in drawn], [np.stack(one.words) for one in drawn], network.judge.common.device
    )
    rng = generator(settings.seed, "points/names", str(step))
    reading = replace(reading, words=names_mixed(reading.words, [one.names for one in drawn], rng))
    return confidence_loss(network.judge, reading, [one.meant for one in drawn])


def _named(drawn: Callable[[int], list[Taught]], number: int) -> list[str]:
    return [one.id for one in drawn(number)]


def _through(batch: Sequence[Taught]) -> list[ThroughSam | None]:
    """Of the first THROUGH_SAM that have one; asking SAM is dear."""
    left, found = THROUGH_SAM, list[ThroughSam | None]()
    for one in batch:
        found.append(one.through if left else None)
        left -= found[-1] is not None
    return found


def rounds(curriculum: Curriculum, refreshes: int, steps: int) -> list[int]:
    """The steps before which the referring pairs' pseudo-masks are made: when they open, and evenly after.

    None where the referring pairs are no source.
    """
    opening = next((o.at for o in curriculum.openings if o.source == "referring"), None)
    if opening is None:
        return []
    moments = [opening + (1 - opening) * k / refreshes for k in range(refreshes)]
    return sorted({int(moment * steps) for moment in moments})


def schedule(
    curriculum: Curriculum, referring: Sequence[tuple[int, LessonSource]], steps: int
) -> Iterator[dict[str, Any]]:
    """What was open when: rows {step, shares, admitted, referring}, the last two the referring pairs let in
    and those that there were; with the pseudo-masks of (step from which, source).
    """
    for step in sorted({round(k * (steps - 1) / SHOWN) for k in range(SHOWN + 1)}):
        current = next((source for begun, source in reversed(referring) if begun <= step), None)
        let_in = 0 if current is None else int(curriculum.admitted(step / steps, current.confidence).sum())
        there = 0 if current is None else len(current)
        shares = {name: round(share, 4) for name, share in curriculum.shares(step / steps).items()}
        yield {"step": step, "shares": shares, "admitted": let_in, "referring": there}


def draw(
    sources: dict[Source, LessonSource | None],
    curriculum: Curriculum,
    progress: float,
    step: int,
    count: int,
    seed: int,
) -> list[Taught]:
    """A batch of a step: every source's share of it, in numbers drawn at random."""
    shares = curriculum.shares(progress)
    admitted: dict[Source, np.ndarray] = {}
    for name, source in sources.items():
        if source is not None and shares.get(name, 0) > 0:
            believed = source.confidence > 0
            open_to = curriculum.admitted(progress, source.confidence) if name == "referring" else believed
            if open_to.any():
                admitted[name] = open_to
    if not admitted:
        raise ValueError("points: no pair has a pseudo-mask to learn from; look at DIR/points")
    weights = np.array([shares[name] for name in admitted])
    numbers = generator(seed, "points/batch", str(step)).multinomial(count, weights / weights.sum())
    batch: list[Taught] = []
    for (name, open_to), number in zip(admitted.items(), numbers, strict=True):
        source = sources[name]
        assert source is not None
        batch += source.draw(step, int(number), open_to)
    rng = generator(seed, "points/order", str(step))
    return [batch[i] for i in rng.permutation(len(batch))]


def _first_sources(shop: Workshop) -> tuple[dict[Source, LessonSource | None], ReadingSource | None]:
    """The sources that need no generator, and the mosaics' readings; says what is lost without."""
    config, wanted = shop.config, shop.config.generator.sources
    if not {"object_centric", "mosaic"} & set(wanted):
        return {}, None
    peak = Prompter(config.points.model_copy(update={"method": "peak"}))
    folder = shop.output / STAGE / "object_centric"
    singles = made(
        shop.peers,
        config,
        folder,
        lambda mine: own_pairs.make(mine, shop.output, folder, "object_centric", peak, shop.sam, "peak"),
    )
    if singles is None or not any(row["confidence"] > 0 for row in singles.rows()):
        if shop.peers.first:
            print(
                "points: no object-centric pair has a pseudo-mask, so there are no mosaics either: nothing "
                "teaches places and true negatives; mark such pairs with source object_centric",
                file=sys.stderr,
            )
        return {}, None
    found: dict[Source, LessonSource | None] = {}
    if "object_centric" in wanted:
        found["object_centric"] = LessonSource(
            "object_centric", singles, shop.relevance, config.generator.seed
        )
    if "mosaic" not in wanted:
        return found, None
    several = made(
        shop.peers,
        config,
        shop.output / STAGE / mosaics.NAME,
        lambda mine: mosaics.make(mine, shop.output, singles, shop.clip, shop.sam),
    )
    if several is None:
        return found, None
    found["mosaic"] = LessonSource("mosaic", several, several, config.generator.seed)
    return found, ReadingSource(several, config.generator.seed)


def _curriculum(config: Config, sources: Mapping[Source, LessonSource | None]) -> Curriculum:
    easiest_first: list[Source] = [source for source in SOURCES if source in sources]
    return ordered(config.generator.order, easiest_first)


def _referring(shop: Workshop, number: int, sizes: dict[str, Any], weights: Place | None) -> LessonSource:
    """The referring pairs with pseudo-masks by the generator of that round; by the map's peak before any."""
    points, teacher = shop.config.points, "peak"
    prompter = Prompter(points.model_copy(update={"method": "peak"}))
    if weights is not None:
        network = PointGenerator(**sizes)
        network.load_state_dict(load(weights.read_bytes()))
        prompter = Prompter(points, network.eval().requires_grad_(False))
        teacher = identity(weights.read_bytes())["sha256"]
    folder = shop.home / f"referring_{number}"
    lessons = made(
        shop.peers,
        shop.config,
        folder,
        lambda mine: own_pairs.make(mine, shop.output, folder, "referring", prompter, shop.sam, teacher),
    )
    assert lessons is not None
    return LessonSource("referring", lessons, shop.relevance, shop.config.generator.seed)


def _sizes(shop: Workshop) -> dict[str, Any]:
    settings = shop.config.generator
    words = next(_words(shop))
    return {
        "dimension": words.shape[1],
        "width": settings.width,
        "sets": settings.sets,
        "points": settings.points,
        "layers": settings.layers,
        "ignore": settings.ignore,
        "judges": settings.judges,
    }


def _words(shop: Workshop) -> Iterator[np.ndarray]:
    tensors = shop.relevance.tensors(shop.relevance.keys[0])
    return (tensors[name].astype(np.float32) for name in sorted(tensors) if name.startswith("words/"))


def _new_network(shop: Workshop, sizes: dict[str, Any]) -> PointGenerator:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_generator(shop.config.generator.seed, "points", "network").initial_seed())
        network = PointGenerator(**sizes)
    # What all words have in common says nothing.
    distinct = np.unique(np.concatenate(list(_words(shop))), axis=0)
    network.judge.common.copy_(torch.from_numpy(distinct.mean(0)))
    return network
