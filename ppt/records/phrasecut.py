"""VGPhraseCut (Wu et al., CVPR 2020): phrases about regions of Visual Genome's images.

refer_<split>.json                 [{"task_id", "image_id", "phrase", "Polygons", ...}]
image_data_split3000.json          [{"image_id", "height", "width", ...}]; older: image_data_split.json
images/<image_id>.jpg
"""

import functools
from typing import Any

from ppt import rle
from ppt.records.dataset import DataSet, by_id, folder_of, json_file, named, path_of, rows_of, size_of
from ppt.records.jsonlines import RowError
from ppt.records.pairs import PairsError, RawRow
from ppt.rle import Rle
from ppt.settings import RecordsConfig, SourceConfig

CORNERS = 3
"""Fewest of a polygon that covers anything; some have one or two."""


def read(source: SourceConfig, records: RecordsConfig) -> DataSet:
    """The phrases of every split in `source.path`, and their regions. Raises PairsError.

    A region is that of all the things a phrase means, as the set's own evaluation takes it.
    """
    folder = path_of(source)
    splits = {path.stem.removeprefix("refer_"): path for path in sorted(folder.glob("refer_*.json"))}
    wanted = {split: path for split, path in splits.items() if not source.splits or split in source.splits}
    if not wanted:
        raise PairsError(f"{folder}: no refer_<split>.json of {source.splits or 'any split'} is there")
    if not source.splits:
        wanted.pop("miniv", None)  # some of val, for a quick look
    images = folder_of(source.images, folder / "images")
    listing = next(iter(sorted(folder.glob("image_data_split*.json"), reverse=True)), None)
    known: dict[int | str, dict[str, Any]] = {}
    if listing is not None and source.truth:
        known = by_id(rows_of(json_file(listing, "the images"), "", listing), listing, "image_id")
    pairs: list[RawRow] = []
    truth: list[RawRow] = []
    once = records.overlap == "once"
    for split, path in wanted.items():
        for task in rows_of(json_file(path, "the phrases of a split"), "", path):
            where = f"phrasecut task {task.get('task_id')}"
            identity = f"phrasecut-{task.get('task_id')}"
            image = f"{task.get('image_id')}.jpg"
            pairs.append(
                (where, {"id": identity, "image": image, "text": task.get("phrase"), "split": split})
            )
            if source.truth:
                mask = functools.partial(_region, task, known, once)
                truth.append((where, {"id": identity, "ref": where, "segmentation": mask}))
    return DataSet(images, pairs, truth, (*wanted.values(), *([listing] if known and listing else [])))


def _region(task: dict[str, Any], known: dict[int | str, dict[str, Any]], once: bool) -> Rle:
    image = named(known, task.get("image_id"))
    if image is None:
        raise RowError("bad_mask", f"image_data_split*.json knows no image {task.get('image_id')!r:.80}")
    try:
        polygons = [
            [float(number) for corner in polygon for number in corner]
            for thing in task["Polygons"]
            for polygon in thing
            if len(polygon) >= CORNERS
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise RowError("bad_mask", f"Polygons are no lists of corners: {error!r:.80}") from error
    return rle.from_polygons(polygons, *size_of(image), once)
