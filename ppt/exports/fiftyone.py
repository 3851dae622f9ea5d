"""FiftyOne: a folder for each split that `fo.types.COCODetectionDataset` loads, masks and scores with it.

<split>/labels.json   COCO, masks as RLE; FiftyOne takes `score` for the confidence, and with
                      extra_attrs=True the sentence and the rest as attributes
<split>/data          the images
"""

from collections.abc import Iterable
from pathlib import PurePosixPath

from ppt.exports.coco import write_dataset
from ppt.exports.items import Mask, Picture
from ppt.exports.streams import Job


def write(job: Job, pictures: Iterable[Picture]) -> None:
    """*/labels.json"""

    def as_rle(mask: Mask) -> object:
        return mask.rle.to_json()

    def own_name(file: str) -> str:
        return PurePosixPath(file).name

    write_dataset(job, pictures, lambda split: job.folder / split / "labels.json", as_rle, own_name)
