"""What a step of the segmenter's training is taught: pseudo-labels, and mosaics of those of one thing."""

import functools
import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float

from pipelines import stage
from pipelines.exits import tell
from pipelines.pieces import StoredPieces
from ppt.backbones.clip_towers import StagedModel
from ppt.config import Config
from ppt.mosaics import sample_mosaic
from ppt.places import Place
from ppt.records import images
from ppt.rle import decode
from ppt.seeding import generator
from ppt.segmenter.decoders import ENLARGED
from ppt.segmenter.frames import Frame
from ppt.segmenter.learner import Lessons
from ppt.store import Artifact
from ppt.types import PseudoLabel, Record

KEPT = 512
"""Images kept in memory, as they are read."""
PIECES = 0.8
"""Of the labels of one thing, the share with the highest weights, that mosaics are made of."""


@dataclass(frozen=True)
class Taught:
    """An image, and its labels that teach. alone: whether it is known to show one thing."""

    sha256: str
    labels: tuple[PseudoLabel, ...]
    alone: bool


@dataclass(frozen=True, eq=False)
class Lesson:
    """A sentence, the masks that are known of its image, in its own pixels, which of them is meant, how far
    that is believed, and the image's number and framed pixels.
    """

    number: int
    pixels: Float[torch.Tensor, "3 s s"]
    text: str
    things: tuple[Bool[np.ndarray, "h w"], ...]
    meant: int
    believed: float


def taught(config: Config, records: Artifact, labels: Artifact) -> list[Taught]:
    """The images that teach, in the order of the records. Raises ValueError where none does."""
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
    return [
        Taught(sha256, tuple(own), all(of[label.id].pair.source == "object_centric" for label in own))
        for sha256, own in grouped.items()
    ]


def held_out(taught: Sequence[Taught], share: float) -> tuple[list[Taught], list[Taught]]:
    """(those that teach, those held out), by what the images hold: about `share` of them are held out."""
    sides: tuple[list[Taught], list[Taught]] = [], []
    for image in taught:
        sides[int(image.sha256[:8], 16) < share * 16**8].append(image)
    return sides


class Pseudo:
    """The lessons of every step, from some images' pseudo-labels; an image is read when it is drawn."""

    def __init__(self, config: Config, output: Place, clip: StagedModel, taught: Sequence[Taught]) -> None:
        self.clip, self.taught, self._config, self._output = clip, taught, config, output
        self._pixels = functools.lru_cache(maxsize=KEPT)(self._read)
        self._things = functools.lru_cache(maxsize=1)(self._decoded)  # lessons of one image come together
        self._lost: set[int] = set()
        alone = [number for number, image in enumerate(taught) if image.alone]
        alone.sort(key=lambda number: (-taught[number].labels[0].weight, number))
        self._alone = alone[: round(PIECES * len(alone))]
        self._pieces = self._cut()
        self._first = len(taught)  # number of the first mosaic

    @property
    def makes_mosaics(self) -> bool:
        """Whether there are labels enough of images of one thing."""
        return len(self._pieces) > 1

    def drawn(self, step: int) -> Lessons:
        """The batch of a step: `segmenter.mosaics` of it from mosaics, new ones or some of
        `segmenter.mosaic_images`, the rest from images, all at random; of each up to `segmenter.together`
        sentences.
        """
        return self.lessons(self._chosen(step))

    def named(self, step: int) -> list[str]:
        """What `drawn` holds, for people: image and sentence of each, or a mosaic and the sentence."""
        chosen = self._chosen(step)
        images = [
            self.taught[one.number].labels[0].image if 0 <= one.number < len(self.taught) else "a mosaic"
            for one in chosen
        ]
        return [f"{image}: {one.text}" for image, one in zip(images, chosen, strict=True)]

    def _chosen(self, step: int) -> list[Lesson]:
        settings = self._config.segmenter
        rng = generator(settings.seed, "segmenter/batch", str(step))
        of_mosaics = self._mosaics(rng, round(settings.mosaics * settings.batch))
        return [*of_mosaics, *self._labels(rng, settings.batch - len(of_mosaics))]

    def _labels(self, rng: np.random.Generator, wanted: int) -> list[Lesson]:
        found: list[Lesson] = []
        while len(found) < wanted:
            number = int(rng.integers(len(self.taught)))
            own = self.taught[number].labels
            count = min(self._config.segmenter.together, wanted - len(found))
            if len(self._lost) == len(self.taught):
                raise images.ImageError("missing", "segmenter: no image that may teach can be read any more")
            if self.is_there(number):
                found += [self.lesson(number, int(i)) for i in rng.permutation(len(own))[:count]]
        return found

    def _mosaics(self, rng: np.random.Generator, wanted: int) -> list[Lesson]:
        settings, found = self._config.segmenter, list[Lesson]()
        while len(found) < wanted and self.makes_mosaics:
            making, number = rng, -1 - len(found)  # never seen again
            if settings.mosaic_images:
                which = int(rng.integers(settings.mosaic_images))
                making = generator(settings.seed, "segmenter/mosaic", str(which))
                number = self._first + which
            try:
                mosaic, said = sample_mosaic(making, self._pieces, settings.size)
            except images.ImageError:
                self._alone = [number for number in self._alone if self.is_there(number)]
                self._pieces = self._cut()
                self._first += settings.mosaic_images  # from fewer pieces they are others
                continue
            pixels = self.clip.framed(mosaic.image, settings.size)
            count = min(settings.together, wanted - len(found))
            found += [
                Lesson(number, pixels, one.text, mosaic.masks, one.target, 1.0)
                for one in (said[i] for i in rng.permutation(len(said))[:count])
            ]
        return found

    def all(self, most: int) -> Iterator[Lesson]:
        """The labels one by one, in order, as far as their images can be read."""
        numbered = ((number, i) for number, image in enumerate(self.taught) for i in range(len(image.labels)))
        for number, i in itertools.islice(numbered, most):
            if self.is_there(number):
                yield self.lesson(number, i)

    def is_there(self, number: int) -> bool:
        """Whether the image can still be read; says so once where not."""
        if number in self._lost:
            return False
        try:
            self._pixels(number)
        except images.ImageError as error:
            self._lost.add(number)
            name = self.taught[number].labels[0].image
            tell(f"segmenter: {name} teaches no more: {error}", err=True)
            return False
        return True

    def lesson(self, number: int, meant: int) -> Lesson:
        """A label, by its place, of the image of that number."""
        labels, things = self.taught[number].labels, self._things(number)
        return Lesson(number, self._pixels(number), labels[meant].text, things, meant, labels[meant].weight)

    def lessons(self, chosen: Sequence[Lesson]) -> Lessons:
        """Some lessons as a batch."""
        side = self._config.segmenter.size
        grid = side // self.clip.stride * ENLARGED
        of_image = {lesson.number: lesson for lesson in chosen}
        places = {number: place for place, number in enumerate(of_image)}
        image = torch.tensor([places[lesson.number] for lesson in chosen])
        meant = torch.tensor([lesson.meant for lesson in chosen])
        most = max(len(lesson.things) for lesson in chosen)
        things = torch.zeros(len(of_image), most, grid, grid)
        there = torch.zeros(len(of_image), 1, grid, grid)
        for place, lesson in enumerate(of_image.values()):
            frame = Frame(side, *lesson.things[0].shape)
            covered = [frame.covered(thing, grid) for thing in lesson.things]
            things[place, : len(covered)] = torch.from_numpy(np.stack(covered))
            there[place, 0] = torch.from_numpy(frame.there(grid))
        return Lessons(
            torch.stack([lesson.pixels for lesson in of_image.values()]),
            self.clip.tokens([lesson.text for lesson in chosen]),
            things[image, meant][:, None],
            there[image],
            torch.tensor([lesson.believed for lesson in chosen]),
            image,
            things,
            meant,
            torch.tensor(list(of_image)),
        )

    def _cut(self) -> StoredPieces:
        rows = [
            {**self.taught[number].labels[0].to_json(), "sha256": self.taught[number].sha256}
            for number in self._alone
        ]
        return StoredPieces(
            rows, stage.images_root(self._config, self._output), stage.image_policy(self._config)
        )

    def _decoded(self, number: int) -> tuple[Bool[np.ndarray, "h w"], ...]:
        labels = self.taught[number].labels
        return tuple(decode(label.segmentation) for label in labels if label.segmentation is not None)

    def _read(self, number: int) -> torch.Tensor:
        image, sha256 = self.taught[number].labels[0].image, self.taught[number].sha256
        root, policy = stage.images_root(self._config, self._output), stage.image_policy(self._config)
        pixels = images.load(root, image, policy, sha256).pixels
        return self.clip.framed(pixels, self._config.segmenter.size)
