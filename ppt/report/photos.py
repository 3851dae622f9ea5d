"""The photographs of a page: each content is read once and has one number, however often it is shown."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ppt.durable import ensure
from ppt.places import Place
from ppt.records import images
from ppt.report import figures
from ppt.report.gather import Run
from ppt.types import Record


@dataclass(frozen=True)
class Photo:
    """One photograph: its record, its JPEG or None, and what is wrong with it where there is none."""

    record: Record
    jpeg: bytes | None
    problem: str | None

    def drawn(self, href: str | None) -> dict[str, Any]:
        """What the template draws: the photograph at `href`, or a blank of its size."""
        return {"href": href, "width": self.record.width, "height": self.record.height}


class Photos:
    """Numbers photographs in the order in which they are asked for. Their pixels are kept until they are
    taken, by `as_uris` into the page or by `as_files` into a folder.
    """

    def __init__(self, run: Run, root: Place | None) -> None:
        # As the records stage read them.
        self._policy = images.ImagePolicy.of(run.stages["records"].manifest.config["records"])
        self._root = root
        self._known: dict[str, tuple[int, str | None]] = {}
        self._waiting: dict[int, Photo] = {}

    def number(self, record: Record) -> tuple[int, str | None]:
        """The number of the photograph of `record`, and what is wrong with it, if anything."""
        if record.sha256 not in self._known:
            photo = self._read(record)
            number = len(self._known)
            self._known[record.sha256] = (number, photo.problem)
            self._waiting[number] = photo
        return self._known[record.sha256]

    def as_uris(self) -> list[dict[str, Any]]:
        """The photographs that wait, in order, each as a URI that holds it."""
        return [
            photo.drawn(figures.data_uri("jpeg", photo.jpeg) if photo.jpeg else None)
            for photo in self._taken().values()
        ]

    def as_files(self, folder: Place) -> dict[int, dict[str, Any]]:
        """The photographs that wait, by number, each written to a file in `folder`, named by its content."""
        drawn: dict[int, dict[str, Any]] = {}
        for number, photo in self._taken().items():
            name = f"{photo.record.sha256[:32]}.jpg"
            if photo.jpeg:
                ensure(folder / name, photo.jpeg)
            drawn[number] = photo.drawn(f"{folder.name}/{name}" if photo.jpeg else None)
        return drawn

    def _taken(self) -> Mapping[int, Photo]:
        taken, self._waiting = self._waiting, {}
        return taken

    def _read(self, record: Record) -> Photo:
        if self._root is None:
            return Photo(record, None, None)
        try:
            read = images.load(self._root, record.pair.image, self._policy, record.sha256)
        except images.ImageError as error:
            return Photo(record, None, str(error))
        return Photo(record, figures.photo_jpeg(read.pixels), None)
