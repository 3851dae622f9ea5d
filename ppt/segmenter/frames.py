"""Images of any shape <-> the square that the segmenter reads: the longer side fills it, the rest is padding
to the right and below.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float32

from ppt.geometry import longest_side_size


@dataclass(frozen=True)
class Frame:
    """How an image of height x width pixels lies in a square of `side` pixels."""

    side: int
    height: int
    width: int

    @property
    def inner(self) -> tuple[int, int]:
        """(height, width) of the image in the square."""
        return longest_side_size(self.height, self.width, self.side)

    def covered(self, mask: Bool[np.ndarray, "h w"], grid: int) -> Float32[np.ndarray, "g g"]:
        """The share of each of grid x grid cells of the square that a mask of the image covers, in [0, 1]."""
        if mask.shape != (self.height, self.width):
            raise ValueError(f"a mask of {mask.shape} in the frame of an image of {self.height}x{self.width}")
        high, wide = self.inner
        square = np.zeros((self.side, self.side), np.float32)
        how = cv2.INTER_AREA if high <= self.height else cv2.INTER_LINEAR
        square[:high, :wide] = cv2.resize(mask.astype(np.float32), (wide, high), interpolation=how)
        return cv2.resize(square, (grid, grid), interpolation=cv2.INTER_AREA)

    def there(self, grid: int) -> Float32[np.ndarray, "g g"]:
        """The share of each cell that lies in the image."""
        return self.covered(np.ones((self.height, self.width), bool), grid)

    def middle(self, row: int, column: int, grid: int) -> Float32[np.ndarray, " 2"]:
        """x and y of the middle of one of grid x grid cells, in the image's own pixels; within the image."""
        high, wide = self.inner
        cell = self.side / grid
        x = (column + 0.5) * cell * self.width / wide - 0.5
        y = (row + 0.5) * cell * self.height / high - 0.5
        return np.array([min(max(x, 0), self.width - 1), min(max(y, 0), self.height - 1)], np.float32)

    def opened(self, values: Float32[np.ndarray, "g g"]) -> Float32[np.ndarray, "h w"]:
        """What lies over the square, in the image's own pixels."""
        high, wide = self.inner
        square = cv2.resize(values, (self.side, self.side), interpolation=cv2.INTER_LINEAR)
        inner = np.ascontiguousarray(square[:high, :wide])
        return cv2.resize(inner, (self.width, self.height), interpolation=cv2.INTER_LINEAR)
