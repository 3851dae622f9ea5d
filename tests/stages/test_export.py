"""ppt export: every format written from a run's folder and read back, the masks equal to the labels'."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from fixtures import exports
from fixtures.models import FakeClip, FakeSam
from fixtures.pictures import disc, make_pictures, read_rows
from fixtures.processes import snapshot
from fixtures.walk import rows, settings, walk
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO

from pipelines import doors
from pipelines.stage import remember_source
from ppt import rle
from ppt.exports.formats import FORMATS
from ppt.manifest import Manifest
from ppt.records import cris, folders, plain_pickle, refer, webdataset
from ppt.settings import RecordsConfig, SourceConfig
from ppt.store import Artifact, begin

BY_HASH = ("--split", "train=0.5", "--split", "val=0.5")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with the small pictures, and a run of them up to its labels."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(doors, "load_clip", lambda *_: FakeClip())
        patch.setattr(doors, "load_sam", lambda *_: FakeSam())
        walk(settings(make_pictures(folder / "pictures")), folder / "run", "labels")
    return folder


@pytest.fixture
def pictures(made, tmp_path):
    return shutil.copytree(made / "pictures", tmp_path / "pictures")


@pytest.fixture
def run(made, pictures, tmp_path):
    """The run, of pictures that a test may change."""
    shutil.copytree(made / "run", tmp_path / "run")
    remember_source(tmp_path / "run", {"images": str(pictures)})
    return tmp_path / "run"


@pytest.fixture
def export(run, command, tmp_path):
    """The command on that run; returns the folder, and leaves what was printed in `export.said`."""

    def call(name, *arguments, code=0):
        call.said = command("export", run, "--format", name, "--to", tmp_path / name, *arguments)
        assert call.said.code == code, call.said.err
        return tmp_path / name

    return call


@pytest.fixture
def labels(run):
    """Pair -> mask of every label that may teach."""
    found = rows(run, "labels")
    kept = {id: row for id, row in found.items() if row["weight"] > 0}
    assert 3 < len(kept) < len(found)
    return {id: rle.decode(rle.from_json(row["segmentation"])) for id, row in kept.items()}


def same(found, labels):
    assert set(found) == set(labels)
    for id, mask in labels.items():
        np.testing.assert_array_equal(found[id], mask)


def read(reader, path, **more):
    """What our own reader of a layout finds: (sentence, image, split, mask or None) by id."""
    data = reader(SourceConfig.model_validate({"path": path, **more}), RecordsConfig(sentence="raw"))
    masks = dict(data.truth)
    for where, row in data.pairs:
        assert (data.images / row["image"]).is_file() or ".tar/" in row["image"]
        drawn = masks.get(where)
        mask = rle.decode(drawn["segmentation"]()) if drawn else None
        yield row["id"], (row["text"], row["image"], row.get("split", ""), mask)


@pytest.mark.parametrize("more", [(), ("--polygons",), ("--images", "copy"), BY_HASH])
def test_coco_is_loaded_by_pycocotools(export, labels, more):
    folder = export("coco", *more)
    same(exports.coco_files(sorted(folder.glob("annotations/*.json"))), labels)
    whole = json.loads(min(folder.glob("annotations/*.json")).read_text())
    kind = list if "--polygons" in more else dict
    assert {type(one["segmentation"]) for one in whole["annotations"]} == {kind}
    assert {one["iscrowd"] for one in whole["annotations"]} == {0}
    if "--polygons" in more:
        assert "IoU mean 1.0000, median 1.0000, worst 1.0000" in export.said.out
    assert f"{len(labels)} masks in" in export.said.out


def test_results_are_loaded_beside_their_images_and_beside_a_data_set_of_the_same_run(export, labels, run):
    results, dataset = export("coco-results"), export("coco", "--bands", "keep,review,drop")
    found = {}
    for path in sorted(results.glob("results/results_*.json")):
        split = path.stem.removeprefix("results_")
        beside = COCO(results / f"results/images_{split}.json").loadRes(str(path))
        scored = COCO(dataset / f"annotations/instances_{split}.json")
        again = scored.loadRes(str(path))
        assert set(beside.anns) == set(again.anns)
        for number, one in beside.anns.items():
            sources = scored.imgs[one["image_id"]]["source"]
            found.setdefault(sources, []).append((one["score"], beside.annToMask(beside.anns[number])))
    weights = rows(run, "labels")
    for id, mask in labels.items():
        alike = [score for score, drawn in found[weights[id]["image"]] if np.array_equal(drawn, mask)]
        assert weights[id]["weight"] in alike
    assert sum(map(len, found.values())) == len(labels)


def test_png_masks_are_the_labels_bit_by_bit(export, labels, run):
    folder = export("png")
    listed = read_rows(folder / "masks.jsonl")
    same({row["id"]: exports.grey(folder / row["mask"]) for row in listed}, labels)
    assert {row["text"] for row in listed} == {rows(run, "labels")[id]["text"] for id in labels}


def test_yolo_has_a_line_for_each_mask_and_a_file_for_each_image(export, labels, run):
    found = exports.yolo(export("yolo"))
    assert len(found) >= len({row["image"] for row in rows(run, "records").values()})
    assert [] in found.values(), "an image without a mask"
    drawn = {mask.tobytes() for masks in found.values() for mask in masks}
    assert drawn == {mask.tobytes() for mask in labels.values()}
    assert "IoU mean 1.0000, median 1.0000, worst 1.0000; 0.0% below 0.98" in export.said.out
    assert "empty label file" in export.said.out


def test_refers_layout_comes_back_through_our_reader_and_is_plain(export, labels, run):
    folder = export("refer") / "refcoco"
    refs = plain_pickle.load(folder / "refs(unc).p")
    ids = {f"refcoco-{ref['sent_ids'][0]}": ref["pair_id"] for ref in refs}
    back = dict(read(refer.read, folder, format="refer", by="unc"))
    same({ids[id]: mask for id, (_, _, _, mask) in back.items()}, labels)
    known = rows(run, "records")
    for id, (text, _, split, _) in back.items():
        assert (text, split) == (known[ids[id]]["text"], known[ids[id]]["split"] or "train")
    same(exports.coco_files([folder / "instances.json"]), labels)
    [red] = [ref["sentences"][0] for ref in refs if ref["pair_id"] == "a-left"]
    assert (red["tokens"], red["sent"]) == (["the", "red", "disc"], "the red disc")
    numbers = [ref[name] for ref in refs for name in ("ref_id", "image_id", "ann_id")]
    assert all(type(number) is int and 0 < number < 2**53 for number in numbers)


def test_refers_own_class_would_find_the_masks(export, labels):
    """Its way from a ref to a mask: polygons filled one by one, and added up."""
    folder = export("refer") / "refcoco"
    whole = json.loads((folder / "instances.json").read_text())
    annotations, images = ({row["id"]: row for row in whole[name]} for name in ("annotations", "images"))
    found = {}
    for ref in plain_pickle.load(folder / "refs(unc).p"):
        image, outlines = images[ref["image_id"]], annotations[ref["ann_id"]]["segmentation"]
        assert (folder.parent / "images/mscoco/images/train2014" / image["file_name"]).is_file()
        packed = coco_masks.frPyObjects(outlines, image["height"], image["width"])
        total = coco_masks.decode(packed).sum(2)
        assert total.max() == 1
        found[ref["pair_id"]] = total.astype(bool)
    same(found, labels)


def test_the_layout_of_cris_comes_back_through_our_reader(export, labels):
    folder = export("cris")
    ids = {
        f"refcoco-{ref['sentences'][0]['sent_id']}": ref["pair_id"]
        for path in folder.glob("anns/refcoco/*.json")
        for ref in json.loads(path.read_text())
    }
    back = dict(read(cris.read, folder / "anns/refcoco", format="cris"))
    same({ids[id]: mask for id, (_, _, _, mask) in back.items()}, labels)


def test_an_imagefolder_comes_back_through_our_reader(export, labels, run):
    folder = export("imagefolder")
    listed = [(path.parent, row) for path in folder.glob("*/metadata.jsonl") for row in read_rows(path)]
    same({row["id"]: exports.grey(base / row["mask_file_name"]) for base, row in listed}, labels)
    data = folders.imagefolder(SourceConfig(format="imagefolder", path=folder), RecordsConfig())
    known = [rows(run, "records")[id]["text"] for id in labels]
    assert sorted(row["text"] for _, row in data.pairs) == sorted(known)
    assert all((folder / row["image"]).is_file() for _, row in data.pairs)


def test_webdatasets_tars_come_back_through_our_reader(export, labels, run):
    folder = export("webdataset")
    found, known = {}, rows(run, "records")
    for _, parts in exports.samples(folder):
        told = json.loads(parts["json"])
        found[told["id"]] = exports.grey(parts["mask.png"])
        assert np.array_equal(rle.decode(rle.from_json(told["segmentation"])), found[told["id"]])
        assert parts["txt"].decode() == known[told["id"]]["text"]
    same(found, labels)
    back = dict(read(webdataset.read, folder, format="webdataset"))
    assert sorted(text for text, *_ in back.values()) == sorted(known[id]["text"] for id in labels)


def test_tasks_of_label_studio_and_cvat_have_the_masks(export, labels):
    same(exports.label_studio(export("label-studio", "--url-prefix", "/data/local-files/?d=")), labels)
    same(exports.cvat(export("cvat")), labels)
    assert '<Label value="object"/>' in (export("label-studio") / "label_config.xml").read_text()


def test_fiftyones_folders_are_coco_with_the_images_beside_it(export, labels):
    folder = export("fiftyone")
    files = sorted(folder.glob("*/labels.json"))
    same(exports.coco_files(files), labels)
    for path in files:
        for image in json.loads(path.read_text())["images"]:
            assert (path.parent / "data" / image["file_name"]).is_file()


# --- the command


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_every_format_has_a_card_and_says_what_was_left_out(export, labels, name):
    folder = export(name)
    marker = json.loads((folder / "export.json").read_text())
    assert (marker["made_by"], marker["format"]) == ("ppt export", name)
    assert sum(one["masks"] for one in marker["counts"].values()) == len(labels)
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert "no person drew or checked one" in text
    told = "left out 1: band drop 1"
    assert told in export.said.out
    assert "- 1 left out: band drop" in text
    listed = (folder / "export.files").read_text().split("\n")
    assert set(snapshot(folder)) == {*listed, "export.json", "export.files"}


def test_scores_and_bands_are_chosen_and_splits_are_by_content(export, labels, run):
    weights = {id: row["weight"] for id, row in rows(run, "labels").items()}
    middle = sorted(weights[id] for id in labels)[1]
    listed = read_rows(export("png", "--least", middle, "--bands", "keep") / "masks.jsonl")
    assert {row["id"] for row in listed} == {id for id in labels if weights[id] >= middle}
    listed = read_rows(export("png", *BY_HASH) / "masks.jsonl")
    shown = rows(run, "records")
    splits = {}
    for row in listed:
        splits.setdefault(shown[row["id"]]["sha256"], set()).add(row["split"])
    assert all(len(found) == 1 for found in splits.values()), "copy.jpg is a.png"


def test_predictions_are_exported_in_place_of_labels(export, run):
    export("png", "--labels", "predictions", code=2)
    assert "predictions: no complete artifact here" in export.said.err
    inputs = {"records": Artifact.open(run / "records").fingerprint, "segmenter": "5e" * 32}
    manifest = Manifest("predictions", 1, {"clip": {"model": "x"}}, inputs, {"clip": "c1" * 32}, 0)
    drawn = {"a-left": rle.encode(disc("middle")).to_json(), "a-right": None}
    known = rows(run, "records")
    plan = {"00000": [*drawn]}
    with begin(run / "predictions", manifest, plan) as writer:
        told = [
            {
                "id": id,
                "image": known[id]["image"],
                "text": known[id]["text"],
                "segmentation": mask,
                "sure": 0.5,
            }
            for id, mask in drawn.items()
        ]
        writer.missing[0].write(told)
        writer.finish()
    folder = export("png", "--labels", "predictions")
    [row] = read_rows(folder / "masks.jsonl")
    assert (row["id"], row["score"], row["reasons"]) == ("a-left", 0.5, [])
    np.testing.assert_array_equal(exports.grey(folder / row["mask"]), disc("middle"))
    assert f"band drop 1, no label {len(known) - 2}" in export.said.out
    assert "They are the predictions of a run" in (folder / "README.md").read_text()


def test_what_is_asked_wrongly_is_said_and_nothing_is_done(export, run, tmp_path, pictures):
    wrong = {
        ("--bands", "keep,good"): "--bands: expected one of keep, review, drop, got 'good'",
        ("--labels", "truths"): "--labels: expected one of labels, predictions, got 'truths'",
        ("--images", "move"): "--images: expected one of copy, hardlink, symlink, none, got 'move'",
        ("--split", "train"): "--split: expected NAME=SHARE, as train=0.9, got 'train'",
        ("--split", "train=0.5"): "must be 1 together, got 0.5",
        ("--least", "0.999"): "nothing is left to export (band drop 1, score below 0.999",
    }
    for arguments, told in wrong.items():
        export("png", *arguments, code=2)
        assert told in export.said.err
        assert not (tmp_path / "png").exists()
    export("voc", code=2)
    (pictures / "c.png").unlink()
    export("yolo", code=3)
    assert "image missing 1" in export.said.out
    shutil.move(run / "source.json", tmp_path / "elsewhere.json")
    export("png")  # it needs no image
    export("yolo", code=2)
    assert "no pairs" in export.said.err


@pytest.mark.parametrize("change", ["fewer shards", "fewer pairs", "another sentence"])
def test_labels_of_other_records_are_refused(export, run, pictures, tmp_path, change):
    listed = read_rows(pictures / "pairs.jsonl")
    if change == "another sentence":
        listed[0]["text"] = "it"
    listed = listed[:2] if change == "fewer shards" else listed[change == "fewer pairs" :]
    (pictures / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in listed))
    walk(settings(pictures), tmp_path / "few", "records")
    shutil.rmtree(run / "records")
    shutil.copytree(tmp_path / "few/records", run / "records")
    export("png", code=2)
    assert f"{Path(run) / 'labels'}: is not of" in export.said.err


def test_the_quality_is_the_score_and_gives_the_bands(export, run, pictures):
    walk(settings(pictures), run, "quality", first="quality")
    told = sorted(row["quality"] for row in rows(run, "quality").values())
    drop, keep = told[2], told[-2]
    bands = settings(pictures, f"quality.keep={keep}", f"quality.drop={drop}")
    walk(bands, run, "quality", first="quality", fresh=True)
    judged = rows(run, "quality")
    assert {row["band"] for row in judged.values()} == {"keep", "review", "drop"}
    listed = read_rows(export("png") / "masks.jsonl")
    assert {row["id"] for row in listed} == {id for id, row in judged.items() if row["band"] != "drop"}
    assert {row["id"]: (row["score"], row["band"]) for row in listed} == {
        id: (row["quality"], row["band"]) for id, row in judged.items() if row["band"] != "drop"
    }
    marker = json.loads((export("png") / "export.json").read_text())
    assert marker["inputs"]["quality"] == Artifact.open(run / "quality").fingerprint
    walk(settings(pictures, "labels.min_agreement=1"), run, "labels", first="labels", fresh=True)
    export("png", code=2)
    assert "is of other labels; run `ppt quality`" in export.said.err


def test_the_card_says_what_a_person_looked_at(export, run, pictures):
    (run / "review.jsonl").write_text('{"id": "a-left", "decision": "keep"}\n')
    walk(settings(pictures), run, "labels", first="labels", fresh=True)
    text = (export("png") / "README.md").read_text(encoding="utf-8")
    assert "a person looked at 1 of them, and nobody at the rest" in text
