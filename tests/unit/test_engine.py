import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from ppt.durable import write_atomic
from ppt.engine import EngineError, Interrupted, WorkerDied, run_shards
from ppt.pool import Pool


def new_context() -> list[int]:
    return []


def no_context() -> list[int]:
    raise FileNotFoundError("no such model")


def count_calls(calls: list[int], shard: int) -> tuple[int, int]:
    """Its shard times ten, and how many shards this context has seen."""
    calls.append(shard)
    return shard * 10, len(calls)


def stop_at_one(calls: list[int], shard: int, signum: int) -> int:
    if shard == 1:
        os.kill(os.getpid(), signum)
    return shard


def fail_at_one(calls: list[int], shard: int) -> int:
    if shard == 1:
        raise ValueError("shard 1 is broken")
    return shard


def sleep(calls: list[int], shard: int) -> None:
    time.sleep(shard)


def linger(folder: Path, shard: int) -> None:
    write_atomic(folder / "begun", str(os.getpid()).encode())
    time.sleep(60)


def run_in_a_pool(folder: Path) -> None:
    run_shards(linger, [0, 1], partial(Path, folder), Pool(1))


def is_alive(process: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@dataclass
class Doomed:
    """A crew, and a worker of it, that only dies."""

    hired: list["Doomed"]
    size: int = 2

    def hiring(self, *_: object) -> Callable[[], "Doomed"]:
        def hire() -> Doomed:
            self.hired.append(self)
            return self

        return hire

    def begin(self) -> Future[None]:
        return self.submit(0)

    def submit(self, shard: int) -> Future[None]:
        future = Future[None]()
        future.set_exception(WorkerDied("out of memory"))
        return future

    def outcome(self, future: Future[None]) -> None:
        return future.result()

    def leave(self) -> None: ...

    def kill(self) -> None: ...


def die_at_two(calls: list[int], shard: int, times: int, journal: Path) -> int:
    if shard == 2 and len(list(journal.iterdir())) < times:
        (journal / str(os.getpid())).touch()
        os._exit(9)
    return shard


def test_in_process_shards_run_in_order_with_one_context():
    done: list[tuple[int, tuple[int, int]]] = []
    run_shards(count_calls, [3, 1, 2], new_context, on_done=lambda *pair: done.append(pair))
    assert done == [(3, (30, 1)), (1, (10, 2)), (2, (20, 3))]


@pytest.mark.parametrize("workers", [1, 3])
def test_a_pool_does_every_shard_once(workers: int):
    done: dict[int, tuple[int, int]] = {}
    run_shards(count_calls, range(6), new_context, Pool(workers), on_done=lambda s, r: done.update({s: r}))
    assert {shard: result for shard, (result, _) in done.items()} == {n: n * 10 for n in range(6)}
    if workers == 1:
        assert [calls for _, calls in done.values()] == [1, 2, 3, 4, 5, 6], "one context per process"


def test_no_shards_means_no_context():
    run_shards(count_calls, [], lambda: pytest.fail("made a context"))


@pytest.mark.parametrize("crew", [None, Pool(2)])
def test_the_first_exception_stops_the_run(crew: Pool | None):
    with pytest.raises(ValueError, match="shard 1 is broken"):
        run_shards(fail_at_one, [0, 1, 2], new_context, crew)


def test_a_context_that_cannot_be_made_stops_the_run():
    with pytest.raises(FileNotFoundError, match="no such model"):
        run_shards(count_calls, [0, 1], no_context, Pool(1))


@pytest.mark.parametrize(("signum", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_lets_the_shard_in_progress_finish(signum: int, exit_code: int):
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    done: list[int] = []
    with pytest.raises(Interrupted, match=signal.Signals(signum).name) as caught:
        run_shards(
            partial(stop_at_one, signum=signum), [0, 1, 2], new_context, on_done=lambda s, _: done.append(s)
        )
    assert done == [0, 1]
    assert caught.value.exit_code == exit_code
    assert handlers == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))


def test_a_second_signal_stops_at_once():
    def impatient(calls: list[int], shard: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("went on")

    with pytest.raises(Interrupted) as caught:
        run_shards(impatient, [0], new_context)
    assert caught.value.exit_code == 143


def test_a_signal_to_a_pool_lets_shards_in_flight_finish():
    done: list[int] = []

    def note(shard: int, result: object) -> None:
        done.append(shard)
        if len(done) == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        run_shards(count_calls, range(8), new_context, Pool(2), on_done=note)
    assert 1 <= len(done) <= 3


def test_a_second_signal_to_a_pool_does_not_wait_for_its_shards():
    def note(shard: int, result: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    start = time.monotonic()
    with pytest.raises(Interrupted):
        run_shards(sleep, [0, 60], new_context, Pool(2), on_done=note)
    assert time.monotonic() - start < 30


def test_a_worker_that_dies_once_is_replaced(tmp_path: Path):
    done: list[int] = []
    function = partial(die_at_two, times=1, journal=tmp_path)
    run_shards(function, range(5), new_context, Pool(2), on_done=lambda s, _: done.append(s))
    assert sorted(done) == [0, 1, 2, 3, 4]


def test_a_shard_that_kills_its_worker_twice_is_named_when_the_others_are_done(tmp_path: Path):
    done: list[int] = []
    function = partial(die_at_two, times=9, journal=tmp_path)
    with pytest.raises(EngineError, match="died 2 times, on no item of: 2;"):
        run_shards(function, [1, 2, 3], new_context, Pool(1), on_done=lambda s, _: done.append(s))
    assert done == [1, 3]


def test_workers_that_only_die_end_the_run():
    hired: list[Doomed] = []
    with pytest.raises(EngineError, match=r"24 worker processes died.*the last: out of memory"):
        run_shards(count_calls, range(99), new_context, Doomed(hired))
    assert len(hired) == 2 + 23


def test_deaths_that_items_are_to_blame_for_do_not_set_a_shard_aside(tmp_path: Path):
    done: list[int] = []
    function = partial(die_at_two, times=3, journal=tmp_path)

    def died(shard: int) -> int:
        return len(list(tmp_path.iterdir()))

    run_shards(function, [2], new_context, Pool(1), on_done=lambda s, _: done.append(s), deaths=died)
    assert done == [2]


def test_a_worker_that_is_killed_on_purpose_is_excused():
    excused: list[int] = []

    def note(shard: int, result: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        run_shards(sleep, [1, 60], new_context, Pool(2), on_done=note, excuse=excused.append)
    assert excused == [60]


def test_a_worker_whose_parent_was_killed_goes_at_once(tmp_path: Path):
    parent = multiprocessing.get_context("spawn").Process(target=run_in_a_pool, args=(tmp_path,))
    parent.start()
    while not (tmp_path / "begun").exists():
        time.sleep(0.05)
    worker = int((tmp_path / "begun").read_text())
    parent.kill()
    parent.join()
    deadline = time.monotonic() + 20
    while is_alive(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(worker)
