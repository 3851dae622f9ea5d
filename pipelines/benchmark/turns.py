"""Who is faster: everyone in turn, several rounds, so that what slows the machine down slows all of them."""

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import TypeVar

R = TypeVar("R")
Seconds = dict[str, list[float]]
"""Of each contestant in each round."""


def in_turns(contestants: Mapping[str, Callable[[], R]], rounds: int) -> tuple[Seconds, dict[str, R]]:
    """How long each takes in each round, and what it gave in the last."""
    seconds: Seconds = {name: [] for name in contestants}
    given: dict[str, R] = {}
    for _ in range(rounds):
        for name, work in contestants.items():
            began = time.perf_counter()
            given[name] = work()
            seconds[name].append(time.perf_counter() - began)
    return seconds, given


def ratio(slower: Sequence[float], faster: Sequence[float]) -> float:
    """How many times faster: the median over the rounds."""
    return median(a / b for a, b in zip(slower, faster, strict=True))
