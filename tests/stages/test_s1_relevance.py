"""Stage 1: maps and features as specified, image work once per content, and images that go away."""

import numpy as np
import pytest
from fixtures.models import CELL, POISON
from fixtures.pictures import HEIGHT, WIDTH, disc, picture, read_rows, write_rows
from fixtures.processes import snapshot
from fixtures.walk import failures, rows, settings, walk
from PIL import Image

from pipelines import s1_relevance
from ppt.relevance import relevance_maps
from ppt.store import Artifact, StaleArtifact

GRID = (HEIGHT // CELL, WIDTH // CELL)
MIDDLE = HEIGHT // 2 // CELL


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out"


def tensors(output):
    artifact = Artifact.open(output / "relevance")
    return {name: values for key in artifact.keys for name, values in artifact.tensors(key).items()}


def test_rows_and_tensors_are_as_specified(models, pictures, output):
    summary = walk(settings(pictures), output, "relevance")
    assert summary.line() == "relevance: 7 items, 0 skipped; 2 shards made, 0 kept"
    records, found = rows(output, "records"), rows(output, "relevance")
    assert set(found) == set(records)
    for id, row in found.items():
        assert row == {k: records[id][k] for k in ("id", "sha256", "height", "width", "flags")}
    assert found["copy"]["flags"] == ["content:PNG"]
    arrays = tensors(output)
    contents = {record["sha256"] for record in records.values()}
    of_sentences = {f"{kind}/{id}" for kind in ("map", "text", "words") for id in found}
    assert set(arrays) == {f"dense/{sha}" for sha in contents} | of_sentences
    for name, values in arrays.items():
        if name.startswith("dense/"):
            assert (values.shape, values.dtype) == ((*GRID, 3), np.float16)
            np.testing.assert_allclose(np.linalg.norm(values.astype(float), axis=2), 1, atol=1e-3)
        elif name.startswith("text/"):
            assert (values.shape, values.dtype) == ((3,), np.float16)
        elif name.startswith("words/"):
            text = records[name.removeprefix("words/")]["text"]
            assert (values.shape, values.dtype) == ((len(text.split()), 3), np.float16)
        else:
            assert (values.shape, values.dtype) == (GRID, np.float32)
    assert (output / "relevance" / "preview.png").stat().st_size > 1000


def test_a_map_is_the_one_of_its_own_sentence_and_image(models, pictures, output):
    walk(settings(pictures), output, "relevance")
    arrays = tensors(output)
    for id, where in (("a-left", "left"), ("a-right", "right"), ("b-middle", "middle"), ("c-right", "right")):
        row, column = np.unravel_index(arrays[f"map/{id}"].argmax(), GRID)
        assert disc(where)[row * CELL + CELL // 2, column * CELL + CELL // 2], id
    np.testing.assert_array_equal(arrays["map/a-left"], arrays["map/copy"])
    assert np.ptp(arrays["map/nothing"]) == 0


def test_an_image_content_is_encoded_once_whatever_its_names_and_sentences(models, pictures, output):
    walk(settings(pictures), output, "relevance")
    contents = {row["sha256"] for row in rows(output, "records").values()}
    assert models.clip.calls["encode_image"] == len(contents) == 4


def test_sentences_of_the_same_image_are_given_to_the_method_together(models, pictures, output, monkeypatch):
    seen = []

    def spy(features, texts, empty, redundancy):
        seen.append((len(texts), redundancy))
        return relevance_maps(features, texts, empty, redundancy)

    monkeypatch.setattr(s1_relevance, "relevance_maps", spy)
    walk(settings(pictures, "relevance.redundancy=other_texts"), output, "relevance")
    assert sorted(seen) == [(1, "other_texts"), (1, "other_texts"), (2, "other_texts"), (3, "other_texts")]


def test_a_sentence_cut_to_the_context_says_so(models, pictures, output):
    pairs = read_rows(pictures / "pairs.jsonl")
    pairs.append({"id": "long", "image": "c.png", "text": "the green disc " + "and so on " * 100})
    write_rows(pictures / "pairs.jsonl", pairs)
    walk(settings(pictures), output, "relevance")
    flagged = {id for id, row in rows(output, "relevance").items() if "text_truncated" in row["flags"]}
    assert flagged == {"long"}


def test_an_image_that_goes_away_or_changes_fails_and_the_rest_goes_on(models, pictures, output):
    config = settings(pictures)
    walk(config, output, "records")
    (pictures / "b.png").unlink()
    Image.fromarray(picture({"left": "blue"})).save(pictures / "c.png")
    summary = walk(config, output, "relevance", first="relevance")
    assert failures(output, "relevance") == {"b-left": "missing", "b-middle": "missing", "c-right": "changed"}
    assert set(rows(output, "relevance")) == {"a-left", "a-right", "copy", "nothing"}
    assert (summary.items, summary.skipped, summary.reasons) == (4, 3, {"changed": 1, "missing": 2})


def test_features_that_are_not_finite_fail_their_image_alone(models, pictures, output):
    image = picture({"right": "green"})
    image[0, 0] = POISON
    Image.fromarray(image).save(pictures / "c.png")
    walk(settings(pictures), output, "relevance")
    assert failures(output, "relevance") == {"c-right": "bad_features"}
    [failure] = Artifact.open(output / "relevance").failures()
    assert "c.png" in failure.message
    assert "must be finite" in failure.message
    assert len(rows(output, "relevance")) == 6


def test_again_is_nothing_to_do_and_another_method_is_stale(models, pictures, output):
    walk(settings(pictures), output, "relevance")
    before, calls = snapshot(output), models.clip.calls["encode_image"]
    assert walk(settings(pictures), output, "relevance").made == 0
    assert (snapshot(output), models.clip.calls["encode_image"]) == (before, calls)
    changed = settings(pictures, "relevance.redundancy=empty_text")
    with pytest.raises(StaleArtifact, match=r"relevance\.redundancy: 'none' -> 'empty_text'"):
        walk(changed, output, "relevance")
    assert walk(changed, output, "relevance", first="relevance", fresh=True).made == 2


def test_other_weights_are_stale(models, pictures, output):
    walk(settings(pictures), output, "relevance")
    models.clip.weights_sha256 = "d2" * 32
    with pytest.raises(StaleArtifact, match=r"weights\.clip: 'c1c1.* -> 'd2d2"):
        walk(settings(pictures), output, "relevance")


def test_the_preview_is_left_out_where_its_images_are_gone(models, pictures, output):
    config = settings(pictures)
    walk(config, output, "relevance")
    (output / "relevance" / "preview.png").unlink()
    for path in pictures.glob("*.png"):
        path.rename(path.with_suffix(".gone"))
    walk(config, output, "relevance", first="relevance")
    assert not (output / "relevance" / "preview.png").exists()
