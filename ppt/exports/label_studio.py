"""Label Studio: tasks with the masks as predictions (brush), and the labelling interface to import them into.

tasks.json         [{"data": {"image", "text", ...}, "predictions": [{"score", "result": [...]}]}]
label_config.xml   the interface of the project

A task is a sentence. Label Studio has run lengths of its own, those of @thi.ng/rle-pack: 32 bits that say how
many values there are, 5 the bits of a value less one, four times 4 the bits of a length less one; then runs:
one bit "these are alike", two bits which length it is, the length less one, the value. The values are the
pixels by rows, each four times (red, green, blue, alpha), 0 or 255.
"""

from collections.abc import Iterable
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr  # nosec B406  # written, not read

import numpy as np

from ppt import rle
from ppt.exports.items import Mask, Picture
from ppt.exports.streams import Job, Rows
from ppt.rle import Rle

MODEL = "ppt"
_SIZES = (3, 4, 8, 16)
"""Bits that a run's length less one may have."""
_CHANNELS = 4


def write(job: Job, pictures: Iterable[Picture]) -> None:
    """tasks.json and label_config.xml"""
    with Rows(lambda _: job.folder / "tasks.json") as tasks:
        tasks.begin("")
        for picture in pictures:
            for mask in picture.masks:
                tasks.add("", _task(job, picture, mask))
            job.tally.count(picture)
    label = quoteattr(job.wishes.category)
    interface = (
        '<View>\n  <Header value="$text"/>\n  <Image name="image" value="$image" zoom="true"/>\n'
        f'  <BrushLabels name="label" toName="image">\n    <Label value={label}/>\n  </BrushLabels>\n'
        "</View>\n"
    )
    (job.folder / "label_config.xml").write_text(interface, encoding="utf-8")


def brush(mask: Rle) -> list[int]:
    """A mask as Label Studio's run lengths: bytes, 0 to 255."""
    values = rle.decode(mask).reshape(-1)
    starts = np.concatenate(([0], np.flatnonzero(np.diff(values)) + 1))
    lengths = np.diff(np.append(starts, values.size)) * _CHANNELS
    bits = [f"{values.size * _CHANNELS:032b}", f"{8 - 1:05b}", *(f"{size - 1:04b}" for size in _SIZES)]
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        value = "1" * 8 if values[start] else "0" * 8
        while length:
            run = min(length, 2 ** _SIZES[-1])
            which = next(at for at, size in enumerate(_SIZES) if run <= 2**size)
            bits.append(f"1{which:02b}{run - 1:0{_SIZES[which]}b}{value}")
            length -= run
    text = "".join(bits)
    packed = np.packbits(np.frombuffer(text.encode(), np.uint8) - ord("0"))
    return packed.tolist()


def _task(job: Job, picture: Picture, mask: Mask) -> dict[str, Any]:
    item, category = mask.item, job.wishes.category
    region = {
        "id": f"{job.item_number(item.id):x}",
        "type": "brushlabels",
        "from_name": "label",
        "to_name": "image",
        "original_width": picture.width,
        "original_height": picture.height,
        "image_rotation": 0,
        "score": item.score,
        "value": {"format": "rle", "rle": brush(mask.rle), "brushlabels": [category]},
    }
    data = {
        "image": job.wishes.url_prefix + quote(picture.file),
        "text": item.text,
        "pair_id": item.id,
        "split": picture.split,
        "band": item.band,
        "reasons": "; ".join(item.reasons),
    }
    return {"data": data, "predictions": [{"model_version": MODEL, "score": item.score, "result": [region]}]}
