"""A PNG for every mask, and masks.jsonl that says whose it is.

masks/<name>.png   8-bit grey, 0 outside and 255 inside, of the image's own size
masks.jsonl        {"id", "image", "file", "mask", "text", "split", "score", "band", "reasons"}
"""

import io
from collections.abc import Iterable
from typing import Any

import numpy as np
from PIL import Image

from ppt import rle
from ppt.exports import names
from ppt.exports.items import Mask, Picture
from ppt.exports.streams import Job, lines
from ppt.rle import Rle


def write(job: Job, pictures: Iterable[Picture]) -> None:
    """masks/*.png and masks.jsonl"""
    (job.folder / "masks").mkdir()
    with lines(lambda _: job.folder / "masks.jsonl") as listed:
        listed.begin("")
        for picture in pictures:
            for mask in picture.masks:
                file = f"masks/{names.safe(mask.item.id)}.png"
                (job.folder / file).write_bytes(encoded(mask.rle))
                row = described(picture, mask) | {"file": picture.file, "mask": file}
                listed.add("", row)
            job.tally.count(picture)


def encoded(mask: Rle) -> bytes:
    """A mask as the bytes of a PNG file: 8-bit grey, 0 and 255."""
    buffer = io.BytesIO()
    Image.fromarray(rle.decode(mask).astype(np.uint8) * 255).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def described(picture: Picture, mask: Mask) -> dict[str, Any]:
    """What is known of a mask in words and numbers."""
    item = mask.item
    told = {"id": item.id, "image": picture.image, "text": item.text, "split": picture.split}
    return told | {"score": item.score, "band": item.band, "reasons": list(item.reasons)}
