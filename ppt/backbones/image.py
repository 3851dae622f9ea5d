"""What both doors accept as an image."""

from typing import Any

import numpy as np
from jaxtyping import UInt8


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
