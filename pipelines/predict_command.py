"""`ppt predict`: its options, and what it prints."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pipelines.exits import leave, tell
from pipelines.options import Fresh, Output, Overrides
from ppt.config import ConfigError


def predict(
    weights: Annotated[Path, typer.Option(help="The folder of a run, or of its segmenter.")],
    image: Annotated[Path, typer.Option(help="An image, a folder of images, or a file of pairs.")],
    text: Annotated[str | None, typer.Option(help="What to look for; pairs have their own.")] = None,
    output: Output = Path("outputs/predict"),
    overrides: Overrides = [],  # noqa: B006 -- typer copies it
    fresh: Fresh = False,
) -> None:
    """Ask a trained segmenter: the mask of a sentence in your own images."""
    from pipelines import predict

    segmenter = predict.segmenter_of(weights)
    if image.suffix.lower() in predict.PAIRS:
        config = predict.config_of(segmenter, [*overrides, f"records.pairs={json.dumps(str(image))}"])
        summaries = predict.pairs(segmenter, config, output, fresh)
        for summary in summaries:
            tell(summary.line())
        return leave(sum(summary.skipped for summary in summaries), summaries[-1].items)
    if not (text and text.strip()):
        raise ConfigError("--text: say what to look for in the image (got nothing)")
    made: list[bool] = []
    for line, read in predict.pictures(
        segmenter, predict.config_of(segmenter, overrides), image, text, output
    ):
        tell(line)
        made.append(read)
    leave(made.count(False), made.count(True))
