"""The only place where frames change.

Sizes are (height, width); points are (x, y), float32, computed in float64. The frames of points:

- *original pixels*: of the image as read; pixel centres at integers, so the image spans -0.5 to width - 0.5.
- *grid*: of CLIP's patch grid over the same extent; cell centres at integers.
- *SAM pixels*: of the image resized for SAM, in SAM's own convention.
"""

import numpy as np
from jaxtyping import Float, Float32

Size = tuple[int, int]


def grid_to_pixels(xy: Float[np.ndarray, "n 2"], grid: Size, image: Size) -> Float32[np.ndarray, "n 2"]:
    """Grid points -> original pixels: the centre of cell j of gw over width w is (j + 0.5) * w / gw - 0.5."""
    return _rescale(xy, grid, image)


def pixels_to_grid(xy: Float[np.ndarray, "n 2"], grid: Size, image: Size) -> Float32[np.ndarray, "n 2"]:
    """Original pixels -> real-valued grid points, undoing `grid_to_pixels`; rounding gives the cell."""
    return _rescale(xy, image, grid)


def pixels_to_sam(xy: Float[np.ndarray, "n 2"], image: Size, resized: Size) -> Float32[np.ndarray, "n 2"]:
    """Original pixels -> SAM pixels as `ResizeLongestSide.apply_coords` does: a scale without half pixels.

    SAM's prompt encoder adds its own 0.5 afterwards; the weights were trained with this convention.
    """
    _check_sizes(image=image, resized=resized)
    scale = np.array([resized[1] / image[1], resized[0] / image[0]])
    return (xy.astype(np.float64) * scale).astype(np.float32)


def resize_map_to_image(
    values: Float32[np.ndarray, "gh gw"], height: int, width: int
) -> Float32[np.ndarray, "h w"]:
    """Bilinear resize of a grid map to original pixels; half-pixel centres, edges repeated.

    Plain elementwise arithmetic, so the same bytes come out on every machine.
    """
    _check_sizes(map=values.shape, image=(height, width))
    low, high, mix = _neighbours(values.shape[0], height)
    rows = values[low] * (1 - mix)[:, None] + values[high] * mix[:, None]
    low, high, mix = _neighbours(values.shape[1], width)
    return rows[:, low] * (1 - mix) + rows[:, high] * mix


def longest_side_size(height: int, width: int, target: int) -> Size:
    """Size whose longest side is `target`, rounded as SAM's `ResizeLongestSide` does; at least one pixel."""
    _check_sizes(image=(height, width), target=(target, target))
    scale = target / max(height, width)
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def short_side_size(height: int, width: int, target: int, multiple: int, max_long: int) -> Size:
    """Size for CLIP at the image's own aspect ratio: short side near `target`, long side at most `max_long`.

    Both sides are multiples of `multiple` (the patch size) and at least one patch; where the cap bites,
    both sides shrink together. Raises ValueError when `max_long` does not hold one patch.
    """
    _check_sizes(image=(height, width), target=(target, multiple))
    if max_long < multiple:
        raise ValueError(f"max_long must hold at least one patch of {multiple} pixels, got {max_long}")
    scale = min(target / min(height, width), max_long / max(height, width))
    most = max_long // multiple
    patches = (int(side * scale / multiple + 0.5) for side in (height, width))
    new_height, new_width = (min(max(1, count), most) * multiple for count in patches)
    return new_height, new_width


def _rescale(xy: Float[np.ndarray, "n 2"], source: Size, target: Size) -> Float32[np.ndarray, "n 2"]:
    _check_sizes(source=source, target=target)
    scale = np.array([target[1] / source[1], target[0] / source[0]])
    return ((xy.astype(np.float64) + 0.5) * scale - 0.5).astype(np.float32)


def _neighbours(source: int, target: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each of `target` samples: the two source samples around it and the weight of the second."""
    position = np.clip((np.arange(target) + 0.5) * (source / target) - 0.5, 0, source - 1)
    low = np.floor(position).astype(np.int64)
    return low, np.minimum(low + 1, source - 1), (position - low).astype(np.float32)


def _check_sizes(**sizes: tuple[int, ...]) -> None:
    for name, size in sizes.items():
        if min(size) < 1:
            raise ValueError(f"{name} size must be at least 1 on each side, got {size[0]}x{size[1]}")
