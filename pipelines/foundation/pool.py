"""A pool of composed scenes that one background process keeps fresh while a training draws from it."""

import multiprocessing as mp
import os
from collections.abc import Callable
from typing import Any

import numpy as np

Sample = dict[str, Any]


def _fill(make: Callable[[int], Sample], first_seed: int, queue: "mp.Queue[Sample]") -> None:
    import cv2

    cv2.setNumThreads(1)
    os.nice(3)
    seed = first_seed
    while True:
        queue.put(make(seed))
        seed += 1


class ScenePool:
    """Up to `capacity` samples, each drawn about `reuse` times before a new one takes its place.

    `make(seed)` builds one sample and must be picklable; seeds count up from `first_seed`.
    """

    def __init__(self, make: Callable[[int], Sample], first_seed: int, capacity: int, reuse: int) -> None:
        context = mp.get_context("spawn")
        self._queue: mp.Queue[Sample] = context.Queue(maxsize=512)
        self._worker = context.Process(target=_fill, args=(make, first_seed, self._queue), daemon=True)
        self._worker.start()
        self._samples: list[Sample] = []
        self._capacity, self._reuse, self._next = capacity, reuse, 0

    def draw(self, rng: np.random.Generator, count: int, at_least: int = 600) -> list[Sample]:
        """`count` samples at random; new ones are taken in first (waits only while fewer than `at_least` are
        there).
        """
        wanted = max(at_least - len(self._samples), count // self._reuse + 1)
        while wanted > 0 and (len(self._samples) < at_least or not self._queue.empty()):
            sample = self._queue.get()
            if len(self._samples) < self._capacity:
                self._samples.append(sample)
            else:
                self._samples[self._next] = sample
                self._next = (self._next + 1) % self._capacity
            wanted -= 1
        return [self._samples[i] for i in rng.integers(0, len(self._samples), count)]
