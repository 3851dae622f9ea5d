"""Mosaics: images of several things made from images of one, with sentences that only place or size tells
apart.

The middle source of the curriculum. An object-centric image has a pseudo-mask and a sentence that is true of
it alone; several of them in one image give true negatives, and the same thing twice gives sentences in which
the name says nothing and the words of place everything. Why mosaics: PPT (Dai & Yang, CVPR 2024) names them
no further than its reference to YOLOv4; their making is ours.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

APART = 0.15
"""Least distance, as a share of the image's side, at which one thing is said to be left of another."""
LARGER = 1.5
"""Least ratio of areas at which one thing is said to be larger than another."""
LEAST_SEEN = 0.4
"""Share of a pasted thing that later ones must leave to be seen."""
THINGS = (2, 6)
"""Fewest and most things of a sampled mosaic."""
SENTENCES = 6
"""Most sentences that are kept of what can be said of one."""
KINDS = ("name", "position", "size", "relation")


@dataclass(frozen=True, eq=False)
class Piece:
    """An object-centric image (h, w, 3) uint8 RGB, the pseudo-mask of its thing, and its sentence."""

    image: UInt8[np.ndarray, "h w 3"]
    mask: Bool[np.ndarray, "h w"]
    text: str


@runtime_checkable
class Pieces(Protocol):
    """Pieces by number, from 0; they may be read when they are asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Piece: ...


@dataclass(frozen=True)
class Said:
    """A sentence that is true of one thing of a mosaic: its index, and one of KINDS."""

    text: str
    target: int
    kind: str


@dataclass(frozen=True, eq=False)
class Mosaic:
    """An image (h, w, 3) uint8 RGB, the visible mask of each thing with its own sentence, and sentences that
    are true of one.
    """

    image: UInt8[np.ndarray, "h w 3"]
    masks: tuple[Bool[np.ndarray, "h w"], ...]
    texts: tuple[str, ...]
    said: tuple[Said, ...]


def sample_mosaic(rng: np.random.Generator, pieces: Pieces, side: int) -> tuple[Mosaic, list[Said]]:
    """A mosaic of THINGS, with twins more often than not, and up to SENTENCES of what can be said of it, of
    all kinds alike.
    """
    twins, count = rng.random() < 0.6, int(rng.integers(THINGS[0], THINGS[1] + 1))
    count = min(count, len(pieces) + int(twins))
    mosaic = make_mosaic(rng, pieces, count, twins, rng.random() < 0.5, side)
    by_kind = [[said for said in mosaic.said if said.kind == kind] for kind in KINDS]
    mixed = [[said[i] for i in rng.permutation(len(said))] for said in by_kind]
    in_turn = [said[i] for i in range(SENTENCES) for said in mixed if i < len(said)]
    return mosaic, in_turn[:SENTENCES]


def make_mosaic(
    rng: np.random.Generator, pieces: Pieces, count: int, twins: bool, tiled: bool, side: int
) -> Mosaic:
    """A mosaic of `count` of the `pieces`, drawn at random; with `twins`, the first of them comes twice.

    tiled: whole images side by side, else things cut out and pasted on one of the images, its own thing
    hidden. The longer side has `side` pixels. Things hidden or out of sight are left out, and nothing is said
    of them.
    """
    if count < 1 + twins or not pieces:
        raise ValueError(f"a mosaic of {count} things from {len(pieces)} pieces, twins {twins}: too few")
    drawn = rng.permutation(len(pieces))[: count - twins].tolist()
    if twins:
        drawn = [drawn[0], *drawn]
    drawn = [drawn[i] for i in rng.permutation(len(drawn))]
    ratio = float(rng.uniform(0.7, 1))
    size = (round(side * ratio), side) if rng.random() < 0.6 else (side, round(side * ratio))
    used = [_varied(rng, pieces[i]) for i in drawn]
    if tiled:
        image, masks = _tile(rng, used, *size)
    else:
        image, masks = _paste(rng, used, pieces[int(rng.integers(len(pieces)))], *size)
    kept = [i for i, mask in enumerate(masks) if mask.sum() >= 0.002 * mask.size]
    masks = [masks[i] for i in kept]
    texts = tuple(used[i].text for i in kept)
    return Mosaic(image, tuple(masks), texts, tuple(sentences(rng, texts, masks)))


def sentences(
    rng: np.random.Generator, texts: Sequence[str], masks: Sequence[Bool[np.ndarray, "h w"]]
) -> list[Said]:
    """What can be said of each thing that is true of it alone; texts[i] is the sentence of masks[i].

    Two things are alike if their sentences are, less the article. A thing without its like is named, and
    placed too where it lies beyond all others; one with its like is only placed, sized or related.
    """
    nouns = [noun(text) for text in texts]
    places = [_place(mask) for mask in masks]
    said: list[Said] = []
    for i, own in enumerate(places):
        alike = [places[j] for j in range(len(nouns)) if j != i and nouns[j] == nouns[i]]
        others = [places[j] for j in range(len(nouns)) if j != i and nouns[j] != nouns[i]]
        if not alike:
            said.append(Said(texts[i], i, "name"))
        for where in _beyond(own, alike or others):
            said.append(Said(_placed(rng, nouns[i], where), i, "position"))
        if alike and all(own.area > LARGER * a.area for a in alike):
            said.append(Said(f"the {_one(rng, 'bigger', 'larger', 'big', 'large')} {nouns[i]}", i, "size"))
        if alike and all(own.area * LARGER < a.area for a in alike):
            said.append(Said(f"the {_one(rng, 'smaller', 'small', 'little')} {nouns[i]}", i, "size"))
        for j, anchor in enumerate(places):
            if nouns.count(nouns[j]) == 1 and j != i:
                for relation in _related(own, anchor, alike):
                    words = _one(rng, *RELATIONS[relation])
                    said.append(Said(f"the {nouns[i]} {words} the {nouns[j]}", i, "relation"))
    return said


def noun(text: str) -> str:
    """A sentence less its first article and its full stop: "A red apple." -> "red apple"."""
    words = text.strip().rstrip(".").split()
    if len(words) > 1 and words[0].lower() in ("a", "an", "the"):
        words = words[1:]
    return " ".join(words)


RELATIONS = {
    "left": ("to the left of", "left of", "on the left of"),
    "right": ("to the right of", "right of", "on the right of"),
    "top": ("above", "over"),
    "bottom": ("below", "under", "beneath"),
}


@dataclass(frozen=True)
class _Place:
    """Where a thing is: centre in [0, 1] of the image, and its share of the image's area."""

    x: float
    y: float
    area: float


def _place(mask: Bool[np.ndarray, "h w"]) -> _Place:
    ys, xs = np.nonzero(mask)
    return _Place(float(xs.mean() / mask.shape[1]), float(ys.mean() / mask.shape[0]), float(mask.mean()))


def _ahead(a: _Place, b: _Place) -> dict[str, float]:
    """How far `a` lies beyond `b` towards each side, in [-1, 1]."""
    return {"left": b.x - a.x, "right": a.x - b.x, "top": b.y - a.y, "bottom": a.y - b.y}


def _beyond(own: _Place, others: Sequence[_Place]) -> list[str]:
    """The sides on which `own` lies clearly beyond all others, or "middle" between two of them."""
    if not others:
        return []
    ahead = [_ahead(own, other) for other in others]
    sides = [side for side in RELATIONS if all(a[side] > APART for a in ahead)]
    xs = [other.x for other in others]
    if len(others) == 2 and min(xs) + APART < own.x < max(xs) - APART:
        sides.append("middle")
    return sides


def _related(own: _Place, anchor: _Place, alike: Sequence[_Place]) -> list[str]:
    """Relations to `anchor` that hold for `own` clearly, and for none of its like at all."""
    ahead = _ahead(own, anchor)
    main = max(ahead, key=lambda side: ahead[side])
    sides = [main] if ahead[main] > APART else []
    return [s for s in sides if all(_ahead(other, anchor)[s] <= 0 for other in alike)]


def _placed(rng: np.random.Generator, name: str, where: str) -> str:
    """One of the ways in which people place a thing."""
    if where == "middle":
        return _one(rng, f"the {name} in the middle", f"middle {name}", f"the {name} in the center")
    if where in ("left", "right"):
        ways = [f"the {name} on the {where}", f"{name} on the {where}", f"the {where}most {name}"]
        ways += [f"the {name} on the far {where}", f"{name} to the {where}", f"{name} on {where} side"]
    else:
        ways = [f"the {name} at the {where}", f"{name} at the {where}", f"the {name} on the {where}"]
        ways += [f"{'upper' if where == 'top' else 'lower'} {name}"]
    return _one(rng, *ways, f"{where} {name}", f"the {where} {name}", f"{where} {name}")


def _one(rng: np.random.Generator, *ways: str) -> str:
    return ways[int(rng.integers(len(ways)))]


def _varied(rng: np.random.Generator, piece: Piece) -> Piece:
    """The piece flipped half the time, a little lighter or darker: twins are not copies."""
    image, mask = piece.image, piece.mask
    if rng.random() < 0.5:
        image, mask = image[:, ::-1], mask[:, ::-1]
    lit = image.astype(np.float32) * rng.uniform(0.8, 1.2) + rng.uniform(-12, 12)
    return Piece(np.clip(lit, 0, 255).astype(np.uint8), np.ascontiguousarray(mask), piece.text)


def _tile(
    rng: np.random.Generator, used: Sequence[Piece], height: int, width: int
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Images side by side: rows of two or three, cut at places that vary, each image cropped around its thing
    to the shape of its tile.
    """
    image = np.zeros((height, width, 3), np.uint8)
    masks = []
    rows = 1 if len(used) <= 2 and rng.random() < 0.5 else (len(used) + 1) // 2 if len(used) < 5 else 2
    shares = np.array_split(np.arange(len(used)), rows)
    tops = _cuts(rng, height, rows)
    for row, share in enumerate(shares):
        lefts = _cuts(rng, width, len(share))
        for column, index in enumerate(share):
            box = slice(tops[row], tops[row + 1]), slice(lefts[column], lefts[column + 1])
            mask = np.zeros((height, width), bool)
            image[box], mask[box] = _cropped(rng, used[index], *image[box].shape[:2])
            masks.append(mask)
    return image, masks


def _cuts(rng: np.random.Generator, length: int, parts: int) -> list[int]:
    """0, the places between `parts` parts of about the same length, and `length`."""
    shares = rng.uniform(0.75, 1.25, parts)
    return [0, *np.round(np.cumsum(shares)[:-1] / shares.sum() * length).astype(int).tolist(), length]


def _cropped(
    rng: np.random.Generator, piece: Piece, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """The part of the piece's image, of the tile's shape, that holds its thing, resized to the tile."""
    full_h, full_w = piece.mask.shape
    scale = max(height / full_h, width / full_w)
    crop_h, crop_w = min(full_h, round(height / scale)), min(full_w, round(width / scale))
    place = _place(piece.mask)
    top = int(np.clip(place.y * full_h - crop_h * rng.uniform(0.35, 0.65), 0, full_h - crop_h))
    left = int(np.clip(place.x * full_w - crop_w * rng.uniform(0.35, 0.65), 0, full_w - crop_w))
    part = slice(top, top + crop_h), slice(left, left + crop_w)
    image = cv2.resize(piece.image[part], (width, height), interpolation=cv2.INTER_AREA)
    mask = cv2.resize(piece.mask[part].astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    return image, mask > 0.5


def _paste(
    rng: np.random.Generator, used: Sequence[Piece], ground: Piece, height: int, width: int
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Things cut out and pasted on the ground's image without its own thing, later ones over earlier ones."""
    near = cv2.dilate(ground.mask.astype(np.uint8), np.ones((9, 9), np.uint8))
    image = cv2.inpaint(np.ascontiguousarray(ground.image), near, 5, cv2.INPAINT_TELEA)
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
    masks: list[np.ndarray] = []
    whole: list[float] = []
    for piece in used:
        placed = None
        for _ in range(12):
            colour, alpha = _placed_piece(rng, piece, height, width)
            new = alpha > 0.5
            if all((m & ~new).sum() >= LEAST_SEEN * a for m, a in zip(masks, whole, strict=True)):
                placed = colour, alpha, new
                break
        if placed is None:
            masks.append(np.zeros((height, width), bool))
            whole.append(0.0)
            continue
        colour, alpha, new = placed
        image = image * (1 - alpha[..., None]) + colour * alpha[..., None]
        masks = [m & ~new for m in masks]
        masks.append(new)
        whole.append(float(new.sum()))
    return np.clip(image, 0, 255).astype(np.uint8), masks


def _placed_piece(
    rng: np.random.Generator, piece: Piece, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """The thing somewhere in an empty image, at a size of its own: colour and soft alpha."""
    ys, xs = np.nonzero(piece.mask)
    box = slice(ys.min(), ys.max() + 1), slice(xs.min(), xs.max() + 1)
    high, wide = piece.mask[box].shape
    scale = rng.uniform(0.2, 0.55) * min(height, width) / max(high, wide)
    x, y = rng.uniform(0, width - wide * scale), rng.uniform(0, height - high * scale)
    move = np.array([[scale, 0, x - box[1].start * scale], [0, scale, y - box[0].start * scale]], np.float32)
    soft = cv2.GaussianBlur(piece.mask.astype(np.float32), (0, 0), max(0.6, 0.4 / scale))
    alpha = cv2.warpAffine(soft, move, (width, height), flags=cv2.INTER_LINEAR)
    colour = cv2.warpAffine(piece.image, move, (width, height), flags=cv2.INTER_LINEAR)
    return colour.astype(np.float32), alpha
