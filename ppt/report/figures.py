"""What the report draws, as text for a page: a photograph as JPEG, a map as a tiny PNG, a mask as a vector.

Every picture of an item is the same photograph under something else. So the photograph goes into the page
once per image content, and masks and points lie over it in original pixels: small, and sharp at any zoom.
"""

import base64
import io

import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from ppt import rle
from ppt.geometry import grid_to_pixels, longest_side_size, resize_map_to_image
from ppt.places import Place
from ppt.report.preview import heat_palette
from ppt.rle import Rle
from ppt.types import RelevanceMap

PHOTO_SIDE, PHOTO_QUALITY = 448, 80
_TRACE_SIDE, _TRACE_SLACK = 512, 0.6
_MOST_PARTS = 200
_HEAT_STEPS = 4


def photo_jpeg(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """The image as a JPEG, its longest side at most PHOTO_SIDE pixels."""
    height, width = image.shape[:2]
    if max(height, width) > PHOTO_SIDE:
        height, width = longest_side_size(height, width, PHOTO_SIDE)
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    quality = [cv2.IMWRITE_JPEG_QUALITY, PHOTO_QUALITY, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
    _, coded = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), quality)
    return coded.tobytes()


def sheet_uri(path: Place) -> str:
    """A sheet of pictures in a file as a JPEG data URI."""
    coded = io.BytesIO()
    with Image.open(io.BytesIO(path.read_bytes())) as sheet:
        sheet.convert("RGB").save(coded, "JPEG", quality=PHOTO_QUALITY, optimize=True)
    return data_uri("jpeg", coded.getvalue())


def heat_uri(relevance: RelevanceMap) -> str | None:
    """The map over the whole image as a PNG data URI with transparency; None where the map is no evidence."""
    stretched = relevance.normalised()
    if stretched is None:
        return None
    # Fine enough that the browser's interpolation of colours is that of the map.
    height, width = (min(side * _HEAT_STEPS, 256) for side in stretched.values.shape)
    levels = (resize_map_to_image(stretched.values, height, width) * 255).round().astype(np.uint8)
    palette = heat_palette()
    picture = Image.fromarray(levels).convert("L")
    picture.putpalette(palette[:, :3].tobytes())
    coded = io.BytesIO()
    picture.save(coded, "PNG", optimize=True, transparency=palette[:, 3].tobytes())
    return data_uri("png", coded.getvalue())


def mask_path(mask: Rle) -> str:
    """The mask's outline as SVG path data in original pixels (fill rule evenodd); "" for an empty mask.

    Traced at 512 pixels; of masks in very many parts only the largest parts are drawn.
    """
    size = (mask.height, mask.width)
    small = _reduced(rle.decode(mask))
    rings, _ = cv2.findContours(small.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    largest = sorted(rings, key=lambda ring: -cv2.contourArea(ring))[:_MOST_PARTS]
    traced = (small.shape[0], small.shape[1])
    corners = (cv2.approxPolyDP(ring, _TRACE_SLACK, True)[:, 0].astype(np.float64) for ring in largest)
    return "".join(_ring(grid_to_pixels(xy, traced, size)) for xy in corners)


def _reduced(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "th tw"]:
    height, width = mask.shape
    if max(height, width) <= _TRACE_SIDE:
        return mask
    height, width = longest_side_size(height, width, _TRACE_SIDE)
    share = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    return share >= 0.5 if (share >= 0.5).any() else share > 0


def _ring(xy: np.ndarray) -> str:
    return "M" + "L".join(f"{number(x)} {number(y)}" for x, y in xy.tolist()) + "Z"


def number(value: float) -> str:
    """One decimal, without a trailing ".0": enough for a picture."""
    return f"{value:.1f}".removesuffix(".0")


def data_uri(kind: str, content: bytes) -> str:
    """Bytes of an image of that kind (jpeg, png) as a URI."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
