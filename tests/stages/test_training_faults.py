"""Trainings of the stages on bad days: a checkpoint that is damaged, losses without a number."""

import json
import shutil

import pytest
import torch
from fixtures.processes import snapshot
from fixtures.walk import SMALL, TINY, settings, walk

from pipelines.s2_points import training
from ppt.segmenter.learner import Learner
from ppt.training import DivergenceError


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out"


def stopped_at(monkeypatch, step, run):
    """Run the points stage up to a step of its training."""

    def stopping(*arguments, real=training.draw):
        if arguments[3] == step:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(training, "draw", stopping)
        with pytest.raises(KeyboardInterrupt):
            run()


def test_a_damaged_checkpoint_costs_its_steps_whatever_was_made_after_them(
    models, all_train, output, tmp_path, monkeypatch, capsys
):
    """The pseudo-masks of step 4 were made already; steps 3 is learned anew from those before them."""
    config, other = settings(all_train, *SMALL), tmp_path / "other"
    walk(config, output, "points")
    stopped_at(monkeypatch, 5, lambda: walk(config, other, "points"))
    assert (other / "points" / "referring_1").exists()
    last = other / "points" / "training" / "step_00000004.pt"
    last.write_bytes(bytes(last.stat().st_size))
    walk(config, other, "points", first="points")
    assert "step_00000004.pt: damaged; set aside, going on from step 3" in capsys.readouterr().err
    for folder in (other, output):
        training_folder = folder / "points" / "training"
        shutil.rmtree(training_folder / "tensorboard")  # holds times
        for path in training_folder.glob("step_*"):
            path.unlink()
    assert snapshot(other / "points") == snapshot(output / "points")


def diverged(folder):
    return [json.loads(line) for line in (folder / "training" / "diverged.jsonl").read_text().splitlines()]


def test_a_segmenter_that_diverges_names_what_it_was_taught(models, all_train, output, monkeypatch):
    config = settings(all_train, *TINY, "segmenter.steps=40", "segmenter.accumulate=2")
    walk(config, output, "labels")
    real = Learner.forward

    def forward(learner, lessons, step, generator):
        losses = real(learner, lessons, step, generator)
        return {name: loss * (torch.nan if step >= 10 else 1) for name, loss in losses.items()}

    monkeypatch.setattr(Learner, "forward", forward)
    named = r"no finite loss since step 5, whose first batch holds \w+\.(png|jpg): the \w+ \w+"
    with pytest.raises(DivergenceError, match=named):
        walk(config, output, "segmenter", first="segmenter")
    found = diverged(output / "segmenter")
    assert [row["batch"] for row in found] == [*range(10, 52)]
    assert {len(row["items"]) for row in found} == {3}


def test_a_generator_that_diverges_names_what_it_was_taught(models, all_train, output, monkeypatch):
    monkeypatch.setattr(training, "WEIGHTS", dict.fromkeys(training.WEIGHTS, torch.nan))
    with pytest.raises(DivergenceError, match="no finite loss since step 0, whose first batch holds "):
        walk(settings(all_train, *SMALL, "generator.steps=40"), output, "points")
    ids = {row["id"] for row in map(json.loads, (all_train / "pairs.jsonl").read_text().splitlines())}
    found = {item for row in diverged(output / "points") for item in row["items"]}
    assert found
    assert all(item in ids or item.startswith("mosaic") for item in found)
