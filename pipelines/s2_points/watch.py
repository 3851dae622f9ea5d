"""What a person can look at while the generator trains: losses in TensorBoard, its points on fixed images.

DIR/points/training/tensorboard holds times and is no part of the artifact, and is there on a disk alone;
points_<step>.png are.
"""

from collections.abc import Sequence

import numpy as np
from tensorboardX import SummaryWriter

from pipelines import stage
from pipelines.asking import example
from ppt.config import Config
from ppt.durable import write_atomic
from ppt.places import Place, Remote
from ppt.points.generator import PointGenerator
from ppt.points.prompter import Prompter
from ppt.points.scene import Example
from ppt.report import preview
from ppt.store import Artifact

SHOWN = 12


class Watch:
    """Called after every step with its losses. The images are the first that may teach, referring first."""

    def __init__(self, config: Config, output: Place, folder: Place, network: PointGenerator) -> None:
        self._every, self._folder = config.generator.save_every, folder
        self._prompter = Prompter(config.points, network)
        self._fixed = _fixed(config, output)
        self._board = SummaryWriter(
            str(folder / "tensorboard"), flush_secs=30, write_to_disk=not isinstance(folder, Remote)
        )

    def __call__(self, step: int, losses: dict[str, float]) -> None:
        for name, value in losses.items():
            self._board.add_scalar(f"points/{name}", value, step)
        if (step + 1) % self._every == 0 and self._fixed:
            tiles, captions = self._tiles()
            sheet = preview.contact_sheet(tiles, captions, columns=6)
            write_atomic(self._folder / f"points_{step + 1:06d}.png", preview.encode_png(sheet))

    def _tiles(self) -> tuple[list[np.ndarray], list[str]]:
        tiles, captions = [], []
        for pixels, text, asked in self._fixed:
            [[surest, *_]] = self._prompter([asked])
            tiles.append(preview.draw_points(pixels, surest.points))
            captions.append(text)
        return tiles, captions


def _fixed(config: Config, output: Place) -> Sequence[tuple[np.ndarray, str, Example]]:
    records, relevance = Artifact.open(output / "records"), Artifact.open(output / "relevance")
    held = stage.held_out(records, config.generator.splits)
    fixed: list[tuple[np.ndarray, str, Example]] = []
    for source in ("referring", "object_centric"):
        for key in relevance.keys:
            tensors = relevance.tensors(key)
            for sha256, (record, *_) in stage.by_content(records, key).items():
                shown = sha256 not in held and record.pair.source == source
                if len(fixed) < SHOWN and shown and f"map/{record.pair.id}" in tensors:
                    pixels = stage.picture(config, output, record.pair.image, sha256)
                    if pixels is not None:
                        fixed.append((pixels, record.pair.text, example(tensors, record)))
            if len(fixed) == SHOWN:
                return fixed
    return fixed
