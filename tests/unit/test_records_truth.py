"""TRUTH: rows through the checked codec, refused one by one."""

import json

import numpy as np
import pytest

from ppt import rle
from ppt.records import truth
from ppt.records.truth import TruthError

SQUARE = np.zeros((4, 6), bool)
SQUARE[1:3, 2:5] = True
MASK = rle.encode(SQUARE)
SIZES = {"a": (4, 6), "b": (4, 6), "c": None}


def written(tmp_path, *rows):
    path = tmp_path / "truth.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def read(path, sizes, left_out=(), once=False):
    return truth.checked(truth.read(path), sizes, left_out, once)


def row(id, segmentation=None):
    return {"id": id, "segmentation": segmentation or MASK.to_json()}


def test_masks_come_back_sorted_by_id_from_any_coco_form(tmp_path):
    polygon = [[1.5, 0.5, 4.5, 0.5, 4.5, 2.5, 1.5, 2.5]]
    runs = {"size": [4, 6], "counts": [9, 2, 2, 2, 2, 2, 5]}
    found, refused = read(written(tmp_path, row("b", polygon), row("a", runs), row("c")), SIZES)
    assert refused == []
    assert [truth.id for truth in found] == ["a", "b", "c"]
    np.testing.assert_array_equal(rle.decode(found[0].rle), SQUARE)
    assert found[2].rle == MASK
    assert rle.area(found[1].rle) > 0


def test_distractors_are_masks_of_the_same_image_or_unknown(tmp_path):
    polygon = [[1.5, 0.5, 4.5, 0.5, 4.5, 2.5, 1.5, 2.5]]
    rows = [{**row("a"), "distractors": [MASK.to_json(), polygon]}, {**row("b"), "distractors": []}, row("c")]
    found, refused = read(written(tmp_path, *rows), SIZES)
    assert refused == []
    assert [truth.twins for truth in found] == [True, False, None]
    assert found[0].distractors == (MASK, MASK)


def test_polygons_on_an_image_nobody_could_open_keep_their_area(tmp_path):
    polygon = [[1.5, 0.5, 4.5, 0.5, 4.5, 2.5, 1.5, 2.5]]
    found, refused = read(written(tmp_path, row("b", polygon), row("c", polygon)), SIZES)
    assert refused == []
    assert (found[1].rle.height, found[1].rle.width) == (3, 5)
    assert rle.area(found[1].rle) == rle.area(found[0].rle) > 0


@pytest.mark.parametrize(
    ("bad", "error", "told"),
    [
        ("{", "bad_json", "not JSON"),
        ('{"id": "b", "id": "c"}', "duplicate_key", "'id'"),
        ({"segmentation": {}}, "bad_value", "None"),
        (row("a"), "duplicate_id", "'a'"),
        (row("x"), "unknown_id", "'x'"),
        ({"id": "b"}, "bad_mask", "NoneType"),
        (row("b", {"size": [4, 6], "counts": "~~~"}), "bad_mask", "'~'"),
        (row("b", {"size": [4, 6], "counts": [3]}), "bad_mask", "sum to 3"),
        (row("b", rle.encode(np.ones((6, 4), bool)).to_json()), "bad_mask", "6x4 but its image is 4x6"),
        ({**row("b"), "distractors": True}, "bad_mask", "list of masks"),
        ({**row("b"), "distractors": [{"size": [6, 4], "counts": [24]}]}, "bad_mask", "6x4"),
        (row("c", [[0, 0, 1, 1, 2]]), "bad_mask", "polygons carry no size"),
        (row("c", [[]]), "bad_mask", "polygons carry no size"),
    ],
)
def test_a_bad_row_is_refused_and_the_rest_is_read(tmp_path, bad, error, told):
    found, refused = read(written(tmp_path, row("a"), bad), SIZES)
    assert [truth.id for truth in found] == ["a"]
    assert [(refusal.where, refusal.error) for refusal in refused] == [("line 2", error)]
    assert refused[0].message.startswith("line 2: ")
    assert told in refused[0].message


def test_ids_left_out_are_passed_over_even_where_their_mask_is_bad(tmp_path):
    path = written(tmp_path, row("a"), {"id": "left", "segmentation": {}})
    found, refused = read(path, SIZES, left_out={"left"})
    assert [truth.id for truth in found] == ["a"]
    assert refused == []


def test_files_that_hold_no_truth_are_errors(tmp_path):
    with pytest.raises(TruthError, match="no line is a JSON object with id and segmentation"):
        read(written(tmp_path, {"image": "a.jpg"}), SIZES)
    with pytest.raises(TruthError, match="is empty"):
        read(written(tmp_path), SIZES)
    with pytest.raises(TruthError, match=r"absent\.jsonl cannot be read"):
        read(tmp_path / "absent.jsonl", SIZES)
