"""REFER's layout, as RefCOCO comes in it: refs(unc).p and instances.json, read by REFER's own class and what
builds on it.

refcoco/refs(unc).p             [{"ref_id", "ann_id", "image_id", "category_id", "split", "sentences", ...}]
refcoco/instances.json          COCO's annotations, of all splits
images/mscoco/images/train2014  the images

The folder is called refcoco since REFER's class knows no other name. Every sentence is a ref of its own, with
a mask of its own: `raw` is the sentence, `sent` and `tokens` its words in lower case. Masks are polygons that
give them again to the pixel; one that would not is a list of one RLE, as RefClef has masks.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from ppt.exports import polygons
from ppt.exports.coco import CATEGORY, write_dataset
from ppt.exports.items import Mask, Picture
from ppt.exports.streams import Job, PickledList

NAME, BY = "refcoco", "unc"
IMAGES = "images/mscoco/images/train2014"


def write(job: Job, pictures: Iterable[Picture]) -> None:
    """refs(unc).p and instances.json"""
    own = job.folder / NAME
    with PickledList(own / f"refs({BY}).p") as refs:

        def listed() -> Iterator[Picture]:
            for picture in pictures:
                for mask in picture.masks:
                    refs.add(_ref(job, picture, mask))
                yield picture

        def exact(mask: Mask) -> Any:
            found = polygons.parts(mask.rle)
            if polygons.overlap(mask.rle, found) == 1:
                return found
            job.tally.notes["masks are a list of one RLE, since no polygon gives them again"] += 1
            return [mask.rle.to_json()]

        write_dataset(job, listed(), lambda _: own / "instances.json", exact, _name, together=True)


def _ref(job: Job, picture: Picture, mask: Mask) -> dict[str, Any]:
    number = job.item_number(mask.item.id)
    words = re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", mask.item.text.lower()) or [mask.item.text]
    sentence = {"sent_id": number, "raw": mask.item.text, "sent": " ".join(words), "tokens": words}
    return {
        "ref_id": number,
        "ann_id": number,
        "image_id": job.image_number(picture),
        "category_id": CATEGORY,
        "file_name": _name(picture.file),
        "split": picture.split,
        "sent_ids": [number],
        "sentences": [sentence],
        "pair_id": mask.item.id,
        "score": mask.item.score,
    }


def _name(file: str) -> str:
    return file.removeprefix(f"{IMAGES}/")
