"""Hugging Face's imagefolder: `datasets.load_dataset(PATH)`, or "imagefolder" with data_dir=PATH.

<split>/metadata.jsonl  {"file_name", "mask_file_name", "text", "score", "band", "reasons", "id", "source"}
<split>/images, <split>/masks

A row is a sentence; rows of one image name the same file. `datasets` reads file_name as the column `image`
and mask_file_name as `mask`, a PNG of 0 and 255. `reasons` is one text: a list that is empty has no type.
"""

from collections.abc import Iterable

from ppt.exports import names
from ppt.exports.items import Picture
from ppt.exports.png import encoded
from ppt.exports.streams import Job, lines


def write(job: Job, pictures: Iterable[Picture]) -> None:
    """*/metadata.jsonl and */masks/*.png"""
    with lines(lambda split: job.folder / split / "metadata.jsonl") as rows:
        for picture in pictures:
            for mask in picture.masks:
                file = f"masks/{names.safe(mask.item.id)}.png"
                (job.folder / picture.split / "masks").mkdir(parents=True, exist_ok=True)
                (job.folder / picture.split / file).write_bytes(encoded(mask.rle))
                row = {
                    "file_name": picture.file.removeprefix(f"{picture.split}/"),
                    "mask_file_name": file,
                    "text": mask.item.text,
                    "score": float(mask.item.score),
                    "band": mask.item.band,
                    "reasons": "; ".join(mask.item.reasons),
                    "id": mask.item.id,
                    "source": picture.image,
                }
                rows.add(picture.split, row)
            job.tally.count(picture)
