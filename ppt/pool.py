"""Workers that are spawned processes of this machine.

Each is a pool of one, so that a death says which shard it happened on, and disturbs no other.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from ppt.engine import WorkerDied


@dataclass(frozen=True)
class Pool:
    """A crew of `size` spawned processes."""

    size: int

    def hiring(
        self, function: Callable[[Any, Any], Any], make_context: Callable[[], Any]
    ) -> "Callable[[], Spawned]":
        return partial(Spawned, function, make_context)


class Spawned:
    """One of them. If this process is killed it ends, too, whatever it is at."""

    def __init__(self, function: Callable[[Any, Any], Any], make_context: Callable[[], Any]) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(1, mp_context=spawn, initializer=_start)
        self._given = function, make_context
        self._process: int | None = None

    def begin(self) -> "Future[Any]":
        # Only now, for it imports torch and the like: who is left behind meanwhile goes, too.
        return self._pool.submit(_take, *self._given)

    def submit(self, shard: Any) -> "Future[Any]":
        return self._pool.submit(_work, shard)

    def outcome(self, future: "Future[Any]") -> Any:
        try:
            result = future.result()
        except BrokenProcessPool as error:
            self._process = None  # its number may be another's by now
            raise WorkerDied(str(error)) from None
        self._process = self._process or result  # of `begin`
        return result

    def leave(self) -> None:
        self._pool.shutdown(wait=False)

    def kill(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.kill(self._process, signal.SIGKILL)
        self.leave()


_function: Callable[[Any, Any], Any]
_make_context: Callable[[], Any]
_contexts: list[Any] = []  # of a worker process: one, made at its first shard


def _start() -> None:
    # A terminal or a scheduler signals the whole group; only the parent decides when to stop.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None  # it is spawned
    parent.join()
    os._exit(1)


def _take(function: Callable[[Any, Any], Any], make_context: Callable[[], Any]) -> int:
    global _function, _make_context
    _function, _make_context = function, make_context
    return os.getpid()


def _work(shard: Any) -> Any:
    if not _contexts:
        _contexts.append(_make_context())
    return _function(_contexts[0], shard)
