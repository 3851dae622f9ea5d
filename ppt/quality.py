"""How far a pseudo-label is to be believed, from 0 to 1, told without any truth.

The quality of a label is the product of two things that go wrong by themselves:

- *meant*, the chance that its mask is of the thing that the sentence means. A second opinion tells: the mask
  that the segmenter finds for the same sentence. Where the two show one thing, both are taken to be right.
  Where they do not, at least one is wrong; which, is told by how often labels that agree with the relevance
  map as well as this one have the second opinion's consent.
- its outline: SAM's stability, the IoU of its mask cut a little above and a little below its threshold.

As the two opinions come of one CLIP and one SAM, they may be wrong together, and the quality does not know
it. Without a second opinion there is nothing to fit: the agreement with the map then counts as it does in
the label's weight, as a fifth root, and the quality ranks labels but is no chance.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import isotonic_regression

SAME = 0.5
"""IoU above which two masks show one thing."""
WEAK = 0.5
"""Agreement with the relevance map below which it is a reason to doubt."""
RIVAL = 0.9
"""Share of a label's agreement from which on another thing fits the words, too."""
GROUND = 0.5
"""Share of the image's edge from which on a mask may be of the ground."""
LEAST = 30
"""Second opinions that a fit takes at least."""
ROOT = 1 / 5
"""Of the agreement, which is one of five terms of a label's weight."""
Band = Literal["keep", "review", "drop"]
BANDS: tuple[Band, ...] = get_args(Band)
Outcome = Literal["one", "several", "nothing"]
BELIEVED = "believed.jsonl"
"""In the folder of a run: the quality that its labels are to teach by."""


class QualityError(ValueError):
    """A file that holds no quality of these labels; the text says why."""


@dataclass(frozen=True, eq=False)
class Trust:
    """How often a label has the second opinion's consent, by its agreement with the relevance map.

    agreements: ascending; consent: the share of such labels, never falling, in [0, 1]. either: how often one
    opinion is right, taken to be the same for both.
    """

    agreements: Float[np.ndarray, " k"]
    consent: Float[np.ndarray, " k"]
    either: float

    def meant(
        self, agreement: Float[np.ndarray, " n"], second: Float[np.ndarray, " n"]
    ) -> Float[np.ndarray, " n"]:
        """The chance, in [0, 1], that each label is of the thing that is meant. second: its IoU with the
        second opinion, NaN where there is none.
        """
        alone = np.minimum(np.interp(agreement, self.agreements, self.consent) / max(self.either, 1e-9), 1)
        both = alone * self.either
        other_is_wrong = alone * (1 - self.either) / np.maximum(1 - both, 1e-9)
        differs = np.where(np.isnan(second), alone, other_is_wrong)
        return np.where(second > SAME, 1.0, differs)


def trust(agreement: Float[np.ndarray, " n"], second: Float[np.ndarray, " n"]) -> Trust | None:
    """Fitted to the labels with a second opinion; None where there are fewer than `LEAST`. Arguments as those
    of `Trust.meant`.
    """
    asked = ~np.isnan(second)
    if asked.sum() < LEAST:
        return None
    order = np.argsort(agreement[asked], kind="stable")
    same: Bool[np.ndarray, " k"] = (second[asked] > SAME)[order]
    fitted = isotonic_regression(same.astype(float)).x
    # Both are right as often as they agree, and neither is better than the other.
    return Trust(agreement[asked][order], fitted, float(np.sqrt(same.mean())))


def quality(
    stability: Float[np.ndarray, " n"],
    agreement: Float[np.ndarray, " n"],
    second: Float[np.ndarray, " n"],
    found: Trust | None,
) -> Float[np.ndarray, " n"]:
    """The quality of labels in [0, 1]. stability: in [0, 1]; agreement: in [-1, 1]; second: as of
    `Trust.meant`.
    """
    meant = np.clip(agreement, 0, 1) ** ROOT if found is None else found.meant(agreement, second)
    return np.clip(stability, 0, 1) * meant


def band(quality: float, keep: float, drop: float) -> Band:
    """What to do with a label: keep from `keep` on, drop below `drop`, and a person may look at the rest."""
    if quality >= keep:
        return "keep"
    return "drop" if quality < drop else "review"


def outcome(scores: Mapping[str, float]) -> Outcome:
    """What the words of a label with a mask were found to mean: one thing, or several that fit them about as
    well. scores: its `agreement` and `rival`.
    """
    return "several" if scores["rival"] >= RIVAL * max(scores["agreement"], 0.0) > 0 else "one"


def reasons(
    scores: Mapping[str, float], second: float | None, views: Mapping[str, float], keep: float
) -> tuple[str, ...]:
    """What speaks against a label, in words a person understands, the gravest first; nothing where nothing
    does. scores: `stability`, `agreement`, `rival` and `edge` of the label. second: None where there is no
    second opinion. views: the agreement in each other view.
    """
    agreement, stability, found = scores["agreement"], scores["stability"], list[str]()
    if second is not None and second <= SAME:
        found.append(f"second_opinion:the segmenter means something else (IoU {second:.2f})")
    if outcome(scores) == "several":
        found.append(f"rival:another thing fits the words as well ({scores['rival']:.2f} to {agreement:.2f})")
    if agreement < WEAK:
        found.append(f"weak_agreement:agreement with the relevance map {agreement:.2f}")
    elif low := [f"{name} {value:.2f}" for name, value in views.items() if value < WEAK]:
        found.append(f"wavering:agreement {agreement:.2f}, seen otherwise less ({', '.join(low)})")
    if scores["edge"] >= GROUND:
        found.append(f"along_the_edge:it covers {scores['edge']:.0%} of the image's edge")
    if stability < keep:
        found.append(f"unsteady_outline:stability {stability:.2f}")
    return tuple(found)


def read_weights(data: bytes) -> dict[str, tuple[str, float]]:
    """quality.jsonl -> id -> of which label it is, as that label's `of` says, and the weight that it teaches
    by: its quality, and 0 in the band drop. Raises QualityError for lines that are none.
    """
    found: dict[str, tuple[str, float]] = {}
    for number, line in enumerate(data.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            id, worth, band, about = (row[name] for name in ("id", "quality", "band", "of"))
            named = all(isinstance(name, str) and name for name in (id, about))
            fits = named and band in BANDS and 0 <= worth <= 1
        except (ValueError, TypeError, KeyError, RecursionError):
            fits, id, worth, band, about = False, "", 0.0, "drop", ""
        if not fits:
            raise QualityError(f"line {number}: expected a row of quality.jsonl (got {line[:80]!r})")
        found[id] = about, 0.0 if band == "drop" else float(worth)
    return found
