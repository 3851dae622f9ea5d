"""What the quality of the labels, which no truth told, is worth against the truth."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ppt import metrics
from ppt.metrics import Score
from ppt.store import Artifact


def measured(quality: Artifact, scores: Sequence[Score]) -> dict[str, Any]:
    """`metrics.ranking` of the labels scored, in whole and by split; a pair without a label has quality 0."""
    rows = {row["id"]: row for row in quality.rows()}
    splits = sorted({score.groups.get("split", "") for score in scores})
    found = _ranking(rows, scores)
    by = {
        split: _ranking(rows, [s for s in scores if s.groups.get("split", "") == split]) for split in splits
    }
    return {**found, "by_split": by} if len(splits) > 1 else found


def _ranking(rows: dict[str, dict[str, Any]], scores: Sequence[Score]) -> dict[str, Any]:
    lost = {"quality": 0.0, "band": "drop"}
    own = [rows.get(score.id, lost) for score in scores]
    worth = np.array([row["quality"] for row in own], float)
    return metrics.ranking(worth, np.array([score.iou for score in scores]), [row["band"] for row in own])
