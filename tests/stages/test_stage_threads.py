"""How many threads a stage computes with: those asked for, in whichever process."""

import pytest
import torch

from pipelines import stage
from ppt.config import Config
from ppt.manifest import Manifest
from ppt.store import begin


def no_context():
    return None


def note_threads(context, shard):
    shard.write([{"id": id, "threads": torch.get_num_threads()} for id in shard.items])


@pytest.mark.parametrize(
    ("workers", "threads", "each"), [(0, 0, 4), (0, 3, 3), (2, 3, 3), (1, 0, 1)], ids=str
)
def test_a_stage_computes_with_the_threads_it_is_given(tmp_path, workers, threads, each):
    """The suite gives every process one thread: of that a worker has its share."""
    manifest = Manifest("threads", schema_version=1, config={}, inputs={}, weights={}, seed=0)
    config, before = Config(workers=workers, threads=threads), torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        with begin(tmp_path / "threads", manifest, {"00000": ["a"], "00001": ["b"]}) as writer:
            artifact, _ = stage.fill(writer, note_threads, no_context, config)
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)
    assert [row["threads"] for row in artifact.rows()] == [each, each]
