"""REFER's layout: sentences, masks as pycocotools has them, images by both names, what is missing."""

import json
import pickle

import numpy as np
import pytest
from fixtures import datasets
from fixtures.datasets import ref
from fixtures.pictures import HEIGHT, WIDTH
from pycocotools.coco import COCO

from ppt import rle
from ppt.records import pairs, refer
from ppt.records import truth as truths
from ppt.records.pairs import PairsError
from ppt.settings import RecordsConfig, SourceConfig

SIZE = (HEIGHT, WIDTH)


def read(folder, records=None, **source):
    return refer.read(SourceConfig(format="refer", path=folder, **source), records or RecordsConfig())


def truth_of(found):
    ids = {row["id"]: SIZE for _, row in found.pairs}
    return truths.checked(found.truth, ids)


def test_every_sentence_is_a_pair_and_every_mask_is_cocos_own(tmp_path):
    folder = datasets.refer(tmp_path)
    found = read(folder)
    rows = [row.pair for row in pairs.checked(found.pairs)]
    assert [(row.id, row.text, row.split) for row in rows] == [
        ("refcoco-10", "left red disc", "train"),
        ("refcoco-11", "the left one", "train"),
        ("refcoco-20", "the blue disc", "testA"),
    ]
    assert {row.image for row in rows} == set(datasets.NAMES.values())
    true, refused = truth_of(found)
    assert not refused
    coco = COCO(folder / "instances.json")
    for one, annotation in zip(true, (11, 11, 22), strict=True):
        assert np.array_equal(rle.decode(one.rle), coco.annToMask(coco.anns[annotation]).astype(bool))
    assert [one.ref for one in true] == ["refcoco ref 1", "refcoco ref 1", "refcoco ref 2"]
    assert [len(one.distractors) for one in true] == [1, 1, 0]  # the other red disc, and not the crowd
    assert np.array_equal(rle.decode(true[0].distractors[0]), coco.annToMask(coco.anns[12]).astype(bool))


def test_what_two_polygons_cover_is_true_unless_parity_wants_it_false(tmp_path):
    folder = datasets.refer(tmp_path)
    whole, _ = truth_of(read(folder))
    once, _ = truth_of(read(folder, RecordsConfig(overlap="once")))
    each = [rle.decode(rle.from_polygons([polygon], *SIZE)) for polygon in datasets.square("left")]
    assert np.array_equal(rle.decode(whole[0].rle), each[0] | each[1])
    assert np.array_equal(rle.decode(once[0].rle), each[0] ^ each[1])
    assert (each[0] & each[1]).sum() > 0


def test_raw_is_the_other_spelling_and_splits_can_be_chosen(tmp_path):
    folder = datasets.refer(tmp_path)
    found = read(folder, RecordsConfig(sentence="raw"), splits=("testA",))
    assert [row["text"] for _, row in found.pairs] == ["THE BLUE DISC"]
    assert len(found.truth) == 1


def test_without_instances_or_wanted_truth_there_are_pairs_alone(tmp_path):
    folder = datasets.refer(tmp_path, with_truth=False)
    found = read(folder)
    assert found.truth == []
    assert {row["image"] for _, row in found.pairs} == set(datasets.NAMES.values())
    (folder / "instances.json").write_text(json.dumps(datasets.instances()))
    assert read(folder, truth=False).truth == []


def test_images_of_2017_are_found_under_their_own_names(tmp_path):
    folder = datasets.refer(tmp_path)
    images = datasets.photographs(tmp_path / "train2017", {n: f"{n:012d}.jpg" for n in datasets.NAMES})
    found = read(folder, images=images)
    assert {row["image"] for _, row in found.pairs} == {"000000000001.jpg", "000000000002.jpg"}


def test_grefcoco_has_sentences_about_several_things_and_about_none(tmp_path):
    folder = datasets.refer(tmp_path)
    (folder / "refs(unc).p").unlink()
    refs = [ref(1, 1, [11, 12], "val", "both", category_id=[1, 1]), ref(2, 2, [-1], "val", "the cat")]
    (folder / "grefs(unc).json").write_text(json.dumps(refs))
    true, refused = truth_of(read(folder))
    coco = COCO(folder / "instances.json")
    both = coco.annToMask(coco.anns[11]) | coco.annToMask(coco.anns[12])
    assert not refused
    assert np.array_equal(rle.decode(true[0].rle), both.astype(bool))
    assert true[0].distractors == ()
    assert rle.area(true[1].rle) == 0
    assert (true[1].rle.height, true[1].rle.width) == SIZE


def test_refclefs_masks_are_run_lengths_in_a_list(tmp_path):
    folder = datasets.refer(tmp_path, [ref(1, 1, 11, "train", "left")])
    found = json.loads((folder / "instances.json").read_text())
    mask = np.zeros(SIZE, bool)
    mask[2:5, 3:9] = True
    found["annotations"][0]["segmentation"] = [rle.encode(mask).to_json()]
    (folder / "instances.json").write_text(json.dumps(found))
    true, _ = truth_of(read(folder))
    assert np.array_equal(rle.decode(true[0].rle), mask)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"image_id": 5}, "knows no image 5"),
        ({"sentences": 3}, "sentences must be a list of objects"),
    ],
)
def test_a_bad_ref_is_refused_by_its_number_and_the_rest_is_read(tmp_path, change, told):
    refs = [{**datasets.REFS[0], **change}, datasets.REFS[1]]
    bad, good = pairs.checked(read(datasets.refer(tmp_path, refs)).pairs)
    assert good.pair
    assert bad.pair is None
    assert bad.message.startswith("refcoco ref 1: ")
    assert told in bad.message


@pytest.mark.parametrize(
    ("change", "told"),
    [({"ann_id": 77}, "knows no annotation 77"), ({"ann_id": None}, "knows no annotation None")],
)
def test_a_mask_that_is_not_there_is_refused_alone(tmp_path, change, told):
    refs = [{**datasets.REFS[0], **change}, datasets.REFS[1]]
    true, refused = truth_of(read(datasets.refer(tmp_path, refs)))
    assert [one.id for one in true] == ["refcoco-20"]
    assert {(one.error, one.id) for one in refused} == {
        ("bad_mask", "refcoco-10"),
        ("bad_mask", "refcoco-11"),
    }
    assert all(told in one.message for one in refused)


def test_what_is_no_such_folder_says_what_there_is(tmp_path):
    folder = datasets.refer(tmp_path)
    with pytest.raises(PairsError, match=r"none of refs\(umd\)\.p.*there are: refs\(unc\)\.p"):
        read(folder, by="umd")
    with pytest.raises(PairsError, match="there are: none"):
        read(tmp_path / "nowhere")
    (folder / "instances.json").write_text("{")
    with pytest.raises(PairsError, match=r"instances\.json is not JSON"):
        read(folder)


def test_a_pickle_that_runs_something_is_refused(tmp_path):
    folder = datasets.refer(tmp_path)
    (folder / "refs(unc).p").write_bytes(pickle.dumps([print]))
    with pytest.raises(
        PairsError, match=r"refs\(unc\)\.p is not read: it holds .*nothing in a pickle is run"
    ):
        read(folder)
