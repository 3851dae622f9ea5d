"""The layout of CRIS and ETRIS (`tools/data_process.py` there): REFER's sets as JSON, and masks as PNG.

anns/refcoco/val.json              [{"img_name", "segment_id", "sentences": [{"sent_id", "sent"}], ...}]
masks/refcoco/<segment_id>.png     0 outside, 255 inside, 254 where two polygons of the thing overlap
"""

import functools
from pathlib import Path

from ppt import rle
from ppt.records import images as gate
from ppt.records.coco_images import file_name
from ppt.records.dataset import DataSet, folder_of, json_file, path_of, row_of, rows_of, sentences_of
from ppt.records.images import ImageError, ImagePolicy
from ppt.records.jsonlines import RowError
from ppt.records.pairs import PairsError, RawRow
from ppt.rle import Rle
from ppt.settings import RecordsConfig, SourceConfig

TWICE = 254
"""510 in eight bits: what is left of a pixel that two polygons cover."""


def read(source: SourceConfig, records: RecordsConfig) -> DataSet:
    """The sentences of every split's JSON in `source.path`, a folder as anns/refcoco. Raises PairsError."""
    folder = path_of(source)
    files = sorted(folder.glob("*.json"))
    files = [path for path in files if path.stem in source.splits or not source.splits]
    if not files:
        raise PairsError(f"{folder}: no <split>.json of {source.splits or 'any split'} is there")
    masks = folder.parent.parent / "masks" / folder.name
    images = folder_of(source.images, folder.parent.parent / "images/train2014")
    named = functools.cache(lambda name: file_name(name, images))
    mask = functools.lru_cache(maxsize=8)(_mask)  # sentences about one thing stand together
    policy = ImagePolicy(records.max_pixels, "ignore", "black", records.follow_links)
    once, has_truth = records.overlap == "once", source.truth and masks.is_dir()
    pairs: list[RawRow] = []
    truth: list[RawRow] = []
    for path in files:
        for ref in rows_of(json_file(path, "a split as CRIS writes it"), "", path):
            thing = ref.get("segment_id")
            where = f"{folder.name} ref {thing}"
            name = ref.get("img_name")
            image = named(name) if isinstance(name, str) else name
            try:
                sentences = sentences_of(ref)
            except RowError as error:
                pairs.append((where, error))
                continue
            for sentence in sentences:
                text = sentence.get("sent")
                pairs.append(row_of(folder.name, where, sentence, image=image, text=text, split=path.stem))
                if has_truth:
                    drawn = functools.partial(mask, masks, Path(f"{thing}.png").name, policy, once)
                    truth.append(row_of(folder.name, where, sentence, segmentation=drawn))
    return DataSet(images, pairs, truth, tuple(files))


def _mask(masks: Path, name: str, policy: ImagePolicy, once: bool) -> Rle:
    try:
        values = gate.load(masks, name, policy).pixels.max(-1)
    except ImageError as error:
        raise RowError("bad_mask", f"{name} is no mask that can be read: {error}") from error
    return rle.encode((values > 0) & ~(once & (values == TWICE)))
