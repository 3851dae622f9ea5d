"""What the comparisons have in common: sentences in groups, scores over them, and Markdown."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from ppt import metrics, rle
from ppt.metrics import Conventions, Sample, Score
from ppt.store import Artifact
from ppt.types import Truth

SIZES = {"small": 0.02, "medium": 0.08, "large": 1.0}
"""Objects up to this share of the image."""

Row = tuple[str, int]
"""Name in the table, and seed."""


@dataclass(frozen=True)
class Judged:
    """One sentence under one method, and the groups of sentences that it belongs to."""

    score: Score
    groups: tuple[str, ...]


def groups_of(records: Artifact, truth: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Of each sentence: its split, and within the split its kind, whether its image has two things of one
    name where the truth says so, and how large its object is.
    """
    shapes = {row["id"]: row["height"] * row["width"] for row in records.rows()}
    groups: dict[str, tuple[str, ...]] = {}
    for id, row in truth.items():
        found = [row["kind"]] if row["kind"] else []
        true = Truth.from_json(row)
        if true.twins is not None:
            found.append("twins" if true.twins else "no twins")
            if true.twins and row["kind"] == "position":
                found.append("twins by position")
        if id in shapes:
            share = rle.area(true.rle) / shapes[id]
            found.append(next(name for name, most in SIZES.items() if share <= most))
        split = row["split"] or "all"
        groups[id] = split, *(f"{split}/{name}" for name in found)
    return groups


def report(
    judged: Sequence[Judged],
    truth: Mapping[str, Any],
    groups: Mapping[str, tuple[str, ...]],
    conventions: Conventions,
) -> dict[str, dict[str, float]]:
    """For each group of sentences the metrics over them; those of the truth that were lost count, too."""
    lost = truth.keys() - {one.score.id for one in judged}
    missed = [Judged(metrics.score(_lost(truth[id]), conventions), groups[id]) for id in sorted(lost)]
    grouped: dict[str, list[Score]] = defaultdict(list)
    for one in [*judged, *missed]:
        for group in one.groups:
            grouped[group].append(one.score)
    return {group: metrics.report(scores, conventions)["labels"] for group, scores in sorted(grouped.items())}


def _lost(row: dict[str, Any]) -> Sample:
    """A sentence that never reached SAM: it stays in every denominator."""
    return Sample(row["id"], Truth.from_json(row).rle, None, None, row["split"], row["source"], row["kind"])


def markdown(corner: str, titles: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
    """A table with a name before each row."""
    lines = [f"| {corner} | {' | '.join(titles)} |", "| --- |" + " ---: |" * len(titles)]
    lines += [f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()]
    return "\n".join([*lines, ""])


def percent(values: Sequence[float]) -> str:
    """The mean over the seeds in percent, with its standard deviation where there are several."""
    spread = f" ± {100 * stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * mean(values):.1f}{spread}"
