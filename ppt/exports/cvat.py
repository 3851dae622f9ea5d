"""CVAT for images 1.1: annotations.xml with masks that stay masks, and labels.json for the task's labels.

A mask is its box and the run lengths inside of it, by rows, the first of them outside. The sentence, the
score and the pair's id are attributes of the label; labels.json is what CVAT's constructor takes as "raw".
Images are known to CVAT by their names in the task.
"""

import json
import re
from collections.abc import Iterable
from xml.sax.saxutils import escape, quoteattr  # nosec B406  # written, not read

import numpy as np

from ppt import rle
from ppt.exports.items import Mask, Picture
from ppt.exports.streams import Job, Rows
from ppt.rle import Rle

ATTRIBUTES = ("text", "score", "band", "pair_id")
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write(job: Job, pictures: Iterable[Picture]) -> None:
    """annotations.xml and labels.json"""
    opening = '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n'
    labels = [{"name": job.wishes.category, "type": "mask", "attributes": _attributes()}]
    (job.folder / "labels.json").write_text(
        json.dumps(labels, ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
    )
    numbers: dict[str, int] = {}
    with Rows(
        lambda _: job.folder / "annotations.xml",
        f"{opening}{_meta(job)}\n",
        "\n",
        lambda _: "\n</annotations>\n",
    ) as rows:
        rows.begin("")
        for picture in pictures:
            if picture.file in numbers:
                job.tally.notes["images stand twice in annotations.xml, once for each split"] += 1
            number = numbers.setdefault(picture.file, len(numbers))
            name, split = _quoted(job, picture.file), _quoted(job, picture.split)
            size = f'width="{picture.width}" height="{picture.height}"'
            inside = "".join(_element(job, mask) for mask in picture.masks)
            rows.add("", f'<image id="{number}" name={name} subset={split} {size}>{inside}</image>')
            job.tally.count(picture)


def runs(mask: Rle) -> tuple[list[int], tuple[int, int, int, int]]:
    """(run lengths by rows within the box, the first outside; (left, top, width, height) of the box)."""
    x0, y0, x1, y1 = rle.box(mask)
    values = rle.decode(mask)[y0:y1, x0:x1].reshape(-1)
    ends = np.append(np.flatnonzero(np.diff(values)) + 1, values.size)
    lengths = np.diff(ends, prepend=0).tolist()
    return ([0, *lengths] if values[0] else lengths), (x0, y0, x1 - x0, y1 - y0)


def _element(job: Job, mask: Mask) -> str:
    lengths, (left, top, width, height) = runs(mask.rle)
    item = mask.item
    told = {"text": item.text, "score": f"{item.score:g}", "band": item.band, "pair_id": item.id}
    attributes = "".join(
        f'<attribute name="{name}">{_escaped(job, told[name])}</attribute>' for name in ATTRIBUTES
    )
    box = f'left="{left}" top="{top}" width="{width}" height="{height}"'
    return (
        f'\n<mask label={_quoted(job, job.wishes.category)} source="auto" occluded="0"'
        f' rle="{", ".join(map(str, lengths))}" {box} z_order="0">{attributes}</mask>'
    )


def _meta(job: Job) -> str:
    known = "".join(
        f"<attribute><name>{name}</name><mutable>False</mutable><input_type>text</input_type>"
        "<default_value></default_value><values></values></attribute>"
        for name in ATTRIBUTES
    )
    label = (
        f"<name>{_escaped(job, job.wishes.category)}</name><type>mask</type><attributes>{known}</attributes>"
    )
    task = f"<name>ppt</name><mode>annotation</mode><labels><label>{label}</label></labels>"
    return f"<meta><task>{task}</task></meta>"


def _attributes() -> list[dict[str, object]]:
    return [
        {"name": name, "mutable": False, "input_type": "text", "default_value": "", "values": [""]}
        for name in ATTRIBUTES
    ]


def _escaped(job: Job, text: str) -> str:
    return escape(_allowed(job, text), {"\r": "&#13;"})


def _quoted(job: Job, text: str) -> str:
    return quoteattr(_allowed(job, text))


def _allowed(job: Job, text: str) -> str:
    """The text with what XML cannot hold replaced, which is noted."""
    found, replaced = _NO_XML.subn("\ufffd", text)
    if replaced:
        job.tally.notes["texts hold control characters, which XML cannot: replaced"] += 1
    return found
