"""What a batch is drawn from: the lessons of one source, and the features they are about.

Features are read from the store, a few shards at a time: memory does not grow with the data. Which shards,
and which rows of them, depends on the step alone, so that a training resumes to the bit.
"""

import functools
from collections import defaultdict
from dataclasses import dataclass
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


@dataclass(frozen=True)
class _Known:
    """What is kept of a lesson in memory: its shard, its place there, its kind, how far it is believed."""

    key: str
    place: int
    kind: str
    confidence: float


@dataclass(frozen=True, eq=False)
class Taught:
    """What is drawn: an example, its lesson, which of its words name things where that is known, and what SAM
    made of the image where the mask loss uses it.
    """

    example: Example
    lesson: Lesson
    names: np.ndarray
    through: ThroughSam | None = None


class LessonSource:
    """The lessons of one source. features: the artifact with their tensors, under the same shard keys."""

    def __init__(self, name: str, lessons: Artifact, features: Artifact, seed: int) -> None:
        self.name, self._lessons, self._features, self._seed = name, lessons, features, seed
        self._known = [
            _Known(key, place, row["kind"], row["confidence"])
            for key in lessons.keys
            for place, row in enumerate(lessons.rows(key))
        ]
        self.confidence = np.array([known.confidence for known in self._known])
        self._shard = functools.lru_cache(maxsize=2 * ACTIVE)(self._read)

    def __len__(self) -> int:
        return len(self._known)

    def draw(self, step: int, count: int, admitted: np.ndarray) -> list[Taught]:
        """`count` lessons for a step, of those where `admitted` (n,) bool holds; none where it never does.

        All kinds of sentences come alike often.
        """
        by_shard: dict[str, list[_Known]] = defaultdict(list)
        for index in np.flatnonzero(admitted):
            by_shard[self._known[index].key].append(self._known[index])
        keys = sorted(by_shard)
        if not keys:
            return []
        window = generator(self._seed, "points/window", f"{self.name}/{step // WINDOW}")
        active = [keys[i] for i in window.permutation(len(keys))[:ACTIVE]]
        by_kind: dict[str, list[_Known]] = defaultdict(list)
        for known in (known for key in active for known in by_shard[key]):
            by_kind[known.kind].append(known)
        kinds = sorted(by_kind)
        rng = generator(self._seed, "points/draw", f"{self.name}/{step}")
        drawn: list[_Known] = []
        for _ in range(count):
            own = by_kind[kinds[int(rng.integers(len(kinds)))]]
            drawn.append(own[int(rng.integers(len(own)))])
        return [self._taught(known) for known in drawn]

    def _read(self, key: str) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
        return list(self._lessons.rows(key)), self._features.tensors(key) | self._lessons.tensors(key)

    def _taught(self, known: _Known) -> Taught:
        rows, tensors = self._shard(known.key)
        row = rows[known.place]
        example = read_example(tensors, row["features"], row["id"], (row["height"], row["width"]))
        lesson = Lesson.from_row(row, tensors[f"covers/{row['covers']}"])
        names = np.array(row.get("names", [False] * len(example.words)), bool)
        return Taught(example, lesson, names, _through(row, tensors))


def _through(row: dict[str, Any], tensors: dict[str, np.ndarray]) -> ThroughSam | None:
    if "sam_input" not in row:
        return None
    features = torch.from_numpy(tensors[f"sam/{row['features']}"].astype(np.float32))[None]
    high, wide = row["sam_input"]
    embedding = ImageEmbedding(features, (high, wide), (row["height"], row["width"]))
    return ThroughSam(embedding, torch.from_numpy(tensors[f"masks/{row['features']}"]))
