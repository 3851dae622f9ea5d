"""Drawn things that SAM's training mixes among the cut-outs: shapes beyond those of two hundred photographs.

Debian's package `openclipart-png` (public domain) holds them: clip art with alpha masks. Only the training
reads it; what judges SAM are photographs alone.
"""

import functools
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from ppt.scenes.cutouts import Cutout, opaque_crop

CLIPART = Path("/usr/share/openclipart/png")
OF_THINGS = (
    "animals", "buildings", "computer/hardware", "containers", "decorations", "education", "electronics",
    "food", "office", "people", "plants", "recreation", "science", "tools", "transportation",
)  # fmt: skip
OF_SIGNS = {"aiga-symbols", "roadsigns", "cards", "stickmen"}


def find_drawings(folder: Path = CLIPART) -> list[Path]:
    """The pictures of things under `folder`, in the order of their paths; signs and cards are left out.

    Raises FileNotFoundError, naming the package to install, when there is none.
    """
    found = [path for kind in OF_THINGS for path in sorted((folder / kind).rglob("*.png"))]
    if not found:
        raise FileNotFoundError(f"no drawings at {folder}: install Debian's package openclipart-png")
    return [path for path in found if OF_SIGNS.isdisjoint(path.relative_to(folder).parts)]


def sample_drawing(
    rng: np.random.Generator, paths: Sequence[Path], texture: UInt8[np.ndarray, "h w 4"]
) -> Cutout:
    """One of the drawings; in half the cases the light and shade of `texture`, RGBA, lie on it.

    Drawings that are not one connected thing, or are all frame or all lines, are passed over.
    """
    rgba, path = None, paths[0]
    while rgba is None:
        path = paths[int(rng.integers(len(paths)))]
        rgba = _one_thing(path)
    if rng.random() < 0.5:
        rgba = np.dstack([_shaded(rng, rgba[..., :3], texture), rgba[..., 3]])
    return Cutout(path.as_posix(), path.stem, rgba, unseen_by_sam=False)


@functools.cache
def _one_thing(path: Path) -> np.ndarray | None:
    rgba = opaque_crop(path)
    if rgba is None:
        return None
    solid = rgba[..., 3] > 127
    _, _, stats, _ = cv2.connectedComponentsWithStats(solid.astype(np.uint8))
    areas = stats[1:, cv2.CC_STAT_AREA]
    return rgba if areas.max() >= 0.95 * areas.sum() and 0.1 <= solid.mean() <= 0.97 else None


def _shaded(rng: np.random.Generator, rgb: np.ndarray, texture: np.ndarray) -> np.ndarray:
    solid = texture[..., 3] > 127
    gray = texture[..., :3].mean(2, dtype=np.float32)
    gray = np.where(solid, gray, gray[solid].mean())
    light = cv2.resize(gray, (rgb.shape[1], rgb.shape[0]), interpolation=cv2.INTER_LINEAR)
    light = (light - light.mean()) / max(1.0, float(light.std()))
    return np.clip(rgb + rng.uniform(10, 45) * light[..., None], 0, 255).astype(np.uint8)
