"""Pictures of what a stage did, drawn onto the image, for `preview.png`; and the colours the report shares.

Images are (h, w, 3) uint8 RGB. Every function returns a new array and touches no file.
"""

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from ppt import rle
from ppt.geometry import resize_map_to_image
from ppt.rle import Rle
from ppt.types import PointSet, RelevanceMap

Colour = tuple[int, int, int]

POSITIVE: Colour = (34, 160, 84)
NEGATIVE: Colour = (214, 58, 50)
IGNORED: Colour = (150, 152, 158)
MASK: Colour = (38, 132, 255)
TRUTH: Colour = (255, 178, 36)

_PAPER, _INK, _GAP, _LINE = 252, 40, 12, 17
_LONGEST = 500
"""Characters of a caption that are looked at."""


def heat_palette() -> UInt8[np.ndarray, "256 4"]:
    """RGBA for relevance 0..255: dark and thin where low, bright and dense where high."""
    steps = np.arange(256, dtype=np.uint8)[:, None]
    rgb = cv2.applyColorMap(steps, cv2.COLORMAP_INFERNO)[:, 0, ::-1]
    alpha = np.linspace(0.35, 0.9, 256) * 255
    return np.concatenate([rgb, alpha.round().astype(np.uint8)[:, None]], axis=1)


def overlay_heat(relevance: RelevanceMap, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """The map, stretched to [0, 1], over the image in grey; the grey image alone where it is no evidence."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None].repeat(3, axis=2)
    stretched = relevance.normalised()
    if stretched is None:
        return grey
    height, width = image.shape[:2]
    levels = (resize_map_to_image(stretched.values, height, width) * 255).round().astype(np.uint8)
    rgba = heat_palette()[levels]
    return _blend(grey, rgba[..., :3], rgba[..., 3:] / np.float32(255))


def overlay_mask(
    image: UInt8[np.ndarray, "h w 3"], mask: Rle, colour: Colour = MASK, alpha: float = 0.45
) -> UInt8[np.ndarray, "h w 3"]:
    """The mask as a tint of `alpha` in [0, 1] (0: outline only) and an outline."""
    height, width = image.shape[:2]
    if (mask.height, mask.width) != (height, width):
        raise ValueError(f"mask is {mask.height}x{mask.width} but its image is {height}x{width}")
    covered = rle.decode(mask).astype(np.uint8)
    tinted = _blend(image, np.array(colour, np.uint8), (covered * np.float32(alpha))[..., None])
    outline, _ = cv2.findContours(covered, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    thickness = max(1, round(_unit(image) / 4))
    cv2.drawContours(tinted, outline, -1, (255, 255, 255), thickness + 2, cv2.LINE_AA)
    return cv2.drawContours(tinted, outline, -1, colour, thickness, cv2.LINE_AA)


def draw_points(image: UInt8[np.ndarray, "h w 3"], points: PointSet) -> UInt8[np.ndarray, "h w 3"]:
    """Green plus, red minus, grey ring for ignored, in the image's own pixels; positive points lie on top."""
    drawn = image.copy()
    radius = _unit(image)
    for index in np.argsort(points.labels, kind="stable"):
        x, y = (round(float(value)) for value in points.xy[index])
        _draw_point(drawn, (x, y), int(points.labels[index]), radius)
    return drawn


def contact_sheet(
    tiles: list[UInt8[np.ndarray, "_ _ 3"]], captions: list[str], columns: int, side: int = 240
) -> UInt8[np.ndarray, "_ _ 3"]:
    """Tiles in rows of `columns`, each fitted into `side` pixels, a caption of at most two lines below each.

    Raises ValueError when tiles and captions differ in number, when there is no tile, or when columns < 1.
    """
    if len(tiles) != len(captions) or not tiles or columns < 1:
        raise ValueError(
            "a sheet needs one caption per tile, at least one tile and one column, "
            f"got {len(tiles)} tiles, {len(captions)} captions, {columns} columns"
        )
    fitted = [_fit(tile, side) for tile in tiles]
    rows = [fitted[start : start + columns] for start in range(0, len(fitted), columns)]
    heights = [max(tile.shape[0] for tile in row) + 2 * _LINE + 2 * _GAP for row in rows]
    width = _GAP + min(columns, len(tiles)) * (side + _GAP)
    sheet = Image.new("RGB", (width, _GAP + sum(heights)), (_PAPER,) * 3)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for index, tile in enumerate(fitted):
        row, column = divmod(index, columns)
        left, top = _GAP + column * (side + _GAP), _GAP + sum(heights[:row])
        foot = top + heights[row] - 2 * _LINE - 2 * _GAP
        sheet.paste(Image.fromarray(tile), (left, foot - tile.shape[0]))
        for line, text in enumerate(_wrapped(captions[index], font, side)):
            pen.text((left, foot + 4 + line * _LINE), text, fill=(_INK,) * 3, font=font)
    return np.asarray(sheet)


def encode_png(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """PNG bytes, the same for the same pixels: what a stage writes as `preview.png`."""
    _, coded = cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))
    return coded.tobytes()


def _unit(image: np.ndarray) -> int:
    """Radius of a point: legible at any image size."""
    return max(4, round(max(image.shape[:2]) / 64))


def _blend(below: np.ndarray, above: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return (below * (1 - alpha) + above * alpha).round().astype(np.uint8)


def _draw_point(drawn: np.ndarray, xy: tuple[int, int], label: int, radius: int) -> None:
    (x, y), arm = xy, max(2, radius // 2)
    stroke = max(1, radius // 4)
    colour = {1: POSITIVE, 0: NEGATIVE, -1: IGNORED}[label]
    cv2.circle(drawn, (x, y), radius + stroke, (255, 255, 255), -1, cv2.LINE_AA)
    cv2.circle(drawn, (x, y), radius, colour, -1 if label >= 0 else stroke, cv2.LINE_AA)
    if label >= 0:
        cv2.line(drawn, (x - arm, y), (x + arm, y), (255, 255, 255), stroke, cv2.LINE_AA)
    if label == 1:
        cv2.line(drawn, (x, y - arm), (x, y + arm), (255, 255, 255), stroke, cv2.LINE_AA)


def _fit(tile: np.ndarray, side: int) -> np.ndarray:
    height, width = tile.shape[:2]
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(tile, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def _wrapped(caption: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: int) -> list[str]:
    """At most two lines that fit `width` pixels; what does not fit ends in an ellipsis."""
    lines: list[str] = []
    words = caption[:_LONGEST].split()
    while words and len(lines) < 2:
        count = len(words)
        while count > 1 and font.getlength(" ".join(words[:count])) > width:
            count -= 1
        lines.append(" ".join(words[:count]))
        words = words[count:]
    if lines and (words or len(caption) > _LONGEST or font.getlength(lines[-1]) > width):
        while lines[-1] and font.getlength(lines[-1] + "…") > width:
            lines[-1] = lines[-1][:-1]
        lines[-1] += "…"
    return lines
