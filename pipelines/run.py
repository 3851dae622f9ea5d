"""The recipe: pairs in, scored masks out. Every stage reads what the one before it left on disk."""

import functools
import time
from collections.abc import Callable, Iterator
from typing import TypeAlias

from pipelines import (
    exits,
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
from pipelines.together import begun_again, by_the_first, on_ray, peers_of, shared_out
from ppt import times
from ppt.config import Config, ConfigError
from ppt.places import Place
from ppt.records import sources

Done: TypeAlias = Summary | Evaluation
Stage: TypeAlias = Callable[[Config, Place, bool], Done]


# In the order of the walk.
_OWN: dict[str, Callable[[Config, Place, bool], Summary]] = {
    "records": s0_records.run,
    "relevance": s1_relevance.run,
    "points": s2_points.run,
    "masks": s3_masks.run,
    "labels": s4_labels.run,
    "segmenter": s5_segmenter.run,
    "predictions": s5_predictions.run,
    "views": s5_views.run,
    "quality": s5_quality.run,
}
TRAININGS = ("points", "segmenter")
"""In which all processes take part, where there are several."""
SHARED = ("records", "relevance", "masks", "labels", "predictions", "views")
"""Of which each process makes a share."""


def _stage(name: str) -> Stage:
    """The stage as the recipe runs it: with the other processes, where there are any, leaving in
    DIR/times.jsonl how long it took, where there was something to do.
    """
    own = _OWN[name]

    @functools.wraps(own)
    def run(config: Config, output: Place, fresh: bool = False) -> Done:
        if config.share is not None and name not in SHARED:
            raise ConfigError(
                f"share: {name} is not made of shards that can be shared out (got {config.share})"
            )
        fresh = fresh and not begun_again()
        began = time.monotonic()
        if name in TRAININGS and config.engine == "ray":
            done = on_ray(name, own, config, output, fresh)
        elif name in TRAININGS or config.share is not None:
            done = own(config, output, fresh)
        elif name in SHARED:
            done = shared_out(name, own, config, output, fresh)
        else:
            done = by_the_first(own, config, output, fresh)
        if done.made and config.share is None and exits.speaks():
            times.note(output, done.stage, time.monotonic() - began, afresh=done.kept == 0)
        return done

    return run


def evaluated(config: Config, output: Place, fresh: bool = False) -> Evaluation:
    """The last stage, with what it has to say of its own."""
    return by_the_first(s6_evaluate.run, config, output, fresh)


STAGES: dict[str, Stage] = {**{name: _stage(name) for name in _OWN}, "evaluate": evaluated}


def names(config: Config) -> list[str]:
    """The stages of a run, in order."""
    optional = {
        "points": config.points.method == "generator",
        "segmenter": config.with_segmenter,
        "predictions": config.with_segmenter,
        "views": bool(config.views.ask),
        "evaluate": sources.may_tell_truth(config.records),
    }
    return [name for name in STAGES if optional.get(name, True)]


def run(config: Config, output: Place, fresh: bool = False) -> Iterator[Done]:
    """Walk the stages in order, yielding each one's summary; a stage that is complete does nothing. Of
    several processes that torchrun started all walk. Raises ConfigError for a share: it is of one stage.
    """
    if config.share is not None:
        raise ConfigError(f"share: is of one stage, and a run has several (got {config.share})")
    with peers_of(config):
        for name in names(config):
            yield STAGES[name](config, output, fresh)
        if not sources.may_tell_truth(config.records):
            yield s6_evaluate.without_truth()
