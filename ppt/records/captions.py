"""Images and what people said of them, with no truth: COCO's captions and Flickr30k's."""

import json
from pathlib import Path
from typing import Any

from ppt.records.coco_images import file_name
from ppt.records.dataset import DataSet, by_id, folder_of, json_file, named, path_of, rows_of, sentences_of
from ppt.records.jsonlines import RowError, read_bytes
from ppt.records.pairs import PairsError, RawRow
from ppt.settings import RecordsConfig, SourceConfig


def coco(source: SourceConfig, records: RecordsConfig) -> DataSet:
    """`captions_train2017.json` and the like (Chen et al., 2015); images in ../train2017 and the like."""
    path = path_of(source)
    found = json_file(path, "COCO's captions, as captions_train2017.json")
    images = folder_of(source.images, path.parent.parent / path.stem.removeprefix("captions_"))
    listed = by_id(rows_of(found, "images", path), path)
    names = {number: one.get("file_name") for number, one in listed.items()}
    present = {number: file_name(name, images) for number, name in names.items() if isinstance(name, str)}
    pairs: list[RawRow] = []
    for one in rows_of(found, "annotations", path):
        where = f"{path.name} caption {one.get('id')}"
        row = {
            "id": f"{path.stem}-{one.get('id')}",
            "image": named(present, one.get("image_id")),
            "text": one.get("caption"),
            "split": source.split,
        }
        unknown = RowError("bad_value", f"no image {one.get('image_id')!r:.80} is listed")
        pairs.append((where, row if row["image"] else unknown))
    return DataSet(images, pairs, [], (path,))


def flickr30k(source: SourceConfig, records: RecordsConfig) -> DataSet:
    """`results_20130124.token` (Young et al., TACL 2014), or Karpathy's `dataset_flickr30k.json`, which has
    splits; images in flickr30k-images beside it.
    """
    path = path_of(source)
    images = folder_of(source.images, path.parent / "flickr30k-images")
    rows = _karpathy(path) if path.suffix == ".json" else _tokens(path, source.split)
    kept = [(where, row) for where, row in rows if not source.splits or _split(row) in source.splits]
    return DataSet(images, kept, [], (path,))


def _split(row: dict[str, Any] | RowError) -> str:
    return "" if isinstance(row, RowError) else row.get("split", "")


def _tokens(path: Path, split: str) -> list[RawRow]:
    """Lines "1000092795.jpg#0<tab>Two young guys ..."."""
    try:
        lines = read_bytes(path).decode("utf-8", "surrogateescape").split("\n")
    except ValueError as error:
        raise PairsError(f"flickr30k: {error}") from error
    rows: list[RawRow] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name, tab, text = line.partition("\t")
        image, _, which = name.partition("#")
        row = {"id": f"flickr30k-{name}", "image": image, "text": text.strip(), "split": split}
        bad = RowError("bad_value", "expected <image>#<number><tab><sentence>")
        rows.append((f"line {number}", row if tab and which else bad))
    return rows


def _karpathy(path: Path) -> list[RawRow]:
    """{"images": [{"filename", "split", "sentences": [{"raw", "sentid"}]}]}, of Karpathy & Fei-Fei (CVPR
    2015).
    """
    rows: list[RawRow] = []
    for image in rows_of(json_file(path, "Karpathy's splits"), "images", path):
        try:
            sentences = sentences_of(image)
        except RowError as error:
            rows.append((f"image {image.get('filename')!r:.80}", error))
            continue
        for sentence in sentences:
            number = json.dumps(sentence.get("sentid"))
            row = {
                "id": f"flickr30k-{number}",
                "image": image.get("filename"),
                "text": sentence.get("raw"),
                "split": image.get("split"),
            }
            rows.append((f"sentence {number}", row))
    return rows
