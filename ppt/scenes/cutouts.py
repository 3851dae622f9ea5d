"""Photographed objects with alpha masks and names, read from Debian's `tuxpaint-stamps-default` (GPL-2).

The package holds PNG stamps, each beside a text file whose first line is an English caption. Kept are the
photographs: drawings, symbols, flags, road signs and captions that name no object are left out by the rules
below.
"""

import colorsys
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

STAMPS = Path("/usr/share/tuxpaint/stamps")

LEFT_OUT = re.compile(
    r"cartoon|^symbols/|^town/flags|^town/roadsigns/(?!traffic_cone)|_mirror\.png$|newyears/(confetti|fireworks)"
    r"|hanukkah/dreydl-|naturalforces/|final-roll-call|sedan_police|grave-[b-j]|fireman200b|inukshuk-outline"
    r"|people/body_parts|space/planets/[12578]|rambutan|rugby_goal|easter/bunny-head|wildboar|christmas/tree|spider"
    r"|military/(vehicles/(bradley|infantry|ww2)|ammunition)|plastic|^clothes/(hats|t_|button|armor)|food/pizza"
    r"|mammals/hedgehog|seasonal/(easter|newyears)|hanukkah/(holiday|menorah|dreydl)"
    r"|halloween/(bat|blackcat|ghost|jack)|christmas/(Santa|bow|candy_cane|hard_candy|lamp|santahat|star|stocking|xmas_tp)"
    r"|medical/tooth"
)
NAMES = {
    "hoverfly": "hoverfly",
    "lionfish": "lionfish",
    "broccoli": "broccoli",
    "toilet": "toilet",
    "stethoscope": "stethoscope",
    "glass": "glass of water",
    "bluegroper": "blue groper",
    "lobster": "lobster",
    "gnu-baby-stand": "baby gnu",
    "gnu-baby": "baby gnu",
    "sheep_lamb": "lamb",
    "corn": "corn",
    "ginger": "ginger root",
    "garlic": "garlic",
    "garlics": "garlic",
    "walnut_shelled": "walnut",
    "orange_seville": "orange",
    "tomato": "tomato",
    "pumpkin_small": "pumpkin",
    "pitcher_small": "pitcher",
    "measuring_tape": "measuring tape",
    "wheelie_bin": "wheelie bin",
    "f22_raptor": "fighter jet",
    "grannysmith": "rag doll",
    "edward_bear": "teddy bear",
    "adeenia": "desert rose",
    "anthoorium": "anthurium",
    "appooppanthady": "milkweed",
    "bolsom": "balsam flower",
    "chemparathi": "hibiscus flower",
    "flower4": "flower",
    "flower7": "flower",
    "flower9": "flower",
    "cep-2": "cep",
    "birch": "birch tree",
    "holly_leaves": "holly",
    "Candy_cane_photo_1": "candy cane",
    "Candy_cane_photo_2": "candy cane",
    "Christmas_pudding": "christmas pudding",
    "German_Christmas_toy": "wooden toy",
    "Mince_Pie": "mince pie",
    "Roast_turkey": "roast turkey",
    "moon_3qt": "moon",
    "moon_crescent": "crescent moon",
    "moon_full": "moon",
    "3_earth": "earth",
    "4_mars": "mars",
    "6_saturn": "saturn",
    "9_pluto": "pluto",
    "apollo_lander": "lunar lander",
    "spacewalk": "astronaut",
    "voyager2": "space probe",
    "australian_rules_football": "rugby ball",
    "inukshuk-photo": "stone landmark",
    "uk_post_box": "post box",
    "7spoke256": "wheel",
    "albino_peahen": "albino peahen",
    "grave-a": "gravestone",
    "pig_golden": "brown pig",
    "pig_golden2": "brown pig",
    "guitar2": "electric guitar",
    "cherry_Stella": "cherries",
    "rabbit_little": "rabbit",
    "rabbit-2": "rabbit",
    "gnu-sitting": "gnu",
    "gnu-stand": "gnu",
    "european-bear": "bear",
    "tiger_sumatran": "tiger",
    "lettuce_bolted": "lettuce plant",
    "rhino_black": "rhino",
}
SMALLEST_SIDE = 30

COLOURS = ("black", "white", "gray", "red", "orange", "brown", "yellow", "green", "blue", "purple", "pink")


@dataclass(frozen=True)
class Cutout:
    """One photographed object. `rgba` (h, w, 4) uint8, cropped to its opaque part; `key` is its path in the
    package.
    """

    key: str
    name: str
    rgba: UInt8[np.ndarray, "h w 4"]
    unseen_by_sam: bool
    """Held out of the embedded SAM's training: every third cut-out in the order of the keys."""


def noun_phrase(caption: str) -> str:
    """The object that a caption's first clause names, in lower case, no article: "An otter." -> "otter"."""
    clause = re.split(r"[.!,;:(—]| is | are | lets ", caption.replace("’", "'"))[0]
    clause = re.sub(r"[“”\"']", "", clause).strip().lower()
    clause = re.sub(r"^(a pair of|a head of|a bunch of|a string of|a quarter of|a glass of)\s+", "", clause)
    clause = re.sub(r"^(a|an|the|two|some|our|very)\s+", "", clause)
    return re.sub(r"^(very small|old|large|male|little|lit|modern|old-fashioned)\s+", "", clause).strip()


def opaque_crop(path: Path) -> UInt8[np.ndarray, "h w 4"] | None:
    """The opaque part of a picture, RGBA, at most 320 pixels a side; None where it is less than SMALLEST_SIDE
    long or has no alpha.
    """
    raw = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if raw is None or raw.ndim != 3 or raw.shape[2] != 4:
        return None
    ys, xs = np.nonzero(raw[..., 3] > 127)
    if len(ys) == 0 or max(np.ptp(ys), np.ptp(xs)) < SMALLEST_SIDE:
        return None
    crop = raw[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
    scale = 320 / max(crop.shape[:2])
    if scale < 1:
        crop = cv2.resize(crop, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(crop[..., [2, 1, 0, 3]])


def load_cutouts(folder: Path = STAMPS) -> list[Cutout]:
    """Every photographed object under `folder`, in the order of its path.

    Raises FileNotFoundError, naming the package to install, when the folder is not there.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no cut-outs at {folder}: install Debian's package tuxpaint-stamps-default")
    return list(_read(folder))


def _read(folder: Path) -> Iterator[Cutout]:
    kept = 0
    for path in sorted(folder.rglob("*.png")):
        key = path.relative_to(folder).as_posix()
        caption = path.with_suffix(".txt")
        if LEFT_OUT.search(key) or not caption.exists():
            continue
        rgba = opaque_crop(path)
        if rgba is None:
            continue
        first_line = caption.read_text(encoding="utf-8", errors="replace").split("\n", 1)[0]
        yield Cutout(key, NAMES.get(path.stem) or noun_phrase(first_line), rgba, unseen_by_sam=kept % 3 == 2)
        kept += 1


def colour_word(rgba: UInt8[np.ndarray, "h w 4"]) -> str | None:
    """The one colour that covers more than half of an object, or None when no colour does."""
    small = cv2.resize(rgba, (24, 24), interpolation=cv2.INTER_AREA).reshape(-1, 4)
    solid = small[small[:, 3] > 200][:, :3]
    if len(solid) < 20:
        return None
    names = [_pixel_colour(*(pixel / 255)) for pixel in solid]
    best = max(COLOURS, key=names.count)
    return best if names.count(best) > 0.55 * len(names) else None


def _pixel_colour(red: float, green: float, blue: float) -> str:
    hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
    hue *= 360
    if value < 0.2:
        return "black"
    if saturation < 0.18:
        return "white" if value > 0.8 else "gray"
    if hue < 15 or hue >= 340:
        return "pink" if saturation < 0.5 and value > 0.75 else "red"
    if hue < 42:
        return "orange" if value > 0.75 and saturation > 0.6 else "brown"
    if hue < 70:
        return "yellow" if value > 0.55 else "brown"
    if hue < 165:
        return "green"
    if hue < 260:
        return "blue"
    return "purple" if hue < 300 else "pink"
