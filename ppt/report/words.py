"""Reasons as the stages write them -> sentences for a person. An unknown reason is shown as it is."""

from collections.abc import Iterable

_WHOLE = {
    "chosen:agreement": "Fits the relevance map best, weighed with SAM’s own scores.",
    "chosen:predicted_iou": "Has the highest predicted IoU.",
    "against_predicted_iou": "SAM’s own score alone would have taken another candidate.",
    "no_candidate:empty": "No mask: every candidate is too small.",
    "no_candidate:background_sized": "No mask: every candidate is too small, or as large as the background.",
    "no_candidate:disagrees_with_relevance": "No mask: no candidate agrees with the relevance map.",
    "no_evidence": "No point: the relevance map is flat, or not finite.",
    "generator": "Points from the trained generator.",
    "peak": "One point on the map’s peak.",
    "surgery": "Points from the map’s highest and lowest cells.",
    "read": "Points from the map’s high, low and middle cells.",
}
_OPENED = {
    "reviewed": "A person looked: {}.",
    "believed": "Teaches by its quality: {}.",
    "review_passed_over": "What a person decided is passed over: {}.",
    "second_opinion": "A second opinion differs: {}.",
    "rival": "Perhaps not what is meant: {}.",
    "wavering": "Fits the words less when CLIP looks in another way: {}.",
    "along_the_edge": "May be of the ground: {}.",
    "weak_agreement": "Fits the words little: {}.",
    "unsteady_outline": "Its outline is unsteady: {}.",
    "excluded": "Left out of training: {}.",
    "same_mask_as": "Has the same mask as {}.",
    "same_mask_as_others": "Has the same mask as {} more.",
    "no_candidate": "No mask: {}.",
    "no_points": "No point: {}.",
}

LOSSES = ("excluded", "no_candidate", "no_points", "no_evidence")
"""What a reason that costs the label its weight begins with."""


def sentence(reason: str) -> str:
    """One reason in words: "excluded:area 0.95 > 0.9" -> "Left out of training: area 0.95 > 0.9."."""
    if reason in _WHOLE:
        return _WHOLE[reason]
    head, colon, rest = reason.partition(":")
    if colon and head in _OPENED:
        return _OPENED[head].format(rest if head == "same_mask_as" else plain(rest))
    return reason if " " in reason else plain(reason)


def sentences(reasons: Iterable[str]) -> list[str]:
    """Each distinct reason in words, in order."""
    return list(dict.fromkeys(sentence(reason) for reason in reasons))


def kind(reason: str) -> str:
    """What a reason is about, for counting: "excluded:stability 0.41 < 0.5" -> "excluded for stability"."""
    head, _, rest = reason.partition(":")
    if head == "excluded":
        return f"excluded for {plain(rest.split(' ')[0])}"
    return plain(reason if head in ("no_candidate", "no_points") else head).replace(":", ", ")


def plain(name: str) -> str:
    """An identifier as words."""
    return name.replace("_", " ").strip()
