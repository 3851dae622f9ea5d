"""What a step of both trainings takes, on the small pictures."""

import json

import pytest
from fixtures.walk import SMALL, TINY, settings

from pipelines.benchmark.train import train
from pipelines.benchmark.turns import clocked
from pipelines.s2_points import training


def test_both_trainings_are_timed_and_their_lessons_apart(models, all_train, output):
    before = training.draw
    config = settings(all_train, *SMALL, *TINY, "benchmark.steps=3", "generator.refreshes=1")
    table = train(config, output)
    assert table == (output / "benchmark" / "train.md").read_text()
    kept = json.loads((output / "benchmark" / "train.json").read_text())
    for name in ("points", "segmenter"):
        assert 0 < kept["seconds"][f"{name}, lessons"] < kept["seconds"][name]
    assert kept["batches"] == {"points": 4, "segmenter": 3}
    assert [line.split(" | ")[0] for line in table.splitlines()[2:]] == [
        "| the point generator", "| the segmenter",
    ]  # fmt: skip
    assert training.draw is before, "nothing stays clocked"


def test_the_clock_adds_up_and_lets_errors_through():
    class Work:
        def fails(self):
            raise ValueError("as it would")

    clock, own = {"slow": 5.0}, Work.fails
    with clocked(clock, {"slow": (Work, "fails")}), pytest.raises(ValueError, match="as it would"):
        Work().fails()
    assert 5 < clock["slow"] < 6
    assert Work.fails is own
