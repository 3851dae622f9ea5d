"""`ppt predict`: its options, and what it prints."""

import json
from typing import Annotated

import typer

from pipelines.destination import destination
from pipelines.exits import leave, tell
from pipelines.options import Fresh, Output, Overrides
from ppt.config import ConfigError
from ppt.places import on_disk, place


def predict(
    weights: Annotated[str, typer.Option(help="The folder or URL of a run, or of its segmenter.")],
    image: Annotated[str, typer.Option(help="An image, a folder of images, or a file of pairs.")],
    text: Annotated[str | None, typer.Option(help="What to look for; pairs have their own.")] = None,
    output: Output = "outputs/predict",
    overrides: Overrides = [],  # noqa: B006 -- typer copies it
    fresh: Fresh = False,
) -> None:
    """Ask a trained segmenter: the mask of a sentence in your own images."""
    from pipelines import predict

    segmenter = predict.segmenter_of(place(weights))
    named = place(image)
    if named.suffix.lower() in predict.PAIRS:
        config = predict.config_of(segmenter, [*overrides, f"records.pairs={json.dumps(str(named))}"])
        summaries = predict.pairs(segmenter, config, destination(output, config), fresh)
        for summary in summaries:
            tell(summary.line())
        return leave(sum(summary.skipped for summary in summaries), summaries[-1].items)
    if not (text and text.strip()):
        raise ConfigError("--text: say what to look for in the image (got nothing)")
    made: list[bool] = []
    config = predict.config_of(segmenter, overrides)
    folder = destination(output, config)
    for line, read in predict.pictures(segmenter, config, on_disk(named, "--image"), text, folder):
        tell(line)
        made.append(read)
    leave(made.count(False), made.count(True))
