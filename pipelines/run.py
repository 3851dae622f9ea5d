"""The recipe: pairs in, scored masks out. Every stage reads what the one before it left on disk."""

import functools
import time
from collections.abc import Callable, Iterator
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
    s5_views,
    s6_evaluate,
)
from pipelines.s6_evaluate import Evaluation
from pipelines.stage import Summary
from ppt import times
from ppt.config import Config
from ppt.places import Place
from ppt.records import sources

Done: TypeAlias = Summary | Evaluation
Stage: TypeAlias = Callable[[Config, Place, bool], Done]


def _timed(stage: Stage) -> Stage:
    """The stage, which also leaves in DIR/times.jsonl how long it took, where there was something to do."""

    @functools.wraps(stage)
    def run(config: Config, output: Place, fresh: bool = False) -> Done:
        began = time.monotonic()
        done = stage(config, output, fresh)
        if isinstance(done, Summary) and done.made:
            times.note(output, done.stage, time.monotonic() - began, afresh=done.kept == 0)
        return done

    return run


# In the order of the walk.
STAGES: dict[str, Stage] = {
    "records": _timed(s0_records.run),
    "relevance": _timed(s1_relevance.run),
    "points": _timed(s2_points.run),
    "masks": _timed(s3_masks.run),
    "labels": _timed(s4_labels.run),
    "segmenter": _timed(s5_segmenter.run),
    "predictions": _timed(s5_predictions.run),
    "views": _timed(s5_views.run),
    "quality": _timed(s5_quality.run),
    "evaluate": s6_evaluate.run,
}


def run(config: Config, output: Place, fresh: bool = False) -> Iterator[Done]:
    """Walk the stages in order, yielding each one's summary; a stage that is complete does nothing."""
    optional = {
        "points": config.points.method == "generator",
        "segmenter": config.with_segmenter,
        "predictions": config.with_segmenter,
        "views": bool(config.views.ask),
        "evaluate": False,  # below
    }
    for name in STAGES:
        if optional.get(name, True):
            yield STAGES[name](config, output, fresh)
    if not sources.may_tell_truth(config.records):
        yield s6_evaluate.without_truth()
    else:
        yield s6_evaluate.run(config, output, fresh)
