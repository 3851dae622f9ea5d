"""Cut-outs on varied backgrounds, with the exact visible mask of every object.

Layout, scale, flip, tilt, occlusion, lighting, shadow, blur and JPEG noise vary; every choice comes from the
generator passed in, so a scene is a function of its seed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8

from ppt.scenes.cutouts import Cutout, colour_word


@dataclass(frozen=True)
class Instance:
    """One object in a scene. `mask` (h, w) bool holds its visible pixels; `centre_xy` and `size` are of its
    full extent.

    `centre_xy` is in pixels of the scene, `size` the square root of the unoccluded area in pixels; `colour`
    is the word for more than half of the object as rendered, or None.
    """

    cutout: int
    name: str
    colour: str | None
    mask: Bool[np.ndarray, "h w"]
    centre_xy: tuple[float, float]
    size: float


@dataclass(frozen=True)
class Scene:
    """A composed image (h, w, 3) uint8 RGB and its objects, from the back to the front."""

    image: UInt8[np.ndarray, "h w 3"]
    instances: tuple[Instance, ...]


def _noise(rng: np.random.Generator, height: int, width: int, cells: int) -> np.ndarray:
    """Smooth noise in [0, 1], (height, width) float32, about `cells` bumps along the longer side."""
    rows = max(2, cells * height // max(height, width))
    columns = max(2, cells * width // max(height, width))
    coarse = rng.random((rows, columns), dtype=np.float32)
    return np.clip(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), 0, 1)


def background(rng: np.random.Generator, height: int, width: int) -> Float32[np.ndarray, "h w 3"]:
    """A made-up place: gradients, stripes, blotches, ground and sky, grain. Float32 RGB in [0, 255]."""
    base, other = rng.uniform(30, 235, 3), rng.uniform(30, 235, 3)
    other = base + (other - base) * rng.uniform(0.2, 0.8)
    grayness = rng.beta(3, 1.5)
    base, other = (tone + (tone.mean() - tone) * grayness for tone in (base, other))
    kind = rng.integers(0, 5)
    if kind == 0:
        angle = rng.uniform(0, 2 * np.pi)
        ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
        blend = np.cos(angle) * xs / width + np.sin(angle) * ys / height
        blend = (blend - blend.min()) / np.ptp(blend)
    elif kind == 1:
        blend = 0.6 * _noise(rng, height, width, 4) + 0.4 * _noise(
            rng, height, width, int(rng.integers(8, 30))
        )
    elif kind == 2:
        ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
        wave = xs if rng.random() < 0.5 else ys
        blend = 0.5 + 0.5 * np.sin(wave / rng.uniform(2, 20) + 4 * _noise(rng, height, width, 5))
        blend = blend * rng.uniform(0.2, 0.8)
    elif kind == 3:
        horizon = height * rng.uniform(0.25, 0.75)
        rows = np.arange(height, dtype=np.float32)[:, None].repeat(width, 1)
        blend = np.clip(0.5 + (rows - horizon) / rng.uniform(2, 30), 0, 1) * 0.7 + 0.3 * _noise(
            rng, height, width, 20
        )
    else:
        blend = 0.3 * _noise(rng, height, width, 3)
    place = base + (other - base) * np.clip(blend, 0, 1)[..., None]
    if rng.random() < 0.35:
        place = _clutter(rng, place)
    texture = rng.uniform(0, 12) * (_noise(rng, height, width, int(rng.integers(20, 80)))[..., None] - 0.5)
    return np.clip(place + 2 * texture, 0, 255).astype(np.float32)


def _clutter(rng: np.random.Generator, place: np.ndarray) -> np.ndarray:
    """Plain shapes and lines of the background: things, but nothing with a name."""
    height, width = place.shape[:2]
    canvas = place.astype(np.float32)
    for _ in range(int(rng.integers(1, 5))):
        colour = [float(c) for c in np.clip(place[0, 0] + rng.normal(0, 40, 3), 0, 255)]
        start = (int(rng.integers(0, width)), int(rng.integers(0, height)))
        end = (int(rng.integers(0, width)), int(rng.integers(0, height)))
        if rng.random() < 0.5:
            cv2.line(canvas, start, end, colour, int(rng.integers(1, 10)), cv2.LINE_AA)
        else:
            cv2.rectangle(canvas, start, end, colour, -1)
    return cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.5, 3))


def _pose(rng: np.random.Generator, rgba: np.ndarray, longest: float, recolour: bool) -> np.ndarray:
    """The cut-out flipped, tilted, lit, scaled so that its longest side is `longest` pixels; float32 RGBA."""
    if rng.random() < 0.5:
        rgba = rgba[:, ::-1]
    if recolour:
        hsv = cv2.cvtColor(np.ascontiguousarray(rgba[..., :3]), cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(int) + int(rng.integers(20, 160))) % 180
        hsv[..., 1] = np.clip(hsv[..., 1].astype(int) + 60, 0, 255)
        rgba = np.dstack([cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), rgba[..., 3]])
    height, width = rgba.shape[:2]
    scale = longest / max(height, width)
    angle = float(rng.normal(0, 7)) if rng.random() < 0.6 else 0.0
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), angle, scale)
    cos, sin = abs(turn[0, 0]), abs(turn[0, 1])
    out_w, out_h = max(4, round(width * cos + height * sin)), max(4, round(width * sin + height * cos))
    turn[:, 2] += (out_w / 2 - width / 2, out_h / 2 - height / 2)
    if scale < 0.6:
        shrink = max(scale * 1.4, 4 / min(height, width))
        smaller = cv2.resize(rgba, None, fx=min(1, shrink), fy=min(1, shrink), interpolation=cv2.INTER_AREA)
        turn[:, :2] *= width / smaller.shape[1]
        rgba = smaller
    posed = rgba.astype(np.float32)
    posed[..., :3] *= posed[..., 3:] / 255
    posed = cv2.warpAffine(posed, turn, (out_w, out_h), flags=cv2.INTER_LINEAR)
    alpha = np.maximum(posed[..., 3:] / 255, 1e-3)
    colour = posed[..., :3] / alpha
    colour = (colour - 128) * rng.uniform(0.8, 1.2) + 128 * rng.uniform(0.75, 1.2) + rng.normal(0, 6, 3)
    return np.dstack([np.clip(colour, 0, 255), posed[..., 3]]).astype(np.float32)


def _paste(canvas: np.ndarray, posed: np.ndarray, left: int, top: int, shadow: float) -> np.ndarray:
    """Blend `posed` into `canvas` at (left, top), its soft shadow first; returns the (h, w) bool mask it
    covers.
    """
    height, width = canvas.shape[:2]
    alpha = np.zeros((height, width), np.float32)
    y0, x0 = max(0, top), max(0, left)
    y1, x1 = min(height, top + posed.shape[0]), min(width, left + posed.shape[1])
    if y1 <= y0 or x1 <= x0:
        return alpha > 1
    part = posed[y0 - top : y1 - top, x0 - left : x1 - left]
    alpha[y0:y1, x0:x1] = part[..., 3] / 255
    if shadow > 0:
        reach = max(1.0, posed.shape[0] / 25)
        shift = np.array([[1, 0, reach], [0, 1, reach]], np.float32)
        moved = cv2.warpAffine(alpha, shift, (width, height))
        canvas *= (1 - shadow * cv2.blur(moved, (int(2 * reach) + 1,) * 2))[..., None]
    blend = alpha[y0:y1, x0:x1, None]
    canvas[y0:y1, x0:x1] = canvas[y0:y1, x0:x1] * (1 - blend) + part[..., :3] * blend
    return alpha > 0.5


def _finish(rng: np.random.Generator, canvas: np.ndarray) -> np.ndarray:
    """Lighting, blur, sensor noise and JPEG: what a camera does after the scene."""
    height, width = canvas.shape[:2]
    if rng.random() < 0.4:
        canvas = canvas * (0.7 + 0.5 * _noise(rng, height, width, 2))[..., None]
    if rng.random() < 0.3:
        canvas = cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.3, 0.9))
    canvas = canvas * rng.uniform(0.85, 1.12) + rng.standard_normal(
        (height, width, 1), dtype=np.float32
    ) * rng.uniform(0, 4)
    image = np.clip(canvas, 0, 255).astype(np.uint8)
    if rng.random() < 0.6:
        quality = int(rng.integers(55, 95))
        _, coded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        image = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR))[..., ::-1]
    return np.ascontiguousarray(image)


def compose(
    rng: np.random.Generator,
    cutouts: Sequence[Cutout],
    chosen: Sequence[int],
    height: int,
    width: int,
    recolour: Sequence[bool] = (),
    smallest_visible: float = 0.55,
) -> Scene:
    """Put the chosen cut-outs into one scene of (height, width) pixels.

    One object fills 0.35 to 0.95 of the shorter side; several share the room. An object of which less than
    `smallest_visible` would stay visible is tried elsewhere, and after twelve tries left out: the scene may
    hold fewer objects than asked, never none.
    """
    canvas = background(rng, height, width)
    placed: list[tuple[int, np.ndarray, np.ndarray, str | None, tuple[float, float], float]] = []
    shadow = rng.uniform(0.1, 0.45) if rng.random() < 0.6 else 0.0
    for order, index in enumerate(chosen):
        rgba = cutouts[index].rgba
        for attempt in range(12):
            longest = _longest_side(rng, len(chosen), min(height, width)) * 0.95**attempt
            posed = _pose(rng, rgba, longest, bool(recolour and recolour[order]))
            slack = 0.06 * longest
            left = int(rng.uniform(-slack, max(1, width - posed.shape[1] + slack)))
            top = int(rng.uniform(-slack, max(1, height - posed.shape[0] + slack)))
            full = _footprint(posed, left, top, height, width)
            whole = int((posed[..., 3] > 127).sum())
            left_visible = [(visible & ~full).sum() / max(1, solid) for _, visible, _, _, _, solid in placed]
            if (
                full.sum() >= 0.85 * whole
                and whole >= 60
                and all(v >= smallest_visible for v in left_visible)
            ):
                break
        else:
            continue
        _paste(canvas, posed, left, top, shadow)
        placed = [(i, v & ~full, f, c, xy, s) for i, v, f, c, xy, s in placed]
        centre = (left + posed.shape[1] / 2, top + posed.shape[0] / 2)
        placed.append((index, full, full, colour_word(posed.astype(np.uint8)), centre, float(whole)))
    instances = tuple(
        Instance(i, cutouts[i].name, colour, visible, xy, float(np.sqrt(solid)))
        for i, visible, _, colour, xy, solid in placed
    )
    if not instances:
        return compose(rng, cutouts, chosen[:1], height, width, recolour[:1], smallest_visible)
    return Scene(_finish(rng, canvas), instances)


def _longest_side(rng: np.random.Generator, objects: int, shorter: int) -> float:
    low, high = {1: (0.35, 0.95), 2: (0.3, 0.68), 3: (0.27, 0.58)}.get(objects, (0.24, 0.5))
    return shorter * rng.uniform(low, high)


def _footprint(posed: np.ndarray, left: int, top: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    y0, x0 = max(0, top), max(0, left)
    y1, x1 = min(height, top + posed.shape[0]), min(width, left + posed.shape[1])
    if y1 > y0 and x1 > x0:
        mask[y0:y1, x0:x1] = posed[y0 - top : y1 - top, x0 - left : x1 - left, 3] > 127
    return mask
