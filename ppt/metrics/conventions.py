"""The seven switches in which published evaluators of referring segmentation differ, and where this one
stands on each. Presets that stand where a published one stands are shipped as configs/protocol_*.yaml.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Unit = Literal["sentence", "first_sentence"]
Resolution = Literal["native"] | int

SAM_DRAWS = "SAM's logits > 0"
"""The binarisation of a mask that SAM draws: no switch touches it."""
OWN_TEXT = "raw text"
"""The sentence field of pairs that have but one."""

_UNITS: dict[Unit, str] = {
    "sentence": "one sample per sentence",
    "first_sentence": "one sample per thing: the first of its sentences; a sentence of no known thing is one",
}
_TIMES = {"any": "> 0", "once": "== 1"}
_SWITCHES = (
    "sample unit",
    "sentence field",
    "resolution",
    "binarisation",
    "empty rule",
    "Prec@X",
    "overlap rule",
)


@dataclass(frozen=True)
class Conventions:
    """Where an evaluation stands.

    sentence: which of a data set's spellings was read. resolution: "native", or the side in pixels of the
    square that prediction and truth are resized to. overlap: whether a pixel in several polygons of one thing
    is true ("any") or not ("once").
    """

    empty: Literal["zero", "one"]  # IoU of an empty mask with an empty truth
    at_least: bool  # Prec@X counts IoU >= X rather than > X
    unit: Unit = "sentence"
    sentence: str = OWN_TEXT
    resolution: Resolution = "native"
    binarisation: str = SAM_DRAWS
    overlap: Literal["any", "once"] = "any"

    def describe(self) -> dict[str, str]:
        """What to print with every score: the seven switches, and what is never switched."""
        side = self.resolution
        return {
            "scale": "fractions in [0, 1]",
            "sample unit": _UNITS[self.unit],
            "sentence field": self.sentence,
            "resolution": "native: masks are compared in original pixels"
            if side == "native"
            else f"{side}: prediction and truth are resized to {side}x{side}, by nearest neighbour",
            "binarisation": self.binarisation,
            "empty rule": f"IoU of an empty mask with an empty truth is {self.of_empty:g}",
            "Prec@X": f"share of samples with IoU {'>=' if self.at_least else '>'} X",
            "overlap rule": f"polygons of one thing: pixels covered {_TIMES[self.overlap]} times are true",
            "missing": "a missing prediction has IoU 0 and its truth's area counts in oIoU's union",
            "PointM": "share of samples whose first positive point lies in the truth; none is a miss",
            "gIoU": "mIoU, but a sample without a target counts 1 where the mask given is empty, else 0",
        }

    def line(self) -> str:
        """The seven switches in a few words, to stand beside scores in a terminal."""
        switches = (
            f"per {self.unit.replace('_', ' ')}",
            self.sentence,
            "native resolution" if self.resolution == "native" else f"at {self.resolution}x{self.resolution}",
            self.binarisation,
            f"empty = {self.of_empty:g}",
            f"IoU {'>=' if self.at_least else '>'} X",
            f"overlap {_TIMES[self.overlap]}",
        )
        return ", ".join(switches)

    @property
    def of_empty(self) -> float:
        """IoU of two empty masks."""
        return 1.0 if self.empty == "one" else 0.0


def above(threshold: float) -> str:
    """The binarisation of a mask that is cut where its probability, in (0, 1), exceeds a threshold."""
    return f"probability > {threshold:g}"


def differences(here: Mapping[str, str], there: Mapping[str, str]) -> list[str]:
    """The switches on which two evaluations, as described, stand apart, a line each; none: they compare.

    A mask that SAM draws beside one cut at a threshold is no other convention: it is another way to draw.
    """
    found: list[str] = []
    for name in _SWITCHES:
        mine, theirs = here.get(name, "unknown"), there.get(name, "unknown")
        drawn = name == "binarisation" and SAM_DRAWS in (mine, theirs)
        if mine != theirs and not drawn:
            found.append(f"{name}: {mine} (here), {theirs} (there)")
    return found
