"""Stage 5: labels that may teach do, the training resumes to the bit, and every pair is asked."""

import json
import shutil

import numpy as np
import pytest
import torch
from fixtures.pictures import HEIGHT, SCENES, WIDTH, disc, picture, read_rows, write_rows
from fixtures.processes import snapshot
from fixtures.walk import TINY, failures, rows, settings, walk
from PIL import Image

from pipelines.s5_segmenter import lessons
from ppt import rle
from ppt.config import ConfigError
from ppt.records.images import ImageError
from ppt.segmenter.reader import read_segmenter
from ppt.store import Artifact, ArtifactError


def test_an_image_teaches_if_all_its_sentences_may(models, pictures, output):
    config = settings(pictures, *TINY)
    walk(config, output, "labels")
    records, labels = Artifact.open(output / "records"), Artifact.open(output / "labels")
    [image] = lessons.taught(config, records, labels)
    assert [label.id for label in image.labels] == ["c-right"]  # a.png, copied, and b.png are of val, too


def test_a_label_without_weight_teaches_nothing(models, all_train, output):
    config = settings(all_train, *TINY)
    walk(config, output, "labels")
    records, labels = Artifact.open(output / "records"), Artifact.open(output / "labels")
    taught = {label.id for image in lessons.taught(config, records, labels) for label in image.labels}
    weights = {id: row["weight"] for id, row in rows(output, "labels").items()}
    assert taught == {id for id, weight in weights.items() if weight > 0}
    assert weights["nothing"] == 0
    strict = settings(all_train, *TINY, "labels.min_stability=1.0")
    with pytest.raises(ValueError, match=r"no label of splits \['', 'train'\] has a weight above 0; look at"):
        walk(strict, output.parent / "strict", "segmenter")


def test_a_batch_has_what_the_labels_say(models, all_train, output):
    config = settings(all_train, *TINY, "segmenter.batch=5")
    walk(config, output, "labels")
    records, labels = Artifact.open(output / "records"), Artifact.open(output / "labels")
    pseudo = lessons.Pseudo(config, output, models.clip, lessons.taught(config, records, labels))
    batch = pseudo.drawn(0)
    assert batch.pixels.shape == (len(batch.image.unique()), 3, 64, 64)
    assert len(batch.image) == 5
    assert batch.covered.shape == batch.there.shape == (5, 1, 32, 32)
    assert torch.equal(batch.covered, pseudo.drawn(0).covered)
    assert not torch.equal(batch.covered, pseudo.drawn(1).covered)
    assert max(torch.bincount(batch.image)) >= 2
    # 64 x 48 pixels fill the upper three quarters of the square; a cell of the grid is two pixels.
    expected = torch.zeros(32, 32)
    expected[: HEIGHT // 2] = 1
    assert torch.equal(batch.there[0, 0], expected)
    [(number, left)] = [
        (number, place)
        for number, image in enumerate(pseudo.taught)
        for place, own in enumerate(image.labels)
        if own.id == "b-left"
    ]
    cells = disc("left").reshape(24, 2, 32, 2).mean((1, 3))
    np.testing.assert_allclose(
        pseudo.lessons([pseudo.lesson(number, left)]).covered[0, 0, :24].numpy(), cells, atol=1e-6
    )
    for place in range(5):
        own = batch.things[batch.image[place], batch.meant[place]]
        assert torch.equal(own, batch.covered[place, 0])


@pytest.fixture
def of_one_thing(all_train):
    """b.png and c.png are said to show one thing each: the red disc and the green."""
    rows = read_rows(all_train / "pairs.jsonl")
    kept = [row for row in rows if row["id"] != "b-left"]
    alone = ("b-middle", "c-right")
    changed = [{**row, "source": "object_centric"} if row["id"] in alone else row for row in kept]
    write_rows(all_train / "pairs.jsonl", changed)
    return all_train


def test_half_a_batch_is_about_mosaics_of_the_labels_of_one_thing(models, of_one_thing, output):
    config = settings(of_one_thing, *TINY, "segmenter.batch=6")
    walk(config, output, "labels")
    records, labels = Artifact.open(output / "records"), Artifact.open(output / "labels")
    taught = lessons.taught(config, records, labels)
    assert [image.alone for image in taught] == [False, True, True]
    pseudo = lessons.Pseudo(config, output, models.clip, taught)
    batch = pseudo.drawn(0)
    framed = {tuple(models.clip.framed(picture(SCENES[name]), 64).flatten().tolist()) for name in SCENES}
    known = [tuple(batch.pixels[i].flatten().tolist()) in framed for i in batch.image]
    assert known == [False] * 3 + [True] * 3
    assert (batch.believed[:3] == 1).all()
    assert (batch.covered[:3].flatten(1).amax(1) > 0.9).all(), "every mosaic's sentence has its thing"
    assert torch.equal(batch.pixels, pseudo.drawn(0).pixels)
    assert not torch.equal(batch.pixels[0], pseudo.drawn(1).pixels[0])
    none = lessons.Pseudo(settings(of_one_thing, *TINY, "segmenter.mosaics=0"), output, models.clip, taught)
    assert all(tuple(one.flatten().tolist()) in framed for one in none.drawn(0).pixels)


def test_there_are_so_many_mosaics_and_each_has_its_number(models, of_one_thing, output):
    config = settings(of_one_thing, *TINY, "segmenter.mosaic_images=3", "segmenter.mosaics=1")
    walk(config, output, "labels")
    taught = lessons.taught(config, *(Artifact.open(output / name) for name in ("records", "labels")))
    pseudo, seen = lessons.Pseudo(config, output, models.clip, taught), {}
    for step in range(12):
        batch = pseudo.drawn(step)
        for number, image in zip(batch.number.tolist(), batch.pixels, strict=True):
            assert torch.equal(seen.setdefault(number, image), image)
    assert sorted(seen) == [3, 4, 5], "after the three images"
    assert len({tuple(image.flatten().tolist()) for image in seen.values()}) == 3
    new = settings(of_one_thing, *TINY, "segmenter.mosaics=1")
    batches = [lessons.Pseudo(new, output, models.clip, taught).drawn(step) for step in range(2)]
    assert all(
        (batch.number < 0).all() and len(batch.number.unique()) == len(batch.number) for batch in batches
    )
    assert not torch.equal(batches[0].pixels[0], batches[1].pixels[0])


def test_what_clip_makes_of_images_is_remembered_and_changes_nothing(models, of_one_thing, output):
    walk(settings(of_one_thing, *TINY), output, "labels")
    learned = []
    for gib in ("1e-9", "1"):
        config = settings(of_one_thing, *TINY, "segmenter.mosaic_images=2", f"segmenter.memory_gib={gib}")
        walk(config, output, "segmenter", "segmenter", fresh=True)
        learned.append((output / "segmenter/shards/00000.safetensors").read_bytes())
    assert learned[0] == learned[1]


def one_held_out(folder, output, *more):
    """A config that holds one image out, and (images that teach, those held out)."""
    walk(settings(folder, *TINY), output, "labels")
    artifacts = [Artifact.open(output / name) for name in ("records", "labels")]
    every = lessons.taught(settings(folder, *TINY), *artifacts)
    share = min(int(image.sha256[:8], 16) for image in every) / 16**8 + 1e-6
    teaching, held = lessons.held_out(every, share)
    assert len(held) == 1
    assert sorted(teaching + held, key=every.index) == every
    assert (lessons.held_out(every, 0.0)[1], lessons.held_out(every, 1.0)[0]) == ([], [])
    return settings(folder, *TINY, f"segmenter.held_out={share}", *more), teaching, held


def test_training_stops_on_labels_held_out_which_teach_nothing(models, of_one_thing, output, monkeypatch):
    config, teaching, _ = one_held_out(of_one_thing, output, "segmenter.patience=1", "segmenter.steps=40")
    asked, real = set(), lessons.Pseudo.lesson

    def noted(pseudo, number, meant):
        asked.add(pseudo.taught[number].labels[meant].id)
        return real(pseudo, number, meant)

    monkeypatch.setattr(lessons.Pseudo, "lesson", noted)
    monkeypatch.setattr("pipelines.s5_segmenter._masks", lambda *_: torch.zeros(1, 1, 1, dtype=torch.bool))
    monkeypatch.setattr("pipelines.s5_segmenter._agreement", lambda *_: 0.5)
    walk(config, output, "segmenter", "segmenter")
    log = read_rows(output / "segmenter/training/log.jsonl")
    assert len(log) == 6, "after checkpoints at 2, 4 and 6 with nothing gained"
    assert log[1]["held_out"] == 0.5
    assert asked <= {label.id for image in teaching for label in image.labels}


def test_what_is_held_out_is_asked_about(models, of_one_thing, output):
    config, _, (held,) = one_held_out(of_one_thing, output, "segmenter.steps=4")
    walk(config, output, "segmenter", "segmenter")
    log = read_rows(output / "segmenter/training/log.jsonl")
    assert 0 <= log[1]["held_out"] <= log[3]["held_out"] <= 1
    best = log[1]["held_out"] == log[3]["held_out"]  # the second checkpoint gained nothing
    reader = read_segmenter(Artifact.open(output / "segmenter"), models.clip)
    pixels = np.array(Image.open(of_one_thing / held.labels[0].image).convert("RGB"))
    found = reader(pixels, [label.text for label in held.labels])
    ious = [rle.iou(p.mask, label.segmentation) for p, label in zip(found, held.labels, strict=True)]
    mean = np.average(ious, weights=[label.weight for label in held.labels])
    assert mean == pytest.approx(log[1 if best else 3]["held_out"], abs=0.1)  # measured on the square's grid


def test_no_batch_can_be_drawn_where_no_image_is_left(models, all_train, output):
    config = settings(all_train, *TINY)
    walk(config, output, "labels")
    for name in ("a.png", "b.png", "c.png", "copy.jpg"):
        (all_train / name).unlink()
    with pytest.raises(ImageError, match="no image that may teach can be read any more"):
        walk(config, output, "segmenter", "segmenter")


def test_mosaics_go_on_without_a_piece_that_went_away(models, of_one_thing, output, capsys):
    config = settings(of_one_thing, *TINY, "segmenter.batch=6")
    walk(config, output, "labels")
    records, labels = Artifact.open(output / "records"), Artifact.open(output / "labels")
    (of_one_thing / "c.png").unlink()
    taught = lessons.taught(config, records, labels)
    batch = lessons.Pseudo(config, output, models.clip, taught).drawn(0)
    assert len(batch.image) == 6
    assert len(batch.pixels) <= 2, "one piece makes no mosaic"
    assert capsys.readouterr().err.count("c.png teaches no more") == 1


def test_what_was_learned_is_kept_without_clips_own(models, all_train, output):
    summary = walk(settings(all_train, *TINY), output, "segmenter")
    assert summary.line() == "segmenter: 1 items, 0 skipped; 1 shards made, 0 kept"
    artifact = Artifact.open(output / "segmenter")
    parts = {name.split(".")[0] for name in artifact.tensors("00000")}
    assert parts == {"adapters", "neck", "prior", "fusion", "decoder"}
    log = [json.loads(line) for line in (output / "segmenter/training/log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log] == list(range(6))
    assert {"cross_entropy", "dice", "pairwise", "contrast", "grounding", "alignment"} <= set(log[0])
    assert (output / "segmenter" / "preview.png").stat().st_size > 1000
    models.clip.weights_sha256 = "other"
    with pytest.raises(ArtifactError, match="trained with another CLIP; name that one"):
        read_segmenter(artifact, models.clip)


def test_a_training_that_was_killed_goes_on_as_if_nothing_had_happened(
    models, all_train, output, tmp_path, monkeypatch
):
    config, other = settings(all_train, *TINY), tmp_path / "other"
    walk(config, output, "segmenter")
    for step in (1, 3, 5):

        def stopped(pseudo, asked, step=step, real=lessons.Pseudo.drawn):
            if asked == step:
                raise KeyboardInterrupt
            return real(pseudo, asked)

        with monkeypatch.context() as patch:
            patch.setattr(lessons.Pseudo, "drawn", stopped)
            with pytest.raises(KeyboardInterrupt):
                walk(config, other, "segmenter")
    walk(config, other, "segmenter")
    assert snapshot(other / "segmenter") == snapshot(output / "segmenter")


def test_no_truth_is_read(models, all_train, output, tmp_path):
    config, other = settings(all_train, *TINY, truth=True), tmp_path / "other"
    walk(config, output, "predictions")
    walk(config, other, "labels")
    shutil.rmtree(other / "truth")
    walk(config, other, "predictions", first="segmenter")
    for stage in ("segmenter", "predictions"):
        assert snapshot(other / stage) == snapshot(output / stage)


def test_an_image_that_went_away_teaches_no_more_and_the_others_do(models, all_train, output, capsys):
    config = settings(all_train, *TINY)
    walk(config, output, "labels")
    (all_train / "c.png").unlink()
    walk(config, output, "predictions", first="segmenter")
    told = capsys.readouterr().err
    assert told.count("segmenter: c.png teaches no more") == 1
    assert failures(output, "predictions") == {"c-right": "missing"}


def test_every_pair_has_a_prediction_and_is_scored_beside_its_label(models, all_train, output):
    config = settings(all_train, *TINY, truth=True)
    found = walk(config, output, "evaluate")
    predictions = rows(output, "predictions")
    assert set(predictions) == set(rows(output, "records"))
    joined = read_rows(output / "predictions" / "predictions.jsonl")
    assert [row["id"] for row in joined] == sorted(predictions)
    for row in predictions.values():
        assert 0 <= row["sure"] <= 1
        if row["segmentation"] is None:
            assert row["sure"] == 0
        else:
            assert row["segmentation"]["size"] == [HEIGHT, WIDTH]
    own = found.metrics["segmenter"]["all"]
    assert own["n"] == found.metrics["labels"]["n"] == 6
    truth = {row["id"]: rle.from_json(row["segmentation"]) for row in read_rows(all_train / "truth.jsonl")}
    masks = {id: row["segmentation"] for id, row in predictions.items()}
    ious = [rle.iou(rle.from_json(masks[id]), true) if masks[id] else 0 for id, true in truth.items()]
    assert own["miou"] == pytest.approx(np.mean(ious))
    assert "pointm" not in own
    assert "segmenter, " in found.line()
    assert len(read_rows(output / "evaluate" / "segmenter.jsonl")) == 6


def test_a_size_that_cuts_cells_is_refused_before_any_work(models, all_train, output):
    config = settings(all_train, *TINY, "segmenter.size=60")
    walk(config, output, "labels")
    with pytest.raises(ConfigError, match=r"segmenter\.size: 8 pixels are a cell of this tower \(got 60\)"):
        walk(config, output, "segmenter", first="segmenter")
    assert not (output / "segmenter").exists()


POINTING = ("segmenter.decoder=point", "segmenter.things=2")


def test_where_it_points_sam_draws(models, all_train, output):
    walk(settings(all_train, *TINY, *POINTING), output, "predictions")
    for stage in ("segmenter", "predictions"):
        manifest = Artifact.open(output / stage).manifest
        assert manifest.weights == {
            "clip": models.clip.weights_sha256,
            "sam": models.sam.weights_sha256,
        }
        assert "sam" in manifest.config
    drawn = rows(output, "predictions")
    offered = rows(output, "masks")
    assert set(drawn) == set(offered)
    assert all(row["segmentation"] and 0 < row["sure"] < 1 for row in drawn.values())
    models.sam.weights_sha256 = "other"
    with pytest.raises(ArtifactError, match=r"made for another SAM; name that one in sam.weights"):
        walk(settings(all_train, *TINY, *POINTING), output, "predictions", "predictions", fresh=True)


@pytest.mark.parametrize("loss", ["point", "choice"])
def test_what_a_click_decides_by_must_be_taught(models, all_train, output, loss):
    walk(settings(all_train, *TINY), output, "labels")
    config = settings(all_train, *TINY, *POINTING, f"segmenter.losses.{loss}=0")
    with pytest.raises(ConfigError, match=rf"losses.{loss}: the decoder point, asking for 2 .*above 0"):
        walk(config, output, "segmenter", "segmenter")
    assert not (output / "segmenter").exists()
