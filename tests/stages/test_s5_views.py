"""Labels seen in other ways: the mirror image, a smaller one, other words."""

import numpy as np
import pytest
from fixtures.models import FakeClip
from fixtures.processes import snapshot
from fixtures.walk import failures, rows, settings, walk
from PIL import Image

from pipelines.s5_views import mirrored
from ppt.store import Artifact
from ppt.types import DenseFeatures


class Contrary(FakeClip):
    """Sees the opposite."""

    def encode_image(self, image):
        found = super().encode_image(image)
        return DenseFeatures(-found.values, found.height, found.width)


def test_a_clip_that_sees_colours_sees_the_same_in_every_way(models, pictures, output):
    summary = walk(settings(pictures), output, "views")
    assert summary.line() == "views: 7 items, 0 skipped; 2 shards made, 0 kept"
    labels = rows(output, "labels")
    for id, row in rows(output, "views").items():
        if labels[id]["segmentation"] is None:
            assert row == {"id": id}
            continue
        own = labels[id]["scores"]["agreement"]
        assert row == {
            "id": id,
            **dict.fromkeys(("mirrored", "smaller", "reworded"), pytest.approx(own, abs=1e-3)),
        }


def test_each_view_is_seen_as_it_says(models, pictures, output, monkeypatch):
    config = settings(pictures)
    walk(config, output, "labels")
    seen, read, scales = [], [], []
    encode, texts = models.clip.encode_image, models.clip.encode_texts
    monkeypatch.setattr(models.clip, "encode_image", lambda image: seen.append(image) or encode(image))
    monkeypatch.setattr(models.clip, "encode_texts", lambda asked: read.extend(asked) or texts(asked))
    monkeypatch.setattr(models.clip, "at", lambda scale: scales.append(scale) or Contrary())
    walk(config, output, "views", first="views")
    assert scales == [0.75]
    labels, found = rows(output, "labels"), rows(output, "views")
    masked = {id for id, row in labels.items() if row["segmentation"]}
    for id in masked:
        assert found[id]["smaller"] == pytest.approx(-labels[id]["scores"]["agreement"], abs=1e-3)
        assert found[id]["mirrored"] > 0
    said = {labels[id]["text"] for id in masked}
    assert set(read) == {""} | {mirrored(text) for text in said} | {f"a photo of {text}" for text in said}
    first = next(row["image"] for row in labels.values() if row["segmentation"])
    own = np.asarray(Image.open(pictures / first).convert("RGB"))
    assert any(np.array_equal(image, own[:, ::-1]) for image in seen)
    assert not any(np.array_equal(image, own) for image in seen), (
        "what is known of the image is not made again"
    )


def test_only_what_is_asked_for_is_done(models, pictures, output):
    config = settings(pictures, "views.ask=[reworded]")
    walk(config, output, "labels")
    before = models.clip.calls["encode_image"]
    walk(config, output, "views", first="views")
    assert models.clip.calls["encode_image"] == before
    assert {key for row in rows(output, "views").values() for key in row} == {"id", "reworded"}


def test_it_resumes_and_knows_its_labels(models, pictures, output):
    walk(settings(pictures), output, "views")
    before = snapshot(output / "views")
    assert walk(settings(pictures), output, "views", first="views").made == 0
    assert snapshot(output / "views") == before
    walk(settings(pictures, "labels.min_agreement=1"), output, "labels", first="labels", fresh=True)
    assert walk(settings(pictures), output, "views", first="views").made == 2
    labels, views = (Artifact.open(output / name) for name in ("labels", "views"))
    assert views.manifest.inputs["labels"] == labels.fingerprint


def test_an_image_that_went_away_is_passed_over(models, pictures, output):
    config = settings(pictures)
    walk(config, output, "labels")
    gone = rows(output, "labels")["a-left"]["image"]
    (pictures / gone).unlink()
    walk(config, output, "views", first="views")
    lost = failures(output, "views")
    assert set(lost) == {"a-left", "a-right", "copy"}, "of one content"
    assert not lost.keys() & rows(output, "views").keys()
    walk(config, output, "quality", first="quality")
    assert rows(output, "quality")["a-left"]["views"] == {}


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("the dog on the left", "the dog on the right"),
        ("Leftmost RIGHT righthand", "Rightmost LEFT lefthand"),
        ("bright lefty upright", "bright lefty upright"),
        ("left-hand side, right?", "right-hand side, left?"),
    ],
)
def test_left_is_right_in_the_mirror(text, other):
    assert mirrored(text) == other
    assert mirrored(other) == text


def test_words_without_a_place_for_the_sentence_are_refused(pictures):
    with pytest.raises(ValueError, match=r"views\.words"):
        settings(pictures, "views.words=a photo")
