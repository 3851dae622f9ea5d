"""Who is faster: everyone in turn, several rounds, so that what slows the machine down slows all of them. And
where the time goes.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any, TypeVar

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


@contextmanager
def clocked(clock: dict[str, float], timed: Mapping[str, tuple[Any, str]]) -> Iterator[None]:
    """Add to `clock` the seconds that functions take. timed: by name, where each is looked up."""
    before = {name: getattr(*where) for name, where in timed.items()}

    def timing(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                clock[name] = clock.get(name, 0.0) + time.perf_counter() - began

        return run

    for name, (owner, attribute) in timed.items():
        setattr(owner, attribute, timing(name, before[name]))
    try:
        yield
    finally:
        for name, (owner, attribute) in timed.items():
            setattr(owner, attribute, before[name])
