"""The layout that CRIS and ETRIS make of REFER's sets, and pack into LMDB by their `tools/folder2lmdb.py`.

anns/refcoco/<split>.json     [{"img_name", "segment_id", "bbox", "cat", "sentences", "sentences_num"}]
masks/refcoco/<segment_id>.png  0 outside, 255 inside
images/train2014              the images

bbox is [x0, y0, x1, y1]; `sent` is the sentence as it was given: their tokenizers make it lower case.
"""

from collections.abc import Iterable
from typing import Any

from ppt import rle
from ppt.exports.items import Mask, Picture
from ppt.exports.png import encoded
from ppt.exports.streams import Job, Rows

NAME = "refcoco"
IMAGES = "images/train2014"


def write(job: Job, pictures: Iterable[Picture]) -> None:
    """anns/refcoco/*.json and masks/refcoco/*.png"""
    masks = job.folder / "masks" / NAME
    masks.mkdir(parents=True)
    with Rows(lambda split: job.folder / f"anns/{NAME}/{split}.json") as refs:
        for picture in pictures:
            for mask in picture.masks:
                row = _ref(job, picture, mask)
                (masks / f"{row['segment_id']}.png").write_bytes(encoded(mask.rle))
                refs.add(picture.split, row)
            job.tally.count(picture)


def _ref(job: Job, picture: Picture, mask: Mask) -> dict[str, Any]:
    number = job.item_number(mask.item.id)
    return {
        "segment_id": number,
        "img_name": picture.file.removeprefix(f"{IMAGES}/"),
        "bbox": list(rle.box(mask.rle)),
        "cat": 0,
        "sentences": [{"idx": 0, "sent_id": number, "sent": mask.item.text}],
        "sentences_num": 1,
        "pair_id": mask.item.id,
        "score": mask.item.score,
    }
