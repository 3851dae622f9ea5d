"""Runs an idempotent shard function over shards: in this process, or on a pool of spawned ones.

The function gets a context (models and the like, made once per process) and one shard, and leaves its
result on disk, so the same bytes come out whatever the number of workers. Another engine needs this one
signature only.
"""

import multiprocessing
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

C = TypeVar("C")
S = TypeVar("S")
R = TypeVar("R")

_ATTEMPTS = 2


class Interrupted(Exception):  # noqa: N818 -- no error: it was asked for
    """The run was asked to stop (SIGINT, SIGTERM) and did; the same command resumes it."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}; the same command resumes")
        self.signum = signum
        self.exit_code = 128 + signum


class EngineError(RuntimeError):
    """Worker processes died; the text names the shards they were on."""


def run_shards(
    function: Callable[[C, S], R],
    shards: Sequence[S],
    make_context: Callable[[], C],
    workers: int = 0,
    on_done: Callable[[S, R], object] = lambda shard, result: None,
) -> None:
    """Call `function(context, shard)` for every shard, and `on_done(shard, result)` here as each is done.

    workers: 0 runs in this process; more spawns that many, and then function, make_context, shards and
    results must pickle. The context is only made where there is a shard to run. The first exception of
    `function` stops the run. Raises Interrupted after a signal, once the shards in progress are done
    (a second one stops at once), EngineError when a shard kills its worker twice.
    """
    if not shards:
        return
    with stop_requests() as stopped:
        if workers == 0:
            context = make_context()
            for shard in shards:
                _raise_if(stopped)
                on_done(shard, function(context, shard))
        else:
            _run_pool(function, shards, make_context, workers, on_done, stopped)
        _raise_if(stopped)


def _run_pool(
    function: Callable[[C, S], R],
    shards: Sequence[S],
    make_context: Callable[[], C],
    workers: int,
    on_done: Callable[[S, R], object],
    stopped: list[int],
) -> None:
    waiting = list(range(len(shards)))[::-1]
    deaths: dict[int, int] = {}
    while waiting:
        running: dict[Future[R], int] = {}
        with _pool(make_context, min(workers, len(waiting))) as pool:
            try:
                while running or (waiting and not stopped):
                    # No more in flight than workers: after a death these are the only suspects.
                    while waiting and not stopped and len(running) < workers:
                        running[pool.submit(_in_worker, function, shards[waiting[-1]])] = waiting[-1]
                        waiting.pop()
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        result = future.result()
                        on_done(shards[running.pop(future)], result)
            except BrokenProcessPool:
                for index in running.values():
                    deaths[index] = deaths.get(index, 0) + 1
                guilty = [shards[index] for index, count in deaths.items() if count >= _ATTEMPTS]
                if guilty:
                    raise EngineError(f"worker processes died {_ATTEMPTS} times on: {guilty}") from None
                waiting += sorted(running.values(), reverse=True)
            except KeyboardInterrupt:
                for child in multiprocessing.active_children():
                    child.kill()
                raise
        _raise_if(stopped)


def _pool(make_context: Callable[[], Any], workers: int) -> ProcessPoolExecutor:
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=spawn, initializer=_start_worker, initargs=(make_context,))


_context: Any = None  # of a worker process: made once, before its first shard


def _start_worker(make_context: Callable[[], Any]) -> None:
    global _context
    # A terminal or a scheduler signals the whole group; only the parent decides when to stop.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    _context = make_context()


def _in_worker(function: Callable[[Any, S], R], shard: S) -> R:
    return function(_context, shard)


@contextmanager
def stop_requests() -> Generator[list[int], None, None]:
    """Collect SIGINT and SIGTERM while the block runs; a second one raises Interrupted at once."""
    stopped: list[int] = []

    def note(signum: int, frame: FrameType | None) -> None:
        stopped.append(signum)
        if len(stopped) > 1:
            raise KeyboardInterrupt  # no Exception: what passes over bad items must let it through

    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    except KeyboardInterrupt:
        raise Interrupted(stopped[-1]) from None
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _raise_if(stopped: list[int]) -> None:
    if stopped:
        raise Interrupted(stopped[0])
