"""What the doors accept as an image, and how a tower is given one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from ppt.geometry import longest_side_size


def checked_rgb(image: Any) -> UInt8[np.ndarray, "h w 3"]:
    """`image` as contiguous uint8 RGB of shape (h, w, 3), h and w at least 1.

    Raises ValueError with the shape and dtype found. Never converts: floats in [0, 1] would turn black.
    """
    if not isinstance(image, np.ndarray):
        raise ValueError(f"an image must be a uint8 array of shape (h, w, 3), got {type(image).__name__}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(
            f"an image must be a uint8 array of shape (h, w, 3), got {image.dtype} {image.shape}"
        )
    return np.ascontiguousarray(image)


@dataclass(frozen=True)
class Colours:
    """As some weights were trained with: mean and standard deviation of red, green, blue in [0, 1], and
    whether images were resized bilinearly rather than bicubically.
    """

    mean: Sequence[float]
    std: Sequence[float]
    bilinear: bool = False

    def normalised(
        self, image: UInt8[np.ndarray, "h w 3"], height: int, width: int
    ) -> Float[Tensor, "3 height width"]:
        """An RGB image resized, and its colours normalised."""
        how = Image.Resampling.BILINEAR if self.bilinear else Image.Resampling.BICUBIC
        resized = Image.fromarray(image).resize((width, height), how)
        mean, std = torch.tensor([self.mean, self.std]).view(2, 3, 1, 1)
        return torch.from_numpy(np.array(resized)).permute(2, 0, 1).float().div(255).sub(mean).div(std)

    def framed(self, image: UInt8[np.ndarray, "h w 3"], side: int) -> Float[Tensor, "3 s s"]:
        """An RGB image normalised in a square of `side` pixels, 0 right of it and below."""
        height, width = checked_rgb(image).shape[:2]
        high, wide = longest_side_size(height, width, side)
        square = torch.zeros(3, side, side)
        square[:, :high, :wide] = self.normalised(image, high, wide)
        return square
