"""What engines cost, on a few short shards."""

import importlib.util
import json

import pytest

from pipelines.benchmark.engine import engine, idle, very_many
from ppt.config import load_config
from ppt.pool import Pool


def test_the_time_between_two_shards_is_what_a_worker_waits():
    own, pooled = idle(None, 4, 0.05), idle(Pool(1), 4, 0.05)
    assert 0 <= own.mean <= own.most < 0.05
    assert own.mean < pooled.mean, "two processes have to talk"
    assert own.start < pooled.start, "and one of them has to be there"


def test_very_many_pairs_are_planned_done_and_measured(tmp_path):
    found = very_many(tmp_path / "many", 2500)
    assert found["count"] == 3
    assert found["index"] == pytest.approx((tmp_path / "many" / "index.json").stat().st_size / 2**20)
    assert found["MiB before"] <= found["MiB, plan"] <= found["MiB, nothing to do"]


@pytest.mark.slow
def test_the_engines_are_compared(tmp_path):
    settings = ["benchmark.shards=6", "benchmark.shard_seconds=[1.0]", "benchmark.pairs=3000"]
    table = engine(load_config(None, settings), tmp_path)
    assert table == (tmp_path / "benchmark" / "engine.md").read_text()
    kept = json.loads((tmp_path / "benchmark" / "engine.json").read_text())
    ray = ["two Ray actors"] if importlib.util.find_spec("ray") else []
    assert list(kept["idle"]) == ["this process", "two processes", *ray]
    assert all(row["1.0"]["mean"] < 0.02 for row in kept["idle"].values()), "2 % of a shard of a second"
