"""Command line of the foundation: train, pack, judge, build the demo data. See the package's docstring."""

import functools
import json
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from pipelines.foundation import clip as clip_training
from pipelines.foundation import data, judge
from pipelines.foundation import sam as sam_training
from pipelines.foundation.pack import pack as pack_weights
from pipelines.foundation.schedule import side_by_side
from ppt.backbones.clip import load_clip
from ppt.backbones.sam import load_sam
from ppt.backbones.weights import SHIPPED
from ppt.scenes.cutouts import load_cutouts

app = typer.Typer(add_completion=False, help=__doc__)
SIDE: int = sam_training.CONFIG["image_encoder"]["img_size"]
DENSE_SIZE = 320  # as in configs/demo.yaml
Folder = Annotated[Path, typer.Option(help="Where checkpoints are kept; run again to resume.")]
Minutes = Annotated[float, typer.Option(help="Planned length; the learning rate falls to zero at its end.")]


@app.command()
def clip(folder: Folder = Path("outputs/foundation"), minutes: Minutes = 95) -> None:
    """Train the small CLIP on composed scenes and their sentences, on one thread."""
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    clip_training.train(folder, minutes)


@app.command()
def sam(
    folder: Folder = Path("outputs/foundation"),
    minutes: Minutes = 85,
    side: Annotated[int, typer.Option(help="Pixels a side that scenes are resized to, as SAM does.")] = SIDE,
    rate: Annotated[float, typer.Option(help="Highest learning rate.")] = 7e-4,
    floor: Annotated[float, typer.Option(help="Share of it that is left at the end.")] = 0,
    start: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Weights to begin from: sam.pt, or packed ones."),
    ] = None,
    processes: Annotated[
        int, typer.Option(min=1, max=sam_training.BATCH, help="Processes that share each step.")
    ] = 2,
    threads: Annotated[int, typer.Option(help="Threads of each.")] = 1,
) -> None:
    """Train the small SAM on clicks in scenes of two thirds of the cut-outs and of drawings."""
    batch = sam_training.BATCH // processes
    train = functools.partial(
        sam_training.train,
        folder=folder, minutes=minutes, side=side, rate=rate, floor=floor, start=start, batch=batch,
    )  # fmt: skip
    side_by_side(train, processes, threads, folder)


@app.command()
def pack(
    folder: Folder = Path("outputs/foundation"),
    to: Path = SHIPPED,
    also: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Another sam.pt: SAM is the mean of both."),
    ] = None,
) -> None:
    """Write the averaged weights as fp16 safetensors with their configs and sha256: the embedded default."""
    pack_weights(folder, to, also)


@app.command(name="data")
def demo_data(
    to: Annotated[Path, typer.Option(help="Folder to write.")],
    times: Annotated[int, typer.Option(min=1, help="How many times the demo's count of images.")] = 1,
) -> None:
    """Compose the demo's images, sentences and truth, or more of their kind."""
    data.build(to, times)


@app.command(name="judge")
def judge_all(scenes: Annotated[int, typer.Option(help="Scenes per figure.")] = 630) -> None:
    """Print the figures that the README states, as JSON."""
    cutouts = load_cutouts()
    small_clip, small_sam = load_clip("embedded", None, "cpu", DENSE_SIZE), load_sam("embedded", None, "cpu")
    pointing, objects = judge.pointing(small_clip, cutouts, scenes)
    asked = {"1-3 clicks": "mixed", "one interior click": "one"}
    found = {name: judge.clicks(small_sam, cutouts, scenes // 3, kind) for name, kind in asked.items()}
    figures = {
        "clip zero-shot top-1": {"value": judge.zero_shot(small_clip, cutouts, scenes), "n": scenes},
        "clip names": len({c.name for c in cutouts}),
        "clip pointing": {"value": pointing, "n": objects},
        **{
            f"sam unseen, {name}, {size}": {"value": float(np.mean(values)), "n": len(values)}
            for name, scores in found.items()
            for size, values in judge.by_size(scores).items()
        },
    }
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    app()
