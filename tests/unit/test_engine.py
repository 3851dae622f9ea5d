import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from ppt.engine import EngineError, Interrupted, run_shards


def new_context() -> list[int]:
    return []


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
    run_shards(count_calls, range(6), new_context, workers, on_done=lambda s, r: done.update({s: r}))
    assert {shard: result for shard, (result, _) in done.items()} == {n: n * 10 for n in range(6)}
    if workers == 1:
        assert [calls for _, calls in done.values()] == [1, 2, 3, 4, 5, 6], "one context per process"


def test_no_shards_means_no_context():
    run_shards(count_calls, [], lambda: pytest.fail("made a context"))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_first_exception_stops_the_run(workers: int):
    with pytest.raises(ValueError, match="shard 1 is broken"):
        run_shards(fail_at_one, [0, 1, 2], new_context, workers)


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
        run_shards(count_calls, range(8), new_context, 2, on_done=note)
    assert 1 <= len(done) <= 3


def test_a_second_signal_to_a_pool_does_not_wait_for_its_shards():
    def note(shard: int, result: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    start = time.monotonic()
    with pytest.raises(Interrupted):
        run_shards(sleep, [0, 60], new_context, 2, on_done=note)
    assert time.monotonic() - start < 30


def test_a_worker_that_dies_once_is_replaced(tmp_path: Path):
    done: list[int] = []
    function = partial(die_at_two, times=1, journal=tmp_path)
    run_shards(function, range(5), new_context, 2, on_done=lambda s, _: done.append(s))
    assert sorted(done) == [0, 1, 2, 3, 4]


def test_a_shard_that_kills_its_worker_twice_is_named(tmp_path: Path):
    with pytest.raises(EngineError, match=r"died 2 times on: \[2\]"):
        run_shards(partial(die_at_two, times=9, journal=tmp_path), [1, 2, 3], new_context, 1)
