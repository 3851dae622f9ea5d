"""What a step of the two trainings takes, and how much of it is spent on making its lessons ready.

    ppt benchmark train CONFIG.yaml --output DIR [--pairs PAIRS]

Walks from the pairs to a trained segmenter in DIR/benchmark/train, with `benchmark.steps` steps of each
training. Writes DIR/benchmark/train.json and train.md. Times are of this machine as it is used just now.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from pipelines import run as recipe
from pipelines import s5_segmenter
from pipelines.benchmark.turns import clocked
from pipelines.s2_points import training
from pipelines.s5_segmenter.lessons import Pseudo
from ppt.config import Config
from ppt.durable import write_atomic

TRAININGS = {"points": "the point generator", "segmenter": "the segmenter"}


def train(config: Config, output: Path) -> str:
    """Run both trainings; returns the table as Markdown."""
    folder, steps = output / "benchmark" / "train", config.benchmark.steps
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    changed = {
        "points": config.points.model_copy(update={"method": "generator"}),
        "generator": config.generator.model_copy(update={"steps": steps}),
        "segmenter": config.segmenter.model_copy(update={"steps": steps}),
    }
    config, clock = config.model_copy(update=changed), dict[str, float]()
    timed = {
        "points": (training, "train"),
        "points, lessons": (training, "draw"),
        "segmenter": (s5_segmenter, "train"),
        "segmenter, lessons": (Pseudo, "drawn"),
    }
    with clocked(clock, timed):
        for name in ("records", "relevance", "points", "masks", "labels", "segmenter"):
            recipe.STAGES[name](config, folder, False)
    how = config.segmenter
    batches = {"points": config.generator.batch, "segmenter": how.batch * how.accumulate}
    table = _markdown(clock, batches, steps)
    kept = {"steps": steps, "batches": batches, "seconds": clock}
    write_atomic(output / "benchmark" / "train.json", (json.dumps(kept, indent=1) + "\n").encode())
    write_atomic(output / "benchmark" / "train.md", table.encode())
    return table


def _markdown(clock: Mapping[str, float], batches: Mapping[str, int], steps: int) -> str:
    lines = [
        f"| {steps} steps | sentences a step | ms a step | sentences a second | making lessons ready |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, title in TRAININGS.items():
        each, batch = clock[name] / steps, batches[name]
        share = clock[f"{name}, lessons"] / clock[name]
        lines.append(f"| {title} | {batch} | {1000 * each:.0f} | {batch / each:.1f} | {share:.0%} |")
    return "\n".join(lines) + "\n"
