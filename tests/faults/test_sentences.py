"""Sentences that are too long, too many, or of letters that are written in two ways."""

import unicodedata

import numpy as np
import pytest
from fixtures.models import FakeClip, FakeSam
from fixtures.pictures import write_rows
from fixtures.walk import failures, rows, settings, walk

from pipelines import doors
from ppt import rle
from ppt.backbones.clip import load_clip
from ppt.labels import LISTED
from ppt.points import from_maps
from ppt.records import pairs
from ppt.records.pairs import derived_id
from ppt.types import MaskCandidates, RelevanceMap

COMPOSED, APART = "café à gauche", unicodedata.normalize("NFD", "café à gauche")


@pytest.fixture
def said(pictures, models, tmp_path):
    """Pairs -> the folder of a run over them, up to labels."""

    def run(given, *overrides):
        write_rows(pictures / "pairs.jsonl", given)
        output = tmp_path / "out"
        walk(settings(pictures, *overrides), output, "labels")
        return output

    return run


# --- length


def test_ten_thousand_words_are_read_as_far_as_clip_reads_and_that_is_flagged(tmp_path):
    clip = load_clip("embedded", None, "cpu", size=64)
    long, short = "the red disc " * 3333 + "here", "the red disc"
    vectors, cut = clip.encode_texts([long, short])
    assert cut == [True, False]
    assert np.isfinite(vectors).all()
    assert not np.array_equal(vectors[0], vectors[1])


def test_the_flag_is_in_the_row_and_the_sentence_is_kept_whole(said):
    long = "the red disc " * 3333 + "here"
    output = said(
        [{"image": "a.png", "text": long, "id": "long"}, {"image": "a.png", "text": "red", "id": "s"}]
    )
    assert "text_truncated" in rows(output, "relevance")["long"]["flags"]
    assert "text_truncated" not in rows(output, "relevance")["s"]["flags"]
    assert rows(output, "labels")["long"]["text"] == long


# --- letters


def test_a_letter_written_in_two_ways_is_one_sentence_to_the_key_and_two_to_the_eye(tmp_path):
    assert COMPOSED != APART
    assert derived_id("a.png", COMPOSED) == derived_id("a.png", APART)
    write_rows(tmp_path / "pairs.jsonl", [{"image": "a.png", "text": text} for text in (APART, COMPOSED)])
    first, second = pairs.checked(pairs.read(tmp_path / "pairs.jsonl"))
    assert first.pair.text == APART
    assert (second.error, first.id) == ("duplicate_id", derived_id("a.png", COMPOSED))


def test_of_sentences_that_are_words_in_no_way_none_is_asked(said):
    texts = ["", " \t\u00a0", "?!...", "\u200d", "\u0301", "\ufe0f", "\x07", "$ + ="]
    output = said([{"image": "a.png", "text": text, "id": f"{n}"} for n, text in enumerate((*texts, "red"))])
    assert failures(output, "records") == {f"{n}": "empty_text" for n in range(len(texts))}
    assert set(rows(output, "labels")) == {f"{len(texts)}"}


# --- number


@pytest.mark.parametrize("many", [600, pytest.param(5000, marks=pytest.mark.slow)])
def test_an_image_of_thousands_of_sentences_is_labelled_and_says_only_so_much_of_each(said, many):
    given = [
        {"image": "a.png", "text": f"the {('red', 'blue')[n % 2]} disc, number {n}", "id": f"{n}"}
        for n in range(many)
    ]
    output = said(given)
    found = rows(output, "labels")
    assert len(found) == many
    reasons = [one for one in found["0"]["reasons"] if one.startswith("same_mask_as")]
    assert reasons[:2] == ["same_mask_as:2", "same_mask_as:4"]
    assert reasons[LISTED:] == [f"same_mask_as_others:{many // 2 - 1 - LISTED}"]
    assert (output / "labels" / "labels.jsonl").stat().st_size < 1500 * many


def test_an_image_that_no_row_names_is_not_opened_and_one_without_words_is_told(tmp_path, pictures, said):
    (pictures / "unnamed.png").write_bytes(b"nothing")
    output = said([{"image": "a.png", "text": "red", "id": "1"}, {"image": "b.png", "id": "2"}])
    assert failures(output, "records") == {"2": "bad_value"}


# --- maps and masks that say nothing


@pytest.mark.parametrize("value", [0.0, 0.5, np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("method", ["peak_points", "surgery_points", "read_points"])
def test_a_map_without_a_highest_place_gives_no_point(value, method):
    values = np.full((4, 6), value, np.float32)
    arguments = {"surgery_points": (0.5,), "read_points": (0.8, 0.2, 9)}.get(method, ())
    for one in (
        values,
        np.where(np.arange(24).reshape(4, 6) == 7, np.float32("nan"), 1.0).astype(np.float32),
    ):
        points = getattr(from_maps, method)(RelevanceMap(one, 48, 64), *arguments)
        assert len(points.labels) == 0
        assert points.reasons == ("no_evidence",)


class NoMask(FakeSam):
    """A SAM whose masks are all empty, or all of the image."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def _candidates(self, image, points):
        masks = (rle.encode(np.full(image.shape[:2], self.value)),) * 3
        return MaskCandidates(masks, np.full(3, 0.9, np.float32), np.full(3, 0.9, np.float32))


@pytest.mark.parametrize(("value", "reason"), [(False, "empty"), (True, "background_sized")])
def test_a_mask_of_nothing_or_of_everything_is_never_taken_and_its_area_is_told(
    said, monkeypatch, value, reason
):
    monkeypatch.setattr(doors, "load_clip", lambda *_: FakeClip())
    monkeypatch.setattr(doors, "load_sam", lambda *_: NoMask(value))
    output = said([{"image": "a.png", "text": "the red disc", "id": "1"}])
    label = rows(output, "labels")["1"]
    assert (label["segmentation"], label["weight"]) == (None, 0)
    assert f"no_candidate:{reason}" in label["reasons"]
    assert {one["area"] for one in rows(output, "masks")["1"]["candidates"]} == {float(value)}
