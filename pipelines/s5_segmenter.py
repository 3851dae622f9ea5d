"""Stage 5: the segmenter, trained on the pseudo-labels alone.

    ppt segmenter CONFIG.yaml --output DIR

Reads DIR/records, DIR/labels and the images of the pairs that may teach. Writes DIR/segmenter: what was
learned (`shards/00000.safetensors`, without CLIP's own weights), a preview of it on fixed images, and
`training/` with checkpoint and log. A label teaches by its weight, and not at all where that is 0; an image
that some sentence of another split is about teaches nothing. No truth is read.
"""

import functools
import shutil
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch

from pipelines import stage
from pipelines.doors import open_clip_door
from ppt.backbones.clip import Clip
from ppt.backbones.weights import resolve_device
from ppt.checkpoint import Checkpoints
from ppt.config import Config, ConfigError
from ppt.manifest import Manifest
from ppt.records import images
from ppt.report import preview
from ppt.rle import decode
from ppt.seeding import generator, torch_generator
from ppt.segmenter.decoders import ENLARGED
from ppt.segmenter.frames import Frame
from ppt.segmenter.learner import Learner, Lessons, Weights
from ppt.segmenter.model import Design, Segmenter
from ppt.segmenter.reader import SHARD, Reader, rows_and_tensors
from ppt.store import Artifact, begin
from ppt.training import Plan, train
from ppt.types import PseudoLabel, Record

STAGE = "segmenter"
PREVIEWED = 12
KEPT = 512
"""Images kept in memory, as they are read."""
PLAIN = "a an the of to in on at is are and with that which it its , . ; : ! ?"
"""What says nothing of a picture, and is never hidden from the segmenter to be guessed."""


@dataclass(frozen=True)
class Taught:
    """An image, and its labels that teach."""

    sha256: str
    labels: tuple[PseudoLabel, ...]


def run(config: Config, output: Path, fresh: bool = False) -> stage.Summary:
    """Make DIR/segmenter complete. Raises ConfigError, StaleArtifact, WeightsError, DivergenceError,
    ValueError where no label teaches, and the errors of what it reads.
    """
    clip, size = open_clip_door(config), config.segmenter.size
    if size % clip.stride:
        raise ConfigError(f"segmenter.size: {clip.stride} pixels are a cell of this CLIP (got {size})")
    records, labels = Artifact.open(output / "records"), Artifact.open(output / "labels")
    manifest = Manifest(
        STAGE,
        schema_version=1,
        config=config.sections("clip", "segmenter"),
        inputs={"records": records.fingerprint, "labels": labels.fingerprint},
        weights={"clip": clip.weights_sha256},
        seed=config.seed,
    )
    with begin(output / STAGE, manifest, {SHARD: ["segmenter"]}, fresh) as writer:
        folder = output / STAGE / "training"
        for shard in writer.missing:
            if fresh and folder.exists():
                shutil.rmtree(folder)
            lessons = Pseudo(config, output, clip, taught(config, records, labels))
            segmenter = _train(config, lessons, folder, manifest.fingerprint)
            _preview(folder.parent, Reader(clip, segmenter, size), config, output, lessons)
            shard.write(*rows_and_tensors(segmenter, size))
        return stage.summary(writer.finish(), made=len(writer.missing))


def taught(config: Config, records: Artifact, labels: Artifact) -> list[Taught]:
    """The images that teach, in the order of the records."""
    held = stage.held_out(records, config.segmenter.splits)
    of = {record.pair.id: record for record in map(Record.from_json, records.rows())}
    grouped: dict[str, list[PseudoLabel]] = defaultdict(list)
    for row in labels.rows():
        label = PseudoLabel.from_json(row)
        if label.weight > 0 and of[label.id].sha256 not in held:
            grouped[of[label.id].sha256].append(label)
    if not grouped:
        raise ValueError(
            "segmenter: nothing to learn from: no label of splits "
            f"{list(config.segmenter.splits)} has a weight above 0; look at DIR/labels"
        )
    return [Taught(sha256, tuple(own)) for sha256, own in grouped.items()]


class Pseudo:
    """The pseudo-labels of some images as lessons; an image is read when it is drawn."""

    def __init__(self, config: Config, output: Path, clip: Clip, taught: Sequence[Taught]) -> None:
        self.clip, self.taught, self._config, self._output = clip, taught, config, output
        self._pixels = functools.lru_cache(maxsize=KEPT)(self._read)
        self._lost: set[int] = set()

    def drawn(self, step: int) -> Lessons:
        """The batch of a step: images at random, of each up to `segmenter.together` sentences."""
        settings = self._config.segmenter
        rng = generator(settings.seed, "segmenter/batch", str(step))
        chosen: list[tuple[int, PseudoLabel]] = []
        while len(chosen) < settings.batch:
            number = int(rng.integers(len(self.taught)))
            own = self.taught[number].labels
            count = min(settings.together, settings.batch - len(chosen))
            if self.is_there(number):
                chosen += [(number, own[i]) for i in rng.permutation(len(own))[:count]]
        return self.lessons(chosen)

    def is_there(self, number: int) -> bool:
        """Whether the image can still be read; says so once where not. Raises ImageError where none can."""
        if number in self._lost:
            return False
        try:
            self._pixels(number)
        except images.ImageError as error:
            self._lost.add(number)
            if len(self._lost) == len(self.taught):
                raise
            name = self.taught[number].labels[0].image
            print(f"segmenter: {name} teaches no more: {error}", file=sys.stderr)
            return False
        return True

    def lessons(self, chosen: Sequence[tuple[int, PseudoLabel]]) -> Lessons:
        """(number of the image, label) each -> what the segmenter is taught."""
        side = self._config.segmenter.size
        grid = side // self.clip.stride * ENLARGED
        covered, there = [], []
        for _, label in chosen:
            assert label.segmentation is not None
            frame = Frame(side, label.segmentation.height, label.segmentation.width)
            covered.append(frame.covered(decode(label.segmentation), grid))
            there.append(frame.there(grid))
        return Lessons(
            torch.stack([self._pixels(number) for number, _ in chosen]),
            self.clip.tokens([label.text for _, label in chosen]),
            torch.from_numpy(np.stack(covered))[:, None],
            torch.from_numpy(np.stack(there))[:, None],
            torch.tensor([label.weight for _, label in chosen]),
            torch.tensor([number for number, _ in chosen]),
        )

    def _read(self, number: int) -> torch.Tensor:
        image, sha256 = self.taught[number].labels[0].image, self.taught[number].sha256
        root, policy = stage.images_root(self._config, self._output), stage.image_policy(self._config)
        pixels = images.load(root, image, policy, sha256).pixels
        return self.clip.framed(pixels, self._config.segmenter.size)


def design(config: Config) -> Design:
    """The parts that the `segmenter` section names."""
    settings = config.segmenter.model_dump()
    return Design(**{field.name: settings[field.name] for field in fields(Design)})


def _train(config: Config, lessons: Pseudo, folder: Path, fingerprint: str) -> Segmenter:
    """Train to the end, resuming where it stopped; the averaged weights, in evaluation mode."""
    settings = config.segmenter
    folder.mkdir(parents=True, exist_ok=True)
    clip, device = lessons.clip, resolve_device(config.device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_generator(settings.seed, "segmenter", "network").initial_seed())
        plain = frozenset(clip.tokens([PLAIN])[0].tolist())
        learner = Learner(
            Segmenter(clip.towers(), design(config)), Weights(**settings.losses.model_dump()), plain
        ).to(device)

    def losses_of(step: int) -> dict[str, torch.Tensor]:
        rng = torch_generator(settings.seed, "segmenter/step", str(step))
        return learner(lessons.drawn(step).to(device), rng)

    plan = Plan(settings.steps, settings.rate, save_every=settings.save_every)
    state = train(learner, losses_of, plan, Checkpoints(folder, fingerprint), folder / "log.jsonl")
    learner.load_state_dict(state)
    return learner.segmenter.eval().requires_grad_(False)


def _preview(folder: Path, reader: Reader, config: Config, output: Path, lessons: Pseudo) -> None:
    """preview.png: what it makes of the first images that taught it."""
    tiles, captions = [], []
    for image in lessons.taught[:PREVIEWED]:
        label = image.labels[0]
        pixels = stage.picture(config, output, label.image, image.sha256)
        if pixels is not None:
            (found,) = reader(pixels, [label.text])
            tiles.append(preview.overlay_mask(pixels, found.mask))
            captions.append(label.text)
    stage.leave_preview(folder, tiles, captions)
