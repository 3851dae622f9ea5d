"""What lies beside a page that cannot hold all its items: cards in scripts of a few, and their photographs.

A page from disk may not fetch a file, but it may run one. So `items_0001.js` calls `pptItems(edition, number,
cards, photos)`: cards as markup, and the photographs that they show, by id, unless the page itself has them.
The edition tells a page that a file was made for another one.
"""

import json
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from jinja2 import Environment

from ppt.durable import ensure
from ppt.places import Place
from ppt.report.photos import Photos

CHUNK = 25
"""Cards in a script."""
OURS = re.compile(r"items_\d{4,}\.js|[0-9a-f]{32}\.jpg")
"""Names of the files that a report leaves in the folder beside it."""


class Sidecars:
    """Writes the files into `folder`, which is there only while it holds some."""

    def __init__(self, folder: Place, environment: Environment, edition: str) -> None:
        self.folder = folder
        self.edition = edition
        self._macros: Any = environment.get_template("card.html.j2").module
        self._photos: dict[int, str] = {}
        self._kept: set[str] = set()
        self._count = 0

    def add(self, cards: Iterable[dict[str, Any]], photos: Photos) -> None:
        """More cards, in order; every call but the last brings a multiple of CHUNK."""
        for some in _by(CHUNK, iter(cards)):
            self.folder.mkdir(exist_ok=True)
            for number, drawn in photos.as_files(self.folder).items():
                self._photos[number] = str(self._macros.photograph(number, drawn)).strip()
                if drawn["href"]:
                    self._kept.add(drawn["href"].rpartition("/")[2])
            self._write([str(self._macros.item(one)).strip() for one in some], {one["photo"] for one in some})

    def finish(self) -> None:
        """Take away what an earlier report left here and this one does not use."""
        if not self.folder.is_dir():
            return
        for path in self.folder.iterdir():
            if OURS.fullmatch(path.name) and path.name not in self._kept:
                path.unlink()
        if not self._kept and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _write(self, cards: list[str], shown: set[int]) -> None:
        beside = {f"photo-{number}": self._photos[number] for number in sorted(shown & set(self._photos))}
        arguments = ",".join(json.dumps(one) for one in (self.edition, self._count, cards, beside))
        self._count += 1
        name = f"items_{self._count:04}.js"
        ensure(self.folder / name, f"pptItems({arguments});\n".encode())
        self._kept.add(name)


def _by(size: int, cards: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while some := list(islice(cards, size)):
        yield some
