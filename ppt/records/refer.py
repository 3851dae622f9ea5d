"""REFER's layout: RefCOCO, RefCOCO+, G-Ref, RefClef (`refs(<by>).p`) and gRefCOCO (`grefs(<by>).json`).

A folder holds the refs, each a thing and the sentences about it, and `instances.json`, COCO's annotations of
the images (Kazemzadeh et al., EMNLP 2014; Yu et al., ECCV 2016; gRefCOCO: Liu et al., CVPR 2023, where a ref
may name several annotations, or -1: there is no such thing in the image). Without `instances.json` there are
pairs and no truth. A split is the ref's own word for it: RefClef has refs of "testBC", which REFER's code
counts under testB and testC both.
"""

import functools
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ppt import rle
from ppt.records import plain_pickle
from ppt.records.coco_images import file_name
from ppt.records.dataset import (
    DataSet,
    by_id,
    folder_of,
    json_file,
    named,
    path_of,
    row_of,
    rows_of,
    sentences_of,
    size_of,
)
from ppt.records.jsonlines import RowError
from ppt.records.pairs import PairsError, RawRow
from ppt.rle import Rle
from ppt.settings import RecordsConfig, SourceConfig

IMAGES = "images/mscoco/images/train2014"
"""Where REFER keeps the photographs, beside the folders of its sets."""
IMAGES_OF_REFCLEF = "images/saiapr_tc-12"
NO_THING = -1
"""The annotation of a gRefCOCO sentence that nothing in its image answers."""


def read(source: SourceConfig, records: RecordsConfig) -> DataSet:
    """The sentences of the refs in `source.path`, and their masks. Raises PairsError."""
    folder = path_of(source)
    path, refs = _refs(folder, source.by)
    usual = folder.parent / (IMAGES_OF_REFCLEF if folder.name == "refclef" else IMAGES)
    images = folder_of(source.images, usual)
    annotated = folder / "instances.json"
    known = _Instances(annotated, records.overlap == "once") if annotated.is_file() else None
    found = functools.cache(lambda name: file_name(name, images))
    pairs: list[RawRow] = []
    truth: list[RawRow] = []
    for number, ref in enumerate(refs):
        where = f"{folder.name} ref {ref.get('ref_id', f'number {number}')}"
        if source.splits and ref.get("split") not in source.splits:
            continue
        try:
            name = found(known.name(ref) if known else _text(ref, "file_name"))
            sentences = sentences_of(ref)
        except RowError as error:
            pairs.append((where, error))
            continue
        for sentence in sentences:
            text, split = sentence.get(records.sentence), ref.get("split")
            pairs.append(row_of(folder.name, where, sentence, image=name, text=text, split=split))
            if known and source.truth:
                truth.append(row_of(folder.name, where, sentence, **known.masks(ref)))
    return DataSet(images, pairs, truth, (path, annotated) if known else (path,))


def _refs(folder: Path, by: str) -> tuple[Path, list[dict[str, Any]]]:
    names = (f"refs({by}).p", f"refs({by}).json", f"grefs({by}).json")
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    if path is None:
        there = sorted(one.name for one in folder.glob("*refs(*")) if folder.is_dir() else []
        raise PairsError(
            f"{folder}: none of {', '.join(names)} is there; name the folder in records.sources[].path and"
            f" whose split in records.sources[].by (there are: {', '.join(there) or 'none'})"
        )
    if path.suffix == ".json":
        return path, rows_of(json_file(path, "gRefCOCO's refs"), "", path)
    try:
        return path, rows_of(plain_pickle.load(path), "", path)
    except plain_pickle.PickleError as error:
        raise PairsError(f"{path} is not read: {error}") from error


class _Instances:
    """The annotations of instances.json: what an image is called, and masks, made when they are asked for."""

    def __init__(self, path: Path, once: bool) -> None:
        found = json_file(path, "COCO's annotations, as REFER's instances.json")
        self._images = by_id(rows_of(found, "images", path), path)
        self._annotations = by_id(rows_of(found, "annotations", path), path)
        self._alike: dict[str, list[Any]] = defaultdict(list)
        for number, one in self._annotations.items():
            if not one.get("iscrowd"):
                self._alike[_kind(one.get("image_id"), one.get("category_id"))].append(number)
        self._once = once
        self._mask = functools.cache(self._made)

    def name(self, ref: dict[str, Any]) -> str:
        """The file name of a ref's image. Raises RowError where there is none."""
        image = named(self._images, ref.get("image_id"))
        if image is None:
            raise RowError("bad_ref", f"instances.json knows no image {ref.get('image_id')!r:.80}")
        return _text(image, "file_name")

    def masks(self, ref: dict[str, Any]) -> dict[str, Any]:
        """Of a ref: its mask, and those of the image's other things of its categories."""
        own = _listed(ref.get("ann_id"))
        if own == [NO_THING]:
            return {"segmentation": functools.partial(self._nothing, ref.get("image_id"))}
        kinds = dict.fromkeys(_kind(ref.get("image_id"), one) for one in _listed(ref.get("category_id")))
        alike = [one for kind in kinds for one in self._alike.get(kind, ())]
        others: list[Callable[[], Rle]] = [
            functools.partial(self._mask, one) for one in alike if one not in own
        ]
        return {"segmentation": functools.partial(self._together, tuple(own)), "distractors": others}

    def _together(self, numbers: tuple[Any, ...]) -> Rle:
        return rle.joined([self._mask(self._known(number)) for number in numbers])

    def _known(self, number: Any) -> int | str:
        if named(self._annotations, number) is None:
            raise RowError("bad_mask", f"instances.json knows no annotation {number!r:.80}")
        return number

    def _nothing(self, image: Any) -> Rle:
        return rle.encode(np.zeros(self._size(image), bool))

    def _size(self, image: Any) -> tuple[int, int]:
        return size_of(named(self._images, image) or {})

    def _made(self, number: int | str) -> Rle:
        annotation = self._annotations[number]
        height, width = self._size(annotation.get("image_id"))
        segmentation = annotation.get("segmentation")
        if isinstance(segmentation, list) and segmentation and isinstance(segmentation[0], dict):
            masks = [rle.from_json(one, height, width) for one in segmentation]  # as RefClef has them
            return rle.joined(masks, self._once)
        return rle.from_json(segmentation, height, width, self._once)


def _kind(image: Any, category: Any) -> str:
    """What things of one category in one image share."""
    return f"{image!r} {category!r}"


def _listed(value: Any) -> list[Any]:
    return [*value] if isinstance(value, list | tuple) else [value]


def _text(row: dict[str, Any], name: str) -> str:
    if not isinstance(row.get(name), str):
        raise RowError("bad_ref", f"{name} must be text, got {row.get(name)!r:.80}")
    return row[name]
