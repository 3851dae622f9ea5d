"""What a batch is drawn from: the lessons of one source, and the features they are about.

Features are read from the store, a few shards at a time: memory does not grow with the data. Which shards,
and which rows of them, depends on the step alone, so that a training resumes to the bit.
"""

from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from pipelines.asking import read_example
from ppt.backbones.sam import ImageEmbedding
from ppt.points.lessons import Lesson
from ppt.points.scene import Example
from ppt.points.through_sam import ThroughSam
from ppt.seeding import generator
from ppt.store import Artifact

ACTIVE = 4
"""Shards that batches are drawn from at a time."""
WINDOW = 25
"""Steps after which other shards come."""


@dataclass(frozen=True, eq=False)
class Taught:
    """What is drawn: the sentence's id, an example, its lesson, and what SAM made of the image where it is
    asked.
    """

    id: str
    example: Example
    lesson: Lesson
    through: ThroughSam | None = None


class LessonSource:
    """The lessons of one source. features: the artifact with their tensors, under the same shard keys."""

    def __init__(self, name: str, lessons: Artifact, features: Artifact, seed: int) -> None:
        self.name, self._lessons, self._features, self._seed = name, lessons, features, seed
        rows = [
            (number, key, place, row["kind"], row["confidence"])
            for number, key in enumerate(sorted(lessons.keys))
            for place, row in enumerate(lessons.rows(key))
        ]
        self.confidence = np.array([confidence for *_, confidence in rows])
        self._places = [(key, place) for _, key, place, *_ in rows]
        self._shards = np.array([number for number, *_ in rows], np.int64)
        self._kinds = np.array([kind for *_, kind, _ in rows], object)
        self._shard = lru_cache(maxsize=2 * ACTIVE)(self._read)

    def __len__(self) -> int:
        return len(self._places)

    def draw(self, step: int, count: int, admitted: np.ndarray) -> list[Taught]:
        """`count` lessons for a step, of those where `admitted` (n,) bool holds; none where it never does.

        All kinds of sentences come alike often.
        """
        open_to = np.flatnonzero(admitted)
        shards = np.unique(self._shards[open_to])
        if not len(shards):
            return []
        window = generator(self._seed, "points/window", f"{self.name}/{step // WINDOW}")
        active = shards[window.permutation(len(shards))[:ACTIVE]]
        near = np.concatenate([open_to[self._shards[open_to] == shard] for shard in active])
        by_kind = [near[self._kinds[near] == kind] for kind in sorted(set(self._kinds[near]))]
        rng = generator(self._seed, "points/draw", f"{self.name}/{step}")
        drawn: list[int] = []
        for _ in range(count):
            own = by_kind[int(rng.integers(len(by_kind)))]
            drawn.append(int(own[int(rng.integers(len(own)))]))
        return [self._taught(*self._places[index]) for index in drawn]

    def _read(self, key: str) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
        return list(self._lessons.rows(key)), self._features.tensors(key) | self._lessons.tensors(key)

    def _taught(self, key: str, place: int) -> Taught:
        rows, tensors = self._shard(key)
        row = rows[place]
        example = read_example(tensors, row["features"], row["id"], (row["height"], row["width"]))
        lesson = Lesson.from_row(row, tensors[f"covers/{row['covers']}"])
        return Taught(row["id"], example, lesson, _through(row, tensors))


def _through(row: dict[str, Any], tensors: dict[str, np.ndarray]) -> ThroughSam | None:
    if "sam_input" not in row:
        return None
    features = torch.from_numpy(tensors[f"sam/{row['features']}"].astype(np.float32))[None]
    high, wide = row["sam_input"]
    embedding = ImageEmbedding(features, (high, wide), (row["height"], row["width"]))
    return ThroughSam(embedding, torch.from_numpy(tensors[f"masks/{row['features']}"]))


@dataclass(frozen=True, eq=False)
class Read:
    """What the judge alone is taught: the reading of a sentence as it is stored, its words, which of them
    name things, and which thing it means.
    """

    reading: np.ndarray
    words: list[np.ndarray]
    names: np.ndarray
    meant: int


class ReadingSource:
    """The readings of the mosaics that compare things. All are kept in memory: without the words, which are
    kept once, one has a kilobyte.
    """

    def __init__(self, mosaics: Artifact, seed: int) -> None:
        self._seed = seed
        self._by_kind: dict[str, list[Read]] = defaultdict(list)
        vectors: dict[bytes, np.ndarray] = {}
        for key in mosaics.keys:
            tensors = mosaics.tensors(key)
            for row in mosaics.rows(key):
                reading = tensors[f"reading/{row['id']}"]
                if len(reading) > 1:
                    stored = tensors[f"words/{row['id']}"]
                    words = [vectors.setdefault(word.tobytes(), word.astype(np.float32)) for word in stored]
                    names = np.array(row["names"], bool)
                    self._by_kind[row["kind"]].append(Read(reading.copy(), words, names, row["meant"]))

    def draw(self, step: int, count: int) -> list[Read]:
        """`count` readings for a step; none where there are none. All kinds of sentences come alike often."""
        rng, kinds = generator(self._seed, "points/read", f"mosaic/{step}"), sorted(self._by_kind)
        drawn = [self._by_kind[kinds[int(rng.integers(len(kinds)))]] for _ in range(count if kinds else 0)]
        return [own[int(rng.integers(len(own)))] for own in drawn]
