"""How images come along: copied, linked, or left where they are; the bytes that were labelled or none."""

import errno
import hashlib
import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal, TypeAlias

from PIL import Image

from ppt.exports import names
from ppt.exports.items import ExportError, Picture, Tally
from ppt.records import images, tar_members
from ppt.records.images import SUFFIXES, ImageError, ImagePolicy

Way: TypeAlias = Literal["copy", "hardlink", "symlink", "none"]
_AMBIGUOUS = (
    "images are turned by EXIF, GIFs, or of several frames, of which programs see different pixels;"
    " --images copy writes what was labelled"
)


@dataclass(frozen=True)
class Carrier:
    """root: the folder that the records' images are relative to; folder: the export's.

    An image that is turned by EXIF, a GIF, and one of several frames are written anew as PNG, with the pixels
    that were labelled: programs differ in what they see in the file.
    """

    root: Path
    policy: ImagePolicy
    way: Way
    folder: Path

    def name(self, picture: Picture) -> str:
        """The image's file name in an export: of its path, and with the ending that its content has."""
        return f"{names.safe(picture.image)}{self.suffix(picture)}"

    def suffix(self, picture: Picture) -> str:
        """ ".png" and its like, by content."""
        return ".png" if _is_ambiguous(picture) else SUFFIXES[_format(picture)][0]

    def content(self, picture: Picture) -> bytes:
        """The bytes of the image's file in an export. Raises ImageError: missing, changed, unreadable."""
        if _is_ambiguous(picture):
            pixels = images.load(self.root, picture.image, self.policy, picture.record.sha256).pixels
            written = io.BytesIO()
            Image.fromarray(pixels).save(written, "PNG")
            return written.getvalue()
        images.digest(self.root, picture.image, self.policy)  # the gate: no pipe, no way out of the folder
        inside = tar_members.inside(self.root, picture.image)
        try:
            if inside:
                with open(inside[0], "rb") as file:
                    data = tar_members.content(file.fileno(), *inside)
            else:
                data = (self.root / picture.image).read_bytes()
        except (OSError, tar_members.TarError) as error:
            raise ImageError("unreadable", f"{picture.image} cannot be read: {error}") from error
        if hashlib.sha256(data).hexdigest() != picture.record.sha256:
            raise _changed(picture)
        return data

    def carried(self, pictures: Iterable[Picture], where: str, tally: Tally) -> Iterator[Picture]:
        """The pictures with their images in the folder `where`, in which {split} is replaced.

        One whose image is gone, or not the one that was labelled, is left out and counted.
        """
        for picture in pictures:
            if self.way == "none":
                if _is_ambiguous(picture):
                    tally.notes[_AMBIGUOUS] += 1
                yield replace(picture, file=picture.image)
                continue
            file = f"{where.format(split=picture.split)}/{self.name(picture)}"
            try:
                self._carry(picture, self.folder / file, tally)
            except ImageError as error:
                tally.leave(f"image {error.error}", len(picture.masks), fault=True)
                if not picture.masks:
                    tally.notes[f"images without a mask are not in it ({error.error})"] += 1
                continue
            yield replace(picture, file=file)

    def _carry(self, picture: Picture, to: Path, tally: Tally) -> None:
        if to.exists():  # of another split, in a format with one folder for all
            return
        to.parent.mkdir(parents=True, exist_ok=True)
        in_tar = tar_members.inside(self.root, picture.image) is not None
        if self.way == "copy" or in_tar or _is_ambiguous(picture):
            to.write_bytes(self.content(picture))
            if _is_ambiguous(picture):
                tally.notes["images turned by EXIF, GIFs and ones of several frames were written as PNG"] += 1
            elif self.way != "copy":
                tally.notes["images lie in a tar, and were copied"] += 1
            return
        if images.digest(self.root, picture.image, self.policy) != picture.record.sha256:
            raise _changed(picture)
        source = (self.root / picture.image).resolve()
        if self.way == "symlink":
            to.symlink_to(os.path.relpath(source, to.parent.resolve()))
            return
        try:
            os.link(source, to)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
                raise
            raise ExportError(
                f"{picture.image} cannot be hard linked to {to.parent} ({error.strerror}): use --images copy,"
                " or symlink"
            ) from error


def _is_ambiguous(picture: Picture) -> bool:
    flags = picture.record.flags
    turned = any(flag == "first_frame" or flag.startswith("orientation:") for flag in flags)
    return turned or _format(picture) == "GIF"


def _format(picture: Picture) -> str:
    """The image's true format: the record says where the name lies."""
    told = next((flag.partition(":")[2] for flag in picture.record.flags if flag.startswith("content:")), "")
    ending = PurePosixPath(picture.image).suffix.lower()
    return told or next((one for one, endings in SUFFIXES.items() if ending in endings), "PNG")


def _changed(picture: Picture) -> ImageError:
    return ImageError("changed", f"{picture.image} is not the image that was labelled")
