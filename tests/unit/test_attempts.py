"""Items that kill or hang the process that works on them: found, passed over, and named."""

import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from fixtures.processes import snapshot

from pipelines import stage
from ppt import attempts
from ppt.attempts import attempted
from ppt.config import Config
from ppt.engine import run_shards
from ppt.manifest import Manifest
from ppt.pool import Pool
from ppt.shard import Failure, Shard
from ppt.store import Artifact, Writer, begin

NAMES = [f"item{i}" for i in range(9)]
PLAN = {f"{i:05d}": NAMES[3 * i : 3 * i + 3] for i in range(3)}
MANIFEST = Manifest("stub", schema_version=1, config={}, inputs={}, weights={}, seed=0)


def no_context() -> None:
    return None


def write_shard(context: None, shard: Shard) -> None:
    """A row an item; what becomes of one is in the environment."""
    does = json.loads(os.environ.get("PPT_TESTS_ITEMS", "{}"))
    failures: list[Failure] = []
    rows = []
    for name in attempted(shard, "stub", shard.items, lambda name: [name], failures):
        if does.get(name) == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if does.get(name) == "hangs":
            time.sleep(60)
        if does.get(name) == "raises":
            raise ValueError(name)
        if does.get(name) == "is bad":
            error = attempts.KILLED
            failures.append(Failure("stub", name, error, attempts.MESSAGES[error]))
            continue
        rows.append({"id": name})
    shard.write(rows, None, failures)


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    with begin(tmp_path / "stub", MANIFEST, PLAN) as writer:
        yield writer


def filled(folder: Path, config: Config) -> Artifact:
    with begin(folder, MANIFEST, PLAN) as writer:
        return stage.fill(writer, write_shard, no_context, config)[0]


def told(artifact: Artifact) -> dict[str, str]:
    return {failure.id: failure.error for failure in artifact.failures()}


def test_items_that_kill_their_workers_are_lost_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PPT_TESTS_ITEMS", json.dumps(dict.fromkeys(("item1", "item2", "item6"), "dies")))
    artifact = filled(tmp_path / "killed", Config(workers=2))
    assert told(artifact) == dict.fromkeys(("item1", "item2", "item6"), "killed_worker")
    assert [row["id"] for row in artifact.rows()] == [f"item{i}" for i in (0, 3, 4, 5, 7, 8)]
    monkeypatch.setenv("PPT_TESTS_ITEMS", json.dumps(dict.fromkeys(("item1", "item2", "item6"), "is bad")))
    filled(tmp_path / "skipped", Config())
    assert snapshot(tmp_path / "killed") == snapshot(tmp_path / "skipped"), "the same bytes as if skipped"


def test_two_crews_that_race_on_one_plan_make_the_same_bytes(tmp_path: Path):
    def race() -> None:
        run_shards(write_shard, writer.missing, no_context, Pool(1))

    with begin(tmp_path / "raced", MANIFEST, PLAN) as writer, ThreadPoolExecutor() as threads:
        for racer in [threads.submit(race), threads.submit(race)]:
            racer.result()
        writer.finish()
    filled(tmp_path / "alone", Config())
    assert snapshot(tmp_path / "raced") == snapshot(tmp_path / "alone")


def test_many_writers_of_one_shard_leave_it_whole(writer: Writer):
    shard = writer.shards[0]
    with ThreadPoolExecutor(8) as threads:
        for written in [threads.submit(write_shard, None, shard) for _ in range(64)]:
            written.result()
    assert shard.is_whole()
    assert not [*shard.folder.glob("shards/*.tmp")]


def test_an_item_that_hangs_is_ended_and_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd):
    monkeypatch.setenv("PPT_TESTS_ITEMS", json.dumps({"item4": "hangs"}))
    start = time.monotonic()
    artifact = filled(tmp_path / "stub", Config(workers=1, item_seconds=0.5))
    assert time.monotonic() - start < 30
    assert told(artifact) == {"item4": "timed_out"}
    assert len([*artifact.rows()]) == 8
    assert capfd.readouterr().err == "", "no traceback shown to a user"


def killed(folder: Path) -> None:
    """A run in a process of its own, which dies."""
    child = os.fork()
    if child == 0:
        filled(folder, Config())
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_an_item_that_kills_this_process_again_and_again_is_given_to_a_worker_and_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PPT_TESTS_ITEMS", json.dumps({"item1": "dies"}))
    for _ in range(attempts.UNSEEN):
        killed(tmp_path / "stub")
    artifact = filled(tmp_path / "stub", Config())
    assert told(artifact) == {"item1": "killed_worker"}
    assert len([*artifact.rows()]) == 8


def test_kills_that_nobody_saw_cost_no_item(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A scheduler that ends every run on the same item, some runs along."""
    monkeypatch.setenv("PPT_TESTS_ITEMS", json.dumps({"item1": "dies"}))
    for _ in range(2):
        killed(tmp_path / "stub")
    with begin(tmp_path / "stub", MANIFEST, PLAN) as writer:
        note(writer.shards[0], *(f'{{"at":["item1"],"run":"{run}"}}' for run in range(5)))
    monkeypatch.delenv("PPT_TESTS_ITEMS")
    artifact = filled(tmp_path / "stub", Config())
    assert told(artifact) == {}
    assert len([*artifact.rows()]) == 9


def test_only_a_death_that_was_seen_is_held_against_an_item(writer: Writer):
    shard = writer.shards[0]
    for run in range(4):
        note(shard, f'{{"at":["item1"],"run":"{run}"}}')
        again = attempts.seen(shard) if run % 2 else shard
        assert attempts.suspected(shard) == (run > 1)
        failures: list[Failure] = []
        given = list(attempted(again, "stub", ["item1"], lambda name: [name], failures))
        assert given == ([] if run == 3 else ["item1"])
        assert len(failures) == (run == 3)


def test_an_item_that_raises_is_not_to_blame(writer: Writer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PPT_TESTS_ITEMS", json.dumps({"item1": "raises"}))
    for _ in range(3):
        with pytest.raises(ValueError, match="item1"):
            write_shard(None, writer.shards[0])
    assert attempts.deaths(writer.shards[0]) == 0


def note(shard: Shard, *lines: str) -> None:
    folder = shard.folder / attempts.FOLDER
    folder.mkdir(exist_ok=True)
    with open(folder / f"{shard.key}.jsonl", "a") as file:
        file.writelines(line + "\n" for line in lines)


def test_all_ids_of_an_item_are_lost_with_it(writer: Writer):
    shard = replace(writer.shards[0], items=("a", "b", "c"))
    note(shard, *(f'{{"at":["a","b"],"run":"{run}","seen":true}}' for run in (1, 2)))
    failures: list[Failure] = []
    given = list(attempted(shard, "stub", [("a", "b"), ("c",)], list, failures))
    assert given == [("c",)]
    assert [failure.id for failure in failures] == ["a", "b"]


def test_a_line_that_was_cut_off_and_one_that_was_never_written_blame_nobody(writer: Writer):
    shard = writer.shards[0]
    assert attempts.deaths(shard) == 0
    note(shard, '{"at":["item0"],"run":"1"}', '{"at":[],"run":"1"}', '{"at":["item1"],"ru')
    assert attempts.deaths(shard) == 0


def test_who_was_ended_on_purpose_is_excused(writer: Writer):
    shard = writer.shards[0]
    attempts.excuse(shard)  # had not begun
    note(shard, '{"at":["item0"],"run":"1"}', '{"at":["item0"],"run":"2"}')
    attempts.excuse(shard)
    assert attempts.deaths(shard) == 1


def test_starting_over_gives_every_item_a_new_chance(tmp_path: Path, writer: Writer):
    note(writer.shards[0], '{"at":["item0"],"run":"1"}')
    writer.__exit__()
    with begin(tmp_path / "stub", MANIFEST, PLAN) as again:
        assert attempts.deaths(again.shards[0]) == 1, "resuming remembers"
    with begin(tmp_path / "stub", MANIFEST, PLAN, fresh=True) as anew:
        assert attempts.deaths(anew.shards[0]) == 0
