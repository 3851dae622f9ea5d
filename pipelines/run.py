"""The recipe: pairs in, scored masks out. Every stage reads what the one before it left on disk."""

from collections.abc import Callable, Iterator
from pathlib import Path

from pipelines import s0_records, s1_relevance, s3_masks, s4_labels, s6_evaluate
from pipelines.stage import Summary
from ppt.config import Config

STAGES: dict[str, Callable[[Config, Path, bool], Summary]] = {
    "records": s0_records.run,
    "relevance": s1_relevance.run,
    "masks": s3_masks.run,
    "labels": s4_labels.run,
    "evaluate": s6_evaluate.run,
}


def run(config: Config, output: Path, fresh: bool = False) -> Iterator[Summary]:
    """Walk the stages in order, yielding each one's summary; a stage that is complete already does nothing."""
    yield s0_records.run(config, output, fresh)
    yield s1_relevance.run(config, output, fresh)
    yield s3_masks.run(config, output, fresh)
    yield s4_labels.run(config, output, fresh)
    if config.records.truth is not None:
        yield s6_evaluate.run(config, output, fresh)
