"""COCO's photographs by their two names: COCO_train2014_000000581857.jpg; since 2017, 000000581857.jpg."""

import re
from pathlib import Path

_NAME = re.compile(r"(?:COCO_(?:train|val|test)\d{4}_)?(\d{12})(?:_\d+)?\.jpg")


def coco_id(image: str) -> int | None:
    """The number of a COCO photograph, by its file's name; None for a name of another kind."""
    found = _NAME.fullmatch(image.rsplit("/", 1)[-1])
    return int(found[1]) if found else None


def file_name(name: str, folder: Path) -> str:
    """The name under which a photograph lies in `folder`; where neither does, the name as it is given.

    A number behind COCO's own name, as REFER's `file_name` has it, is that of a thing and left out.
    """
    number = coco_id(name)
    if number is None:
        return name
    own = re.sub(r"_\d+\.jpg$", ".jpg", name) if name.count("_") > 2 else name
    names = (own, f"COCO_train2014_{number:012d}.jpg", f"{number:012d}.jpg")
    return next((one for one in names if (folder / one).is_file()), own)
