"""Runs an idempotent shard function over shards: in this process, or by a crew of workers.

The function gets a context (models and the like, made once per process) and one shard, and leaves its
result on disk, so the same bytes come out whoever works, and in whatever order. A crew needs to know that
one signature only: `ppt.pool` has spawned processes of this machine, `ppt.ray_actors` those of a cluster.
"""

import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from types import FrameType
from typing import Any, Protocol, TypeVar, runtime_checkable

C = TypeVar("C")
S = TypeVar("S")
R = TypeVar("R")

_ATTEMPTS = 2
_IN_A_ROW = 20


class Interrupted(Exception):  # noqa: N818 -- no error: it was asked for
    """The run was asked to stop (SIGINT, SIGTERM) and did; the same command resumes it."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}; the same command resumes")
        self.signum = signum
        self.exit_code = 128 + signum


class EngineError(RuntimeError):
    """Workers died, and no single item is to blame; the text names the shards they were on."""


class WorkerDied(Exception):  # noqa: N818 -- what happened, until it is known why
    """A worker ended before its answer."""


@runtime_checkable
class Worker(Protocol):
    """A process, here or elsewhere, that does one shard after another."""

    def begin(self) -> "Future[Any]":
        """Done when the process is there to be given shards."""
        ...

    def submit(self, shard: Any) -> "Future[Any]":
        """Have the function called with the process's context, which it makes at its first shard."""
        ...

    def outcome(self, future: "Future[Any]") -> Any:
        """What became of `begin` or `submit`. Raises what the function raised, or WorkerDied."""
        ...

    def leave(self) -> None:
        """The process may go as soon as it has nothing to do. Does not wait."""
        ...

    def kill(self) -> None:
        """The process goes at once."""
        ...


@runtime_checkable
class Crew(Protocol):
    """Workers to be had."""

    @property
    def size(self) -> int:
        """How many work at the same time, each on one shard."""
        ...

    def hiring(
        self, function: Callable[[Any, Any], Any], make_context: Callable[[], Any]
    ) -> Callable[[], Worker]:
        """Make known what is to be done; returns what gives one more worker for it."""
        ...


def run_shards(
    function: Callable[[C, S], R],
    shards: Sequence[S],
    make_context: Callable[[], C],
    crew: Crew | None = None,
    on_done: Callable[[S, R], object] = lambda shard, result: None,
    deaths: Callable[[S], int] = lambda shard: 0,
    excuse: Callable[[S], object] = lambda shard: None,
    seen: Callable[[S], S] = lambda shard: shard,
) -> None:
    """Call `function(context, shard)` for every shard, and `on_done(shard, result)` here as each is done.

    crew: None runs in this process; else function, make_context, shards and results must pickle, and no more
    shards are in progress than the crew has workers. The context is only made where there is a shard to run.

    A worker that dies is replaced, and its shard done again. deaths: how many workers a shard has lost to
    items of its own, which the function passes over in time (`ppt.attempts`); where that grew, the shard is
    not to blame. excuse: told of the shards in progress where workers are killed on purpose. seen: a shard as
    it is given out again, once a worker was seen to die on it.

    The first exception of `function` stops the run, once the shards in progress are done. Raises Interrupted
    after a signal, likewise (a second one stops at once); EngineError, after all other shards, where a shard
    lost its worker twice with no item to blame, and at once where workers die and die with no shard done.
    """
    if not shards:
        return
    with stop_requests() as stopped:
        if crew is None:
            context = make_context()
            for shard in shards:
                _raise_if(stopped)
                on_done(shard, function(context, shard))
        else:
            hire = crew.hiring(function, make_context)
            _Shift(hire, shards, on_done, deaths, excuse, seen, stopped).work(crew.size)
        _raise_if(stopped)


class _Shift:
    """One run of a crew: which worker is on what, and what died."""

    def __init__(
        self,
        hire: Callable[[], Worker],
        shards: Sequence[Any],
        on_done: Callable[[Any, Any], object],
        deaths: Callable[[Any], int],
        excuse: Callable[[Any], object],
        seen: Callable[[Any], Any],
        stopped: list[int],
    ) -> None:
        self._hire, self._shards, self._stopped = hire, list(shards), stopped
        self._on_done, self._deaths, self._excuse, self._seen = on_done, deaths, excuse, seen
        self._waiting = deque(range(len(shards)))
        self._working: dict[Future[Any], tuple[Worker, int]] = {}
        self._starting: dict[Future[Any], Worker] = {}
        self._blamed: dict[int, int] = {}  # deaths that items of a shard are to blame for
        self._unexplained: dict[int, int] = {}
        self._in_a_row = self._patience = 0  # deaths with no shard done between, and how many are too many

    def work(self, size: int) -> None:
        self._patience = _IN_A_ROW + 2 * size
        try:
            try:
                for _ in range(min(size, len(self._shards))):
                    self._start()
                while self._working or (self._waiting and not self._stopped):
                    for future in wait({**self._working, **self._starting}, return_when=FIRST_COMPLETED).done:
                        self._settle(future)
            except Exception:
                wait(self._working)
                raise
        except KeyboardInterrupt:
            for worker, index in self._working.values():
                worker.kill()
                self._excuse(self._shards[index])
            raise
        finally:
            for worker in self._starting.values():
                worker.kill()
            for worker, _ in self._working.values():
                worker.leave()
        guilty = [str(self._shards[index]) for index, n in self._unexplained.items() if n >= _ATTEMPTS]
        if guilty and not self._stopped:
            raise EngineError(
                f"worker processes died {_ATTEMPTS} times, on no item of: {', '.join(guilty)}; out of memory?"
                " The same command tries again"
            )

    def _start(self) -> None:
        worker = self._hire()
        self._starting[worker.begin()] = worker

    def _settle(self, future: "Future[Any]") -> None:
        """One worker has started, done its shard, or died."""
        index = None
        if future in self._starting:
            worker = self._starting.pop(future)
        else:
            worker, index = self._working.pop(future)
        try:
            result = worker.outcome(future)
        except WorkerDied as death:
            worker.kill()
            self._mourn(index, death)
            return
        if index is not None:
            self._in_a_row = 0
            self._on_done(self._shards[index], result)
        if self._waiting and not self._stopped:
            index = self._waiting.popleft()
            self._working[worker.submit(self._shards[index])] = worker, index
        else:
            worker.leave()

    def _mourn(self, index: int | None, death: WorkerDied) -> None:
        """Give the shard, if there was one, another worker; or set it aside."""
        self._in_a_row += 1
        if self._in_a_row >= self._patience:
            raise EngineError(
                f"{self._in_a_row} worker processes died, and no shard was done between; the last: {death}"
            )
        if index is not None:
            self._shards[index] = self._seen(self._shards[index])
            blamed = self._deaths(self._shards[index])
            if blamed <= self._blamed.get(index, 0):
                self._unexplained[index] = self._unexplained.get(index, 0) + 1
            self._blamed[index] = blamed
            if self._unexplained.get(index, 0) < _ATTEMPTS:
                self._waiting.appendleft(index)
        if self._waiting and not self._stopped:
            self._start()


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
        if not stopped:  # raised by another
            raise
        raise Interrupted(stopped[-1]) from None
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _raise_if(stopped: list[int]) -> None:
    if stopped:
        raise Interrupted(stopped[0])
