"""Stage 6: the conventions that are told are those that records and predictions were made with."""

from dataclasses import replace

import pytest

from pipelines import s6_samples
from ppt.config import Config
from ppt.manifest import Manifest
from ppt.metrics import Conventions
from ppt.settings import PredictionsConfig, RecordsConfig
from ppt.store import begin


def artifact(folder, stage, **config):
    """An artifact without a row, made under these sections of a config."""
    with begin(folder / stage, Manifest(stage, 1, config, {}, {}, 0), {"00000": []}, fresh=True) as writer:
        for shard in writer.missing:
            shard.write([])
        return writer.finish()


REFER, PLAIN = {"format": "refer"}, {"format": "cris"}


@pytest.mark.parametrize(
    ("made", "sentence", "overlap"),
    [
        ({}, "raw text", "any"),
        ({"sentence": "raw", "overlap": "once", "sources": []}, "raw text", "once"),
        ({"sentence": "sent", "overlap": "any", "sources": [PLAIN]}, "raw text", "any"),
        ({"sentence": "sent", "overlap": "any", "sources": [REFER]}, "REFER's `sent`", "any"),
        ({"sentence": "raw", "overlap": "once", "sources": [REFER]}, "REFER's `raw`", "once"),
        ({"sentence": "raw", "sources": [REFER, PLAIN]}, "REFER's `raw`, of others raw text", "any"),
    ],
)
def test_what_the_records_were_made_with_is_told(tmp_path, made, sentence, overlap):
    asked = Config(records=RecordsConfig(sentence="raw", overlap="once"))
    found = s6_samples.standing(asked, artifact(tmp_path, "records", records=made))
    assert (found.sentence, found.overlap) == (sentence, overlap)


@pytest.mark.parametrize(
    ("made", "binarisation"),
    [
        ({"clip": {}, "sam": {}}, "SAM's logits > 0"),
        ({"clip": {}, "predictions": {"threshold": 0.35}}, "probability > 0.35"),
        ({"clip": {}}, "probability > 0.5"),
    ],
)
def test_what_the_predictions_were_cut_at_is_told(tmp_path, made, binarisation):
    labels = Conventions("one", False, overlap="once")
    found = s6_samples.as_predicted(labels, artifact(tmp_path, "predictions", **made))
    assert found == replace(labels, binarisation=binarisation)


def test_what_was_not_made_as_it_is_asked_is_noted(tmp_path):
    read = {"sentence": "sent", "overlap": "any", "sources": [REFER]}
    cut = artifact(tmp_path, "predictions", predictions={"threshold": 0.5})
    made = artifact(tmp_path, "records", records=read), cut
    assert s6_samples.unmet(Config(), *made) == []
    asked = Config(
        records=RecordsConfig(sentence="raw", overlap="once"), predictions=PredictionsConfig(threshold=0.35)
    )
    told = s6_samples.unmet(asked, *made)
    assert [one.split(" in the config")[0] for one in told] == [
        "records.overlap is once",
        "records.sentence is raw",
        "predictions.threshold is 0.35",
    ]
    plain = artifact(tmp_path, "records", records={"sentence": "sent", "overlap": "once"})
    assert s6_samples.unmet(asked, plain, None) == []  # of one spelling
