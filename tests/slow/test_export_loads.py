"""Every export loaded by the program that it is for, where that is installed: pip install -e ".[exports]"."""

import json
import os
from xml.etree import ElementTree

import numpy as np
import pytest
from fixtures import exports
from fixtures.exports import exported, labelled
from fixtures.pictures import CENTRES, disc

from ppt import rle

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # other people's
]
PAIRS = [("a", "left"), ("b", "middle"), ("c", "right")]


@pytest.fixture
def items(tmp_path):
    """Three images of two sentences, a disc and a mask of two parts and a hole; and an image without any."""
    found = []
    for name, where in PAIRS:
        split = "val" if name == "c" else "train"
        one = labelled(tmp_path / "in", f"{name}/1", f"{name}.png", where, split=split, score=0.25)
        mask = disc("left") | disc("right")
        mask[22:26, 12:16] = False
        two = labelled(
            tmp_path / "in", f"{name}/2", f"{name}.png", mask=rle.encode(mask), split=split, score=0.5
        )
        found += [one, two]
    return [*found, labelled(tmp_path / "in", "none", "n.png", split="val", band="drop")]


@pytest.fixture
def masks(items):
    return {item.id: rle.decode(item.mask) for item in items if item.band == "keep"}


@pytest.fixture
def folder(items, tmp_path):
    def write(name, **more):
        exported(tmp_path / "out", tmp_path / "in", name, items, **more)
        return tmp_path / "out"

    return write


def test_datasets_loads_an_imagefolder_with_masks_as_images(folder, masks, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    made = folder("imagefolder")
    loaded = datasets.load_dataset("imagefolder", data_dir=str(made), cache_dir=str(tmp_path / "cache"))
    assert {name: len(split) for name, split in loaded.items()} == {"train": 4, "validation": 2}
    found = {row["id"]: row for split in loaded.values() for row in split}
    assert set(found) == set(masks)
    for id, mask in masks.items():
        np.testing.assert_array_equal(np.asarray(found[id]["mask"]) == 255, mask)
        assert found[id]["image"].size == (64, 48)
        assert (found[id]["text"], found[id]["band"]) == (f"the disc of {id}", "keep")
    assert {row["score"] for row in found.values()} == {0.25, 0.5}


def test_datasets_loads_webdatasets_tars(folder, masks, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    files = sorted(str(path) for path in folder("webdataset").glob("*.tar"))
    loaded = datasets.load_dataset(
        "webdataset", data_files={"train": files}, cache_dir=str(tmp_path / "cache"), split="train"
    )
    found = {row["json"]["id"]: np.asarray(row["mask.png"]) == 255 for row in loaded}
    assert set(found) == set(masks)
    for id, mask in masks.items():
        np.testing.assert_array_equal(found[id], mask)


def test_webdataset_reads_its_tars_without_unpickling(folder, masks, monkeypatch):
    monkeypatch.setenv("WDS_SECURE", "1")
    webdataset = pytest.importorskip("webdataset")
    files = sorted(str(path) for path in folder("webdataset").glob("*.tar"))
    samples = [*webdataset.WebDataset(files, shardshuffle=False).decode("pil")]
    found = {sample["json"]["id"]: np.asarray(sample["mask.png"].convert("L")) == 255 for sample in samples}
    assert set(found) == set(masks)
    for id, mask in masks.items():
        np.testing.assert_array_equal(found[id], mask)
    assert all(sample["png"].size == (64, 48) and sample["txt"] for sample in samples)


def by_image(dataset):
    """Image's stem -> its masks, of what supervision loaded."""
    return {os.path.basename(path): found.mask for path, _, found in dataset}


def test_supervision_loads_coco_with_rle_to_the_pixel(folder, masks):
    supervision = pytest.importorskip("supervision")
    made = folder("coco", way="copy")
    drawn = []
    for path in sorted(made.glob("annotations/*.json")):
        loaded = supervision.DetectionDataset.from_coco(str(made), str(path), force_masks=True)
        assert loaded.classes == ["object"]
        drawn += [
            mask.tobytes() for found in by_image(loaded).values() if found is not None for mask in found
        ]
    assert sorted(drawn) == sorted(mask.tobytes() for mask in masks.values())


def test_supervision_loads_yolo_with_what_its_own_filling_of_polygons_adds(folder, masks):
    """It fills through the middles of pixels, and so adds a row and a column on the right and below."""
    supervision = pytest.importorskip("supervision")
    made = folder("yolo")
    count = 0
    for split in ("train", "val"):
        loaded = supervision.DetectionDataset.from_yolo(
            str(made / "images" / split),
            str(made / "labels" / split),
            str(made / "data.yaml"),
            force_masks=True,
        )
        assert loaded.classes == ["object"]
        for found in by_image(loaded).values():
            for mask in found if found is not None else ():
                count += 1
                mask = mask.astype(bool)
                best = max((mask & own).sum() / (mask | own).sum() for own in masks.values())
                assert best > 0.75
                assert any(not (own & ~mask).any() for own in masks.values()), "nothing is lost"
    assert count == len(masks)


def test_label_studios_own_decoder_reads_the_tasks(folder, masks):
    brush = pytest.importorskip("label_studio_converter.brush")
    tasks = json.loads((folder("label-studio") / "tasks.json").read_text())
    found = {}
    for task in tasks:
        [region] = task["predictions"][0]["result"]
        pixels = brush.decode_rle(region["value"]["rle"])
        size = region["original_height"], region["original_width"], 4
        found[task["data"]["pair_id"]] = pixels.reshape(size)[..., 3] == 255
        assert (
            brush.mask2rle(masks[task["data"]["pair_id"]].astype(np.uint8) * 255)[:-1]
            == region["value"]["rle"][
                : len(brush.mask2rle(masks[task["data"]["pair_id"]].astype(np.uint8) * 255)) - 1
            ]
        )
    assert set(found) == set(masks)
    for id, mask in masks.items():
        np.testing.assert_array_equal(found[id], mask)


def test_cvats_own_decoder_reads_the_masks(folder, masks):
    sdk = pytest.importorskip("cvat_sdk.masks")
    root = ElementTree.parse(folder("cvat") / "annotations.xml").getroot()
    found = {}
    for image in root.iter("image"):
        width, height = (int(image.attrib[name]) for name in ("width", "height"))
        for one in image.iter("mask"):
            left, top, wide, high = (int(one.attrib[name]) for name in ("left", "top", "width", "height"))
            points = [*map(int, one.attrib["rle"].split(",")), left, top, left + wide - 1, top + high - 1]
            told = {attribute.attrib["name"]: attribute.text for attribute in one}
            found[told["pair_id"]] = sdk.decode_mask(points, image_width=width, image_height=height)
            assert points == sdk.encode_mask(masks[told["pair_id"]])
    assert set(found) == set(masks)
    for id, mask in masks.items():
        np.testing.assert_array_equal(found[id], mask)


def test_fiftyones_importer_reads_masks_scores_and_images(folder, masks, tmp_path, monkeypatch):
    """Its importer alone, as `fo.Dataset.from_dir` calls it: a data set would need its MongoDB."""
    monkeypatch.setenv("FIFTYONE_DATABASE_DIR", str(tmp_path / "database"))
    monkeypatch.setenv("FIFTYONE_DO_NOT_TRACK", "true")
    pytest.importorskip("fiftyone")
    from fiftyone.utils.coco import COCODetectionDatasetImporter

    made = folder("fiftyone")
    found, images = {}, 0
    for split in ("train", "val"):
        importer = COCODetectionDatasetImporter(
            dataset_dir=str(made / split), label_types=["segmentations"], extra_attrs=True
        )
        with importer:
            for path, size, labels in importer:
                assert os.path.isfile(path)
                assert (size["width"], size["height"]) == (64, 48)
                images += 1
                for one in labels.detections if labels is not None else ():
                    x, y, *_ = (
                        round(v * side) for v, side in zip(one.bounding_box, (64, 48, 64, 48), strict=True)
                    )
                    mask = np.zeros((48, 64), bool)
                    mask[y : y + one.mask.shape[0], x : x + one.mask.shape[1]] = one.mask
                    found[one["pair_id"]] = (mask, one.confidence, one["expression"], one.label)
    assert images == len(PAIRS) + 1
    assert set(found) == set(masks)
    for id, mask in masks.items():
        np.testing.assert_array_equal(found[id][0], mask)
        assert found[id][1:] == (0.25 if id.endswith("1") else 0.5, f"the disc of {id}", "object")


def test_the_readers_of_these_tests_are_not_easily_pleased(folder, masks):
    assert len(CENTRES) == len(PAIRS)
    found = exports.label_studio(folder("label-studio"))
    assert not np.array_equal(found["a/1"], masks["a/2"])
