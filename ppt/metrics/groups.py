"""Which groups a sentence is in: how large its thing is, how long it is, whether it says where, and how many
other things of the name there are. "" is no group: what is not known is left out of a breakdown.
"""

import re
from collections.abc import Sequence

from ppt import rle
from ppt.rle import Rle

SMALL, MEDIUM = 32**2, 96**2
"""Areas in original pixels from which a thing is medium, and large, as in COCO's evaluation."""
LENGTHS = {"1-2": 2, "3-5": 5, "6-10": 10}
"""Words up to which a sentence is of a group; longer ones are "11+"."""
POSITIONAL = frozenset(
    (
        # sides and ends
        "left", "right", "leftmost", "rightmost", "top", "topmost", "uppermost", "upper", "bottom",
        "bottommost", "lower", "lowest", "middle", "centre", "center", "central", "corner", "edge", "side",
        # depth
        "front", "back", "foreground", "background", "behind", "rear",
        # above and below
        "above", "below", "under", "underneath", "beneath", "over",
        # distance and company
        "next", "near", "nearer", "nearest", "close", "closer", "closest", "far", "farther", "farthest",
        "further", "furthest", "beside", "besides", "between", "among", "opposite", "adjacent", "across",
    )
)  # fmt: skip
"""Words that say where, in the image or among things. Not "on" and "in", which say what is worn, too."""
_ORDER = ("small", "medium", "large", *LENGTHS, "11+", "positional", "not positional", "none", "1", "2", "3+")


def of(truth: Rle, text: str, distractors: Sequence[Rle] | None) -> dict[str, str]:
    """The groups of one sentence by kind. text: "" where it is not known; distractors: None likewise."""
    return {
        "size": size(truth),
        "length": length(text),
        "position": position(text),
        "distractors": "" if distractors is None else rivals(len(distractors)),
    }


def size(truth: Rle) -> str:
    """Of the true mask, in original pixels; "" where it has none."""
    area = rle.area(truth)
    if area == 0:
        return ""
    return "small" if area < SMALL else "medium" if area < MEDIUM else "large"


def length(text: str) -> str:
    """By the number of words, which blanks part."""
    words = len(text.split())
    return next((name for name, most in LENGTHS.items() if words <= most), "11+") if words else ""


def position(text: str) -> str:
    """Whether a word of the sentence is `POSITIONAL`."""
    words = re.findall(r"[a-z]+", text.lower())
    if not text.strip():
        return ""
    return "positional" if POSITIONAL.intersection(words) else "not positional"


def rivals(count: int) -> str:
    """By the number of other things of the same name in the image."""
    return "none" if count == 0 else "3+" if count >= 3 else str(count)


def rank(name: str) -> tuple[int, str]:
    """What names of groups are sorted by to read best: sizes, lengths and counts from small to large."""
    return (_ORDER.index(name) if name in _ORDER else -1), name
