"""CRIS, PhraseCut, captions, Flickr30k, class folders, imagefolder, WebDataset: what each layout becomes."""

import json

import numpy as np
import pytest
from fixtures import datasets
from fixtures.datasets import png, tar
from fixtures.pictures import HEIGHT, WIDTH

from ppt import rle
from ppt.records import images, pairs
from ppt.records import truth as truths
from ppt.records.images import ImagePolicy
from ppt.records.pairs import PairsError
from ppt.records.sources import READERS
from ppt.settings import RecordsConfig, SourceConfig

SIZE = (HEIGHT, WIDTH)
POLICY = ImagePolicy(10**6, "ignore", "white", follow_links=False)


def read(format, path, records=None, **source):
    config = SourceConfig(format=format, path=path, **source)
    return READERS[format](config, records or RecordsConfig())


def told(found):
    """(id, image, text, split) of every pair; a refused row gives its message."""
    return [
        (row.id, row.pair.image, row.pair.text, row.split) if row.pair else row.message
        for row in pairs.checked(found.pairs)
    ]


def masks(found, once=False):
    true, refused = truths.checked(found.truth, {row["id"]: SIZE for _, row in found.pairs}, once=once)
    assert not refused
    return [rle.decode(one.rle) for one in true]


def test_cris_has_its_masks_as_png(tmp_path):
    folder = datasets.cris(tmp_path)
    found = read("cris", folder)
    name = datasets.NAMES[1]
    assert told(found) == [
        ("refcoco-3", name, "left red disc", "val"),
        ("refcoco-4", name, "it", "val"),
    ]
    expected = np.zeros(SIZE, bool)
    expected[3:6, 4:8] = True
    assert all(np.array_equal(mask, expected) for mask in masks(found))
    expected[4, 5] = False
    assert np.array_equal(masks(read("cris", folder, RecordsConfig(overlap="once")))[0], expected)
    (tmp_path / "masks/refcoco/7.png").write_bytes(b"no picture")
    _, refused = truths.checked(read("cris", folder).truth, {"refcoco-3": SIZE, "refcoco-4": SIZE})
    assert [one.error for one in refused] == ["bad_mask", "bad_mask"]
    with pytest.raises(PairsError, match=r"no <split>\.json of \('train',\)"):
        read("cris", folder, splits=("train",))


def test_a_phrase_means_all_its_things(tmp_path):
    folder = datasets.phrasecut(tmp_path / "data")
    found = read("phrasecut", folder)
    assert told(found) == [("phrasecut-1__5", "1.jpg", "red discs", "val")]  # miniv is some of val
    parts = [[2, 2, 10, 2, 10, 9, 2, 9], [20, 5, 30, 5, 30, 12]]
    assert np.array_equal(masks(found)[0], rle.decode(rle.from_polygons(parts, *SIZE)))
    assert read("phrasecut", folder, splits=("miniv",)).pairs
    (folder / "image_data_split3000.json").write_text("[]")
    _, refused = truths.checked(read("phrasecut", folder).truth, {"phrasecut-1__5": SIZE})
    assert "knows no image 1" in refused[0].message


def test_cocos_captions_have_no_truth(tmp_path):
    found = read("coco_captions", datasets.captions(tmp_path))
    assert told(found) == [
        ("captions_train2017-1", "000000000001.jpg", "Two red discs.", "train"),
        ("captions_train2017-2", "000000000002.jpg", "A green and a blue disc.", "train"),
        "captions_train2017.json caption 3: no image 9 is listed",
    ]
    assert found.truth == []


def test_flickr30k_by_tokens_and_by_karpathys_splits(tmp_path):
    (tmp_path / "flickr30k-images").mkdir()
    tokens = tmp_path / "results_20130124.token"
    tokens.write_text("1.jpg#0\tA red disc .\n1.jpg#1\tAnother .\nbroken\n")
    assert told(read("flickr30k", tokens, split="val")) == [
        ("flickr30k-1.jpg#0", "1.jpg", "A red disc .", "val"),
        ("flickr30k-1.jpg#1", "1.jpg", "Another .", "val"),
        "line 3: expected <image>#<number><tab><sentence>",
    ]
    split = tmp_path / "dataset_flickr30k.json"
    rows = [
        {"filename": "1.jpg", "split": "train", "sentences": [{"raw": "A red disc.", "sentid": 4}]},
        {"filename": "2.jpg", "split": "test", "sentences": [{"raw": "A blue disc.", "sentid": 5}]},
    ]
    split.write_text(json.dumps({"images": rows}))
    assert told(read("flickr30k", split, splits=("test",))) == [
        ("flickr30k-5", "2.jpg", "A blue disc.", "test")
    ]


def test_a_folder_says_what_its_images_show(tmp_path):
    for name in ("hot_dog/2.png", "hot_dog/1.png", "n02084071/x/a.png", "n02084071/b.txt", "red_mug_03.png"):
        (tmp_path / "own" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "own" / name).write_bytes(png(1))
    names = tmp_path / "synsets.txt"
    names.write_text("n02084071 dog, domestic dog, Canis familiaris\nn99 nothing\n")
    found = read("classes", tmp_path / "own", names=names, template="a photo of a {}.", per_class=1)
    rows = pairs.checked(found.pairs)
    assert [(row.pair.image, row.pair.text, row.source) for row in rows] == [
        ("red_mug_03.png", "a photo of a red mug.", "object_centric"),
        ("hot_dog/1.png", "a photo of a hot dog.", "object_centric"),
        ("n02084071/x/a.png", "a photo of a dog.", "object_centric"),
    ]
    *_, unnamed = told(read("classes", tmp_path / "own"))
    assert unnamed.startswith("n02084071/x/a.png: n02084071 is a number of WordNet's; name what it means in")
    listed = tmp_path / "imagenet_class_index.json"
    listed.write_text(json.dumps({"0": ["n02084071", "golden_retriever"]}))
    rows = pairs.checked(read("classes", tmp_path / "own", names=listed).pairs)
    assert rows[-1].pair.text == "golden retriever"
    names.write_text("n02084071\n")
    with pytest.raises(PairsError, match=r"synsets\.txt names no classes"):
        read("classes", tmp_path / "own", names=names)
    (tmp_path / "empty").mkdir()
    with pytest.raises(PairsError, match="there is no image in it"):
        read("classes", tmp_path / "empty")


def test_imagefolder_has_a_list_in_each_split(tmp_path):
    lines = {
        "train": [{"file_name": "a.png", "text": "left"}, {"text": "nobody"}],
        "test": [{"file_name": "b.png", "caption": "right"}],
    }
    for split, rows in lines.items():
        (tmp_path / split).mkdir()
        (tmp_path / split / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = [one if isinstance(one, str) else one[1:] for one in told(read("imagefolder", tmp_path))]
    assert found == [
        ("test/b.png", "right", "test"),
        ("train/a.png", "left", "train"),
        "train/metadata.jsonl line 2: file_name must be text, got None",
    ]
    with pytest.raises(PairsError, match=r"no metadata\.jsonl"):
        read("imagefolder", tmp_path / "train" / "x")


def test_webdataset_is_read_from_within_its_tars(tmp_path):
    tar(
        tmp_path / "000.tar",
        {
            "a/1.png": png(1),
            "a/1.txt": b" the left disc\n",
            "2.json": json.dumps({"caption": "the blue disc", "text": None}).encode(),
            "2.png": png(2),
            "3.pkl": b"never opened",
            "4.png": png(1),
            "5.png": png(1),
            "5.txt": b"\xff",
        },
    )
    found = read("webdataset", tmp_path)
    assert told(found) == [
        ("000.tar/a/1", "000.tar/a/1.png", "the left disc", "train"),
        ("000.tar/2", "000.tar/2.png", "the blue disc", "train"),
        "000.tar/4: text is missing",
        "000.tar/5: 5.txt holds no sentence: 'utf-8' codec can't decode byte 0xff in position 0: invalid"
        " start byte",
    ]
    folder = datasets.photographs(tmp_path / "p")
    inside = images.load(tmp_path, "000.tar/2.png", POLICY)
    outside = images.load(folder, datasets.NAMES[2], POLICY)
    assert np.array_equal(inside.pixels, outside.pixels)
    for name, error in (("000.tar/9.png", "missing"), ("000.tar/3.pkl", "bad_image")):
        with pytest.raises(images.ImageError) as caught:
            images.load(tmp_path, name, POLICY)
        assert caught.value.error == error
    with pytest.raises(PairsError, match=r"there is no \.tar"):
        read("webdataset", tmp_path / "p")
    (tmp_path / "000.tar").write_bytes(b"x" * 2000)
    with pytest.raises(PairsError, match=r"000\.tar is no tar"):
        read("webdataset", tmp_path)
