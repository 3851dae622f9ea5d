"""How much faster than a research script: the same images, sentences and weights, in turns, in one run.

    ppt benchmark speed CONFIG.yaml --output DIR [--pairs PAIRS]

`benchmark.images` images with `benchmark.sentences` sentences each are done by everyone in turn,
`benchmark.rounds` times: by the naive loop (`naive.py`) and by us. SAM's part is raced alone, for the
configured SAM and for each of `benchmark.untrained`, shapes with random weights; and the whole way from
images to labels, reading, writing and loading the models included. Points are the peaks of the maps. Writes
DIR/benchmark/speed.json, speed.md and speed.svg: medians of the rounds' ratios, how equal the masks are, and
where our time goes: operations, as `ppt.backbones.cost` counts them, beside what this machine does in a
second.
"""

import copy
import json
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from segment_anything.modeling import Sam

from pipelines import s0_records, s1_relevance, s3_masks, s4_labels, stage
from pipelines.asking import rules
from pipelines.benchmark import naive
from pipelines.benchmark.naive import Job
from pipelines.benchmark.plot import log_bars
from pipelines.benchmark.turns import Seconds, clocked, in_turns, ratio
from pipelines.doors import open_clip_door, open_sam_door
from ppt import rle
from ppt.backbones.clip import Clip, Reading
from ppt.backbones.cost import clip_cost, measured_rate, sam_cost
from ppt.backbones.kept import KeptEmbeddings
from ppt.backbones.sam import SamModel, untrained_sam
from ppt.backbones.sam_attention import as_published, for_processor
from ppt.config import Config
from ppt.durable import json_lines, write_atomic
from ppt.points.from_maps import peak_points
from ppt.records import images, pairs, sources
from ppt.rle import Rle
from ppt.store import Artifact
from ppt.types import RelevanceMap

NAIVE = "naive"
Contestant = Callable[[Path], list[Rle | None]]
"""Does all the work and writes it into an empty folder; masks in an order that all contestants share."""
NETWORKS = {
    "CLIP, images": (Clip, "encode_image"),
    "CLIP, sentences": (Clip, "encode_texts"),
    "SAM, images": (SamModel, "embed"),
    "SAM, points": (SamModel, "predict"),
    "coding masks": (rle, "encode"),
}
_ROOM = 2**36


@dataclass(frozen=True)
class Race:
    """iou, same: of its masks with the naive ones, the mean IoU, and the share that is equal to the bit."""

    name: str
    seconds: Seconds
    iou: dict[str, float]
    same: dict[str, float]

    def ratio(self, contestant: str) -> float:
        """How many times faster than the naive one: the median over the rounds."""
        return ratio(self.seconds[NAIVE], self.seconds[contestant])


def speed(config: Config, output: Path) -> str:
    """Run the races; returns the tables as Markdown."""
    folder = output / "benchmark" / "speed"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    config = _with_own_pairs(config, folder)
    jobs, on = _jobs(config, folder), config.device
    rates = {"fp32": measured_rate(on), "bf16": measured_rate(on, torch.bfloat16)}
    first = [job for job in jobs if job.image == jobs[0].image]
    races = [_race_of_sam(config.sam.model, open_sam_door(config).network, jobs, folder, config)]
    for name in config.benchmark.untrained:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            network = untrained_sam(name).eval().requires_grad_(False)
        races.append(_race_of_sam(f"{name}, random weights", network, first, folder, config))
    clock = defaultdict[str, float](float)
    races.append(_race_of_all(jobs, folder, config, clock))
    work = {name: config.benchmark.rounds * each for name, each in _operations(config, jobs).items()}
    found = {"threads": torch.get_num_threads(), "rates": rates, "ours": dict(clock), "operations": work}
    kept = {**found, "races": [asdict(race) for race in races]}
    table = _races(races) + "\n" + _stages(clock, work, rates)
    write_atomic(output / "benchmark" / "speed.svg", _plot(races).encode())
    write_atomic(output / "benchmark" / "speed.json", (json.dumps(kept, indent=1) + "\n").encode())
    write_atomic(output / "benchmark" / "speed.md", table.encode())
    return table


def _with_own_pairs(config: Config, folder: Path) -> Config:
    """The config for the images with the most sentences; where one has too few, it gets those of others."""
    found, own = sources.read(config.records), dict[str, list[str]]()
    for row in pairs.select(found.rows, config.records.splits, config.records.limit):
        if row.pair is not None and (found.images / row.pair.image).is_file():
            own.setdefault(row.pair.image, []).append(row.pair.text)
    texts = list(dict.fromkeys(text for said in own.values() for text in said))
    rows: list[dict[str, str]] = []
    (folder / "images").mkdir()
    for number, image in enumerate(sorted(own, key=lambda one: -len(own[one]))[: config.benchmark.images]):
        name = f"images/{number:03}{Path(image).suffix}"
        (folder / name).write_bytes((found.images / image).read_bytes())
        start = number * config.benchmark.sentences % len(texts)
        distinct = dict.fromkeys((*own[image], *texts[start:], *texts[:start]))
        said = islice(cycle(distinct), config.benchmark.sentences)
        rows += [{"id": f"{number:03}_{i}", "image": name, "text": text} for i, text in enumerate(said)]
    write_atomic(folder / "pairs.jsonl", json_lines(rows))
    chosen = {"pairs": folder / "pairs.jsonl", "truth": None, "sources": (), "splits": (), "limit": None}
    changed: dict[str, Any] = {
        "records": config.records.model_copy(update=chosen),
        "points": config.points.model_copy(update={"method": "peak"}),
        "embeddings_gib": 0.0,
    }
    return config.model_copy(update=changed)


def _jobs(config: Config, folder: Path) -> list[Job]:
    """Every sentence that has a point, by image."""
    s0_records.run(config, folder)
    s1_relevance.run(config, folder)
    records, relevance = Artifact.open(folder / "records"), Artifact.open(folder / "relevance")
    jobs: list[Job] = []
    for key in records.keys:
        tensors = relevance.tensors(key)
        for row in records.rows(key):
            found = RelevanceMap(tensors[f"map/{row['id']}"], row["height"], row["width"])
            jobs.append(Job(row["id"], folder / row["image"], row["text"], peak_points(found)))
    return sorted((job for job in jobs if len(job.points.labels)), key=lambda job: job.id)


def _race_of_sam(name: str, network: Sam, jobs: Sequence[Job], folder: Path, config: Config) -> Race:
    """SAM's part alone: images and points in, coded masks on the disk out."""
    published = copy.deepcopy(network)
    as_published(published)
    for_processor(network)

    def ours(kept: KeptEmbeddings | None = None, bfloat16: bool = False) -> Contestant:
        sam = SamModel(network, config.sam.prompt_batch, "0" * 64, {}, kept, bfloat16)
        return lambda at: _drawn(sam, jobs, at, config)

    kept = ours(KeptEmbeddings(folder / "embeddings" / name, _ROOM))
    kept(_emptied(folder / "work"))
    contestants: dict[str, Contestant] = {
        NAIVE: lambda at: naive.drawn(published, jobs, at),
        "ours": ours(),
        "ours, encoder in bfloat16": ours(bfloat16=True),
        "ours, embeddings kept": kept,
    }
    return _race(f"SAM alone, {name}", contestants, folder, config.benchmark.rounds)


def _drawn(sam: SamModel, jobs: Sequence[Job], folder: Path, config: Config) -> list[Rle | None]:
    found: list[Rle | None] = []
    for image in dict.fromkeys(job.image for job in jobs):
        own = [job for job in jobs if job.image == image]
        answers = sam.predict(sam.embed(_pixels(image, config)), [job.points for job in own])
        rows = [
            {
                "id": job.id,
                "masks": [mask.to_json() for mask in one.rles],
                "scores": one.predicted_iou.tolist(),
            }
            for job, one in zip(own, answers, strict=True)
        ]
        write_atomic(folder / f"{image.stem}.jsonl", json_lines(rows))
        found += [mask for one in answers for mask in one.rles]
    return found


def _pixels(image: Path, config: Config) -> UInt8[np.ndarray, "h w 3"]:
    return images.load(image.parent, image.name, stage.image_policy(config)).pixels


def _race_of_all(jobs: Sequence[Job], folder: Path, config: Config, clock: dict[str, float]) -> Race:
    """From images and sentences to labels. clock: is told where our time went, in seconds, all rounds."""

    def one_by_one(at: Path) -> list[Rle | None]:
        network = open_sam_door(config).network
        as_published(network)
        redundancy = config.relevance.redundancy
        return naive.labelled(network, open_clip_door(config), jobs, at, redundancy, rules(config))

    def ours(at: Path) -> list[Rle | None]:
        shutil.copytree(folder / "records", at / "records")
        stage.remember_source(at, {"images": str(folder)})
        began = time.perf_counter()
        with clocked(clock, NETWORKS):
            for run in (s1_relevance.run, s3_masks.run, s4_labels.run):
                run(config, at)
        clock["all"] += time.perf_counter() - began
        rows = {row["id"]: row["segmentation"] for row in Artifact.open(at / "labels").rows()}
        return [rle.from_json(rows[job.id]) if rows[job.id] else None for job in jobs]

    contestants: dict[str, Contestant] = {NAIVE: one_by_one, "ours": ours}
    return _race(f"images to labels, {config.sam.model}", contestants, folder, config.benchmark.rounds)


def _race(name: str, contestants: Mapping[str, Contestant], folder: Path, rounds: int) -> Race:
    """Everyone in turn, `rounds` times."""
    works = {one: lambda work=work: work(_emptied(folder / "work")) for one, work in contestants.items()}
    seconds, masks = in_turns(works, rounds)
    pairs = {one: [*zip(masks[NAIVE], own, strict=True)] for one, own in masks.items() if one != NAIVE}
    iou = {one: fmean(_iou(a, b) for a, b in both) for one, both in pairs.items()}
    same = {one: fmean(a == b for a, b in both) for one, both in pairs.items()}
    return Race(name, seconds, iou, same)


def _iou(a: Rle | None, b: Rle | None) -> float:
    """1 where neither is a mask, or both are empty."""
    if a is None or b is None:
        return float(a is b)
    return rle.iou(a, b) if rle.area(a) or rle.area(b) else 1.0


def _emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _operations(config: Config, jobs: Sequence[Job]) -> dict[str, float]:
    """What the networks compute on the way from images to labels, by the names of the clock."""
    reading = Reading(config.relevance.method, config.relevance.scales, config.relevance.mirror)
    size, longest, sam = config.clip.size, config.clip.max_long, sam_cost(config.sam.model)
    sides = [_pixels(image, config).shape[:2] for image in dict.fromkeys(job.image for job in jobs)]
    seen = [clip_cost(config.clip.model, size, longest, reading, *side) for side in sides]
    return {
        "CLIP, images": sum(each.image for each in seen),
        "CLIP, sentences": len({job.text for job in jobs}) * seen[0].sentence,
        "SAM, images": len(sides) * sam.embed,
        "SAM, points": len(jobs) * sam.prompt,
    }


def _races(races: Sequence[Race]) -> str:
    lines = [
        "| | seconds, median | times the naive loop | masks equal | mean IoU |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for race in races:
        lines.append(f"| {race.name}: naive | {median(race.seconds[NAIVE]):.2f} | 1 | | |")
        for one in list(race.seconds)[1:]:
            equal = f"{race.same[one]:.1%} | {race.iou[one]:.4f}"
            lines.append(f"| … {one} | {median(race.seconds[one]):.2f} | {race.ratio(one):.1f} | {equal} |")
    return "\n".join(lines) + "\n"


def _stages(clock: Mapping[str, float], work: Mapping[str, float], rates: Mapping[str, float]) -> str:
    """Where our time goes, and how near the networks come to what this machine does in float32."""
    models = {name: clock[name] for name in clock if name not in ("all", "coding masks")}
    if "coding masks" in clock:
        models["SAM, points"] -= clock["coding masks"]  # which is done within
    shares = {**models, "all else": clock["all"] - sum(models.values())}
    machine = ", ".join(f"{name} {rate / 1e9:,.0f}" for name, rate in rates.items())
    lines = [
        f"| images to labels, ours; this machine has {machine} GFLOP/s | share | GFLOP | GFLOP/s | of fp32 |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, seconds in shares.items():
        lines.append(f"| {name} | {seconds / clock['all']:.0%} |")
        if name in models:
            achieved = work[name] / seconds
            lines[-1] += (
                f" {work[name] / 1e9:,.1f} | {achieved / 1e9:,.1f} | {achieved / rates['fp32']:.0%} |"
            )
        else:
            lines[-1] += " | | |"
    return "\n".join(lines) + "\n"


def _plot(races: Sequence[Race]) -> str:
    rows = [
        (f"{race.name}: {one}", race.ratio(one)) for race in races for one in race.seconds if one != NAIVE
    ]
    return log_bars("Times as fast as the naive loop, median", rows)
