"""The recipe: pairs in, scored masks out. Every stage reads what the one before it left on disk."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

from pipelines import (
    s0_records,
    s1_relevance,
    s2_points,
    s3_masks,
    s4_labels,
    s5_predictions,
    s5_quality,
    s5_segmenter,
    s6_evaluate,
)
from pipelines.s6_evaluate import Evaluation
from pipelines.stage import Summary
from ppt.config import Config
from ppt.records import sources

Done: TypeAlias = Summary | Evaluation

STAGES: dict[str, Callable[[Config, Path, bool], Done]] = {
    "records": s0_records.run,
    "relevance": s1_relevance.run,
    "points": s2_points.run,
    "masks": s3_masks.run,
    "labels": s4_labels.run,
    "segmenter": s5_segmenter.run,
    "predictions": s5_predictions.run,
    "quality": s5_quality.run,
    "evaluate": s6_evaluate.run,
}


def run(config: Config, output: Path, fresh: bool = False) -> Iterator[Done]:
    """Walk the stages in order, yielding each one's summary; a stage that is complete does nothing."""
    yield s0_records.run(config, output, fresh)
    yield s1_relevance.run(config, output, fresh)
    if config.points.method == "generator":
        yield s2_points.run(config, output, fresh)
    yield s3_masks.run(config, output, fresh)
    yield s4_labels.run(config, output, fresh)
    if config.with_segmenter:
        yield s5_segmenter.run(config, output, fresh)
        yield s5_predictions.run(config, output, fresh)
    yield s5_quality.run(config, output, fresh)
    if not sources.may_tell_truth(config.records):
        yield s6_evaluate.without_truth()
    else:
        yield s6_evaluate.run(config, output, fresh)
