"""What it costs to have shards done by others, and what it takes to plan very many.

    ppt benchmark engine CONFIG.yaml --output DIR

`benchmark.shards` shards whose function only sleeps, for each of `benchmark.shard_seconds`, in this process,
on two spawned processes and on two of Ray's actors: how long a worker has nothing to do between two shards,
and how long it takes until the first begins. Then `benchmark.pairs` pairs, of as many images, with a function
that writes nothing but the markers: seconds, the size of the index, and the memory of a process of their own.
Writes DIR/benchmark/engine.json and engine.md. Times are of this machine as it is used just now.
"""

import importlib.util
import json
import multiprocessing
import os
import re
import resource
import shutil
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import mean

from pipelines.benchmark.tables import markdown
from ppt import ray_actors
from ppt.config import Config
from ppt.durable import write_atomic
from ppt.engine import Crew, run_shards
from ppt.manifest import Manifest
from ppt.pool import Pool
from ppt.records import plan
from ppt.records.pairs import Row
from ppt.shard import Shard
from ppt.store import begin
from ppt.types import Pair

WORKERS = 2
SIZE = 1000
"""Images of a shard, where very many are planned."""

Slept = tuple[int, float, float]
"""Process, and when it began and ended, in seconds of this machine's steady clock."""


@dataclass(frozen=True)
class Idle:
    """In seconds: until the first shard begins; and between two shards of a worker, the mean and the most."""

    start: float
    mean: float
    most: float


def engine(config: Config, output: Path) -> str:
    """Run everything; returns the tables as Markdown."""
    folder = output / "benchmark" / "engine"
    crews: dict[str, Crew | None] = {"this process": None, "two processes": Pool(WORKERS)}
    if importlib.util.find_spec("ray"):
        settings = config.ray.model_copy(update={"actors": WORKERS})
        ray_actors.connect(settings)
        crews["two Ray actors"] = ray_actors.Cluster(settings)
    how = config.benchmark
    found = {
        name: {seconds: idle(crew, how.shards, seconds) for seconds in how.shard_seconds}
        for name, crew in crews.items()
    }
    shutil.rmtree(folder, ignore_errors=True)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as alone:
        planned = alone.submit(very_many, folder, how.pairs).result()
    shutil.rmtree(folder)
    table = _markdown(found, planned, how.pairs)
    kept = {
        "shards": how.shards,
        "idle": {name: {str(s): asdict(one) for s, one in row.items()} for name, row in found.items()},
        "pairs": how.pairs,
        "planned": planned,
    }
    write_atomic(output / "benchmark" / "engine.json", (json.dumps(kept, indent=1) + "\n").encode())
    write_atomic(output / "benchmark" / "engine.md", table.encode())
    return table


def idle(crew: Crew | None, shards: int, seconds: float) -> Idle:
    """How long the workers of a crew wait while they do `shards` shards of `seconds` each."""
    slept: list[Slept] = []
    asked = time.monotonic()
    run_shards(sleep, [seconds] * shards, no_context, crew, on_done=lambda _, one: slept.append(one))
    by_worker: dict[int, list[Slept]] = defaultdict(list)
    for one in sorted(slept, key=lambda one: one[1]):
        by_worker[one[0]].append(one)
    gaps = [after[1] - before[2] for own in by_worker.values() for before, after in pairwise(own)]
    return Idle(min(one[1] for one in slept) - asked, mean(gaps), max(gaps))


def sleep(context: None, seconds: float) -> Slept:
    """A shard that takes so long."""
    began = time.monotonic()
    time.sleep(seconds)
    return os.getpid(), began, time.monotonic()


def no_context() -> None:
    """There are no models."""
    return None


def very_many(folder: Path, count: int) -> dict[str, float]:
    """Seconds of each part of a stage of `count` pairs, and how far memory has risen by its end, in MiB."""
    found: dict[str, float] = {"MiB before": _peak()}
    clock = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal clock
        found[name], clock = time.perf_counter() - clock, time.perf_counter()
        found[f"MiB, {name}"] = _peak()

    rows, contents = _pairs(count)
    lap("pairs")
    names = plan.names(rows)
    groups = plan.shards(rows, contents, SIZE)
    planned = {key: [names[row.where] for row in group] for key, group in groups.items()}
    lap("plan")
    manifest = Manifest("engine", schema_version=1, config={}, inputs={}, weights={}, seed=0)
    with begin(folder, manifest, planned) as writer:
        lap("begin")
        run_shards(write_nothing, writer.missing, no_context)
        lap("shards")
        writer.finish()
        lap("finish")
    with begin(folder, manifest, planned) as writer:
        assert writer.complete
    lap("nothing to do")
    return {**found, "count": len(planned), "index": (folder / "index.json").stat().st_size / 2**20}


def write_nothing(context: None, shard: Shard) -> None:
    """Only the marker."""
    shard.write()


def _pairs(count: int) -> tuple[list[Row], dict[str, str | None]]:
    """Pairs about as many images, as the records stage has them in memory; and what the images hold."""
    rows: list[Row] = []
    contents: dict[str, str | None] = {}
    for number in range(count):
        image = f"images/{number:012d}.jpg"
        pair = Pair(f"pair{number:012d}", image, f"the thing on the left of picture {number}")
        rows.append(Row(f"line {number + 1}", pair.id, pair.split, pair.source, pair.kind, pair))
        contents[image] = f"{number:064x}"
    return rows, contents


def _peak() -> float:
    """The most memory this process has had, in MiB; `getrusage` also counts whoever started it."""
    status = Path("/proc/self/status")
    known = re.search(r"VmHWM:\s+(\d+)", status.read_text(encoding="ascii")) if status.exists() else None
    return (int(known[1]) if known else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) / 1024


def _markdown(found: dict[str, dict[float, Idle]], planned: dict[str, float], count: int) -> str:
    rows: dict[str, Sequence[str]] = {
        f"{name}, shards of {seconds:g} s": [
            f"{one.start:.2f} s",
            f"{1000 * one.mean:.1f} ms",
            f"{1000 * one.most:.1f} ms",
            f"{100 * one.mean / seconds:.2f} %",
        ]
        for name, each in found.items()
        for seconds, one in each.items()
    }
    idle = markdown("", ["first begins after", "idle between two", "at most", "share"], rows)
    parts = ("pairs", "plan", "begin", "shards", "finish", "nothing to do")
    many: dict[str, Sequence[str]] = {
        name: [f"{planned[name]:.1f} s", f"{planned[f'MiB, {name}']:.0f}"] for name in parts
    }
    each = 1000 * planned["shards"] / planned["count"]
    told = (
        f"{planned['count']:.0f} shards of {SIZE} images, {each:.1f} ms each; index {planned['index']:.1f}"
        f" MiB; {planned['MiB before']:.0f} MiB before.\n"
    )
    return "\n".join([idle, markdown(f"{count} pairs", ["took", "peak MiB"], many), told])
