"""The gate every image passes, and the one place where a file becomes pixels: 8-bit RGB, by the rules below.

- Only regular files are opened, so a pipe or a device never blocks; links must stay inside the pairs folder.
  `a.tar/b.jpg` is read from within the tar.
- What a passing fault of a disk or of a network's file system hides is asked for again, twice.
- In a store (`ppt.places`) an object is read whole, and only below the pairs' own folder. One of more bytes
  than any image of max_pixels has is not fetched. A store that does not answer is no bad image: it stops.
- The size is read from the header and capped before anything is decoded, and so are a JPEG's scans, each of
  which goes over the whole image; a truncated file is refused.
- The format is what the bytes say. Of an animation or a multi-page file the first frame is taken.
- EXIF orientation is ignored (as COCO does) or applied, by policy, for every format alike.
- Grey is repeated to RGB; 16-bit grey v becomes round(v / 257); 32-bit integers and floats, which state no
  range, are stretched from their own minimum..maximum to 0..255 (a flat image becomes 0); CMYK, palette and
  YCbCr are converted by Pillow; transparency is laid over white or black, by policy.
"""

import errno
import functools
import hashlib
import io
import mmap
import os
import re
import stat
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import PurePosixPath
from typing import Any, Literal, ParamSpec, TypeVar

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFile, TiffImagePlugin

from ppt import places
from ppt.places import Place, Remote
from ppt.records import tar_members

SUFFIXES = {
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
"""The formats that are read, and the suffixes their names should have."""

MOST_SCANS = 100
"""Of a JPEG. A progressive one has about ten."""
_MARKER = re.compile(rb"\xff[\x02-\xcf\xd9-\xfe]")
_SCAN, _END = b"\xff\xda", b"\xff\xd9"
_PASSING = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EINTR}
_PAUSES = (0.2, 1.0)
"""Seconds before a file is asked for again."""
_PIXEL, _HEADER = 16, 2**26
"""Bytes of a pixel, of four channels in 32 bits, and of what else a file holds: what an object may have."""
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_INVERSE = {6: 8, 8: 6}  # every other turn undoes itself


class ImageError(ValueError):
    """An image that does not pass the gate: `error` is a code to count by, the text says which and why."""

    def __init__(self, error: str, message: str) -> None:
        super().__init__(error, message)
        self.error = error
        self.message = message

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class ImagePolicy:
    """The gate's choices; the `records` section of the config explains them and holds the defaults."""

    max_pixels: int
    exif: Literal["ignore", "transpose"]
    alpha: Literal["white", "black"]
    follow_links: bool

    @classmethod
    def of(cls, section: Mapping[str, Any]) -> "ImagePolicy":
        """The policy that a `records` section, as a manifest keeps it, tells among other things."""
        return cls(**{field.name: section[field.name] for field in fields(cls)})


@dataclass(frozen=True, eq=False)
class LoadedImage:
    """Pixels (h, w, 3) uint8 RGB, sha256 of the file's bytes, its true format, and what was odd about it."""

    pixels: UInt8[np.ndarray, "h w 3"]
    sha256: str
    format: str
    flags: tuple[str, ...]

    def flags_as(self, image: str) -> tuple[str, ...]:
        """The flags of this content under the name `image`, whose suffix may lie."""
        honest = PurePosixPath(image).suffix.lower() in SUFFIXES[self.format]
        return self.flags if honest else (*self.flags, f"content:{self.format}")


_P = ParamSpec("_P")
_T = TypeVar("_T")


def _patiently(read: Callable[_P, _T]) -> Callable[_P, _T]:
    """`read`, asked again where a fault may have passed."""

    @functools.wraps(read)
    def again(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        for pause in _PAUSES:
            try:
                return read(*args, **kwargs)
            except ImageError as error:
                if getattr(error.__cause__, "errno", None) not in _PASSING:
                    raise
            time.sleep(pause)
        return read(*args, **kwargs)

    return again


@_patiently
def digest(root: Place, image: str, policy: ImagePolicy) -> str:
    """sha256 of the bytes of `root / image`, without decoding. Raises ImageError as `load` does for files."""
    with _opened(root, image, policy) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size(root: Place, image: str) -> int | None:
    """Bytes of `root / image`, by its name alone; None where there is no such file."""
    try:
        if isinstance(root, Remote):
            return places.size(root / image)
        inside = tar_members.inside(root, image)
        if inside:
            return tar_members.members(inside[0]).get(inside[1], (0, None))[1]
        return (root / image).stat().st_size if (root / image).is_file() else None
    except (OSError, ValueError):  # a name no file system takes
        return None


def sizes(root: Place, names: Iterable[str]) -> dict[str, int | None]:
    """`size` of every image by its name, in their order."""
    known = list(names)
    return dict(zip(known, places.each(lambda image: size(root, image), known, root), strict=True))


@_patiently
def load(root: Place, image: str, policy: ImagePolicy, sha256: str | None = None) -> LoadedImage:
    """`root / image` as 8-bit RGB. With `sha256`, a file whose bytes changed since is refused.

    Raises ImageError with one of the codes missing, not_a_file, outside, unreadable (the file), changed,
    too_large (the header) and bad_image (format, truncation, values).
    """
    with _opened(root, image, policy) as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
        if sha256 is not None and found != sha256:
            raise ImageError("changed", f"{image} changed: sha256 {sha256[:12]}... is now {found[:12]}...")
        file.seek(0)
        try:
            with _strictly_decoding(), Image.open(file, formats=sorted(SUFFIXES)) as picture:
                _check_scans(file, picture, image)
                return _decoded(picture, image, policy, found)
        except (ImageError, MemoryError):
            raise
        except Image.DecompressionBombError as error:
            raise ImageError("too_large", f"{image} is too large: {error}") from error
        except Exception as error:  # Pillow raises at least six unrelated types for foreign bytes
            if getattr(error, "errno", None) in _PASSING:
                raise
            raise ImageError("bad_image", f"{image} is no readable image: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    # Pillow names the file object by its address, which would differ from run to run.
    foreign = isinstance(error, Image.UnidentifiedImageError)
    return f"none of {', '.join(SUFFIXES)}" if foreign else str(error) or type(error).__name__


@contextmanager
def _opened(root: Place, image: str, policy: ImagePolicy) -> Iterator[io.BufferedReader | io.BytesIO]:
    """The regular file `root / image`, or the member of a tar there, opened so that nothing can block; or the
    object of that name.
    """
    if isinstance(root, Remote):
        yield io.BytesIO(_fetched(root, image, policy.max_pixels))
        return
    inside = tar_members.inside(root, image)
    path = inside[0] if inside else root / image
    try:
        inner = path.resolve(strict=True).is_relative_to(root.resolve(strict=True))
        if not inner and not policy.follow_links:
            raise ImageError("outside", f"{image} leads out of its folder; records.follow_links allows links")
        _check_regular(image, os.stat(path))
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(descriptor, "rb") as file:
            _check_regular(image, os.fstat(descriptor))
            yield io.BytesIO(tar_members.content(descriptor, path, inside[1])) if inside else file
    except ImageError:
        raise
    except (FileNotFoundError, tar_members.TarError) as error:
        reason = "does not exist" if isinstance(error, FileNotFoundError) else f"is not there: {error}"
        raise ImageError("missing", f"{image} {reason}") from error
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a NUL
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a usable path"
        raise ImageError("unreadable", f"{image} cannot be read: {reason}") from error


def _fetched(root: Remote, image: str, max_pixels: int) -> bytes:
    try:
        found, most = root / image, _PIXEL * max_pixels + _HEADER
        content = found.read_within(most)  # one question, of which every stage asks many
        if content is None:
            raise ImageError("too_large", f"{image} has {found.size()} bytes, more than an image may: {most}")
        return content
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError("missing", f"{image} does not exist") from error
    except OSError as error:
        raise ImageError("unreadable", f"{image} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ImageError("outside", f"{image} leads out of its folder") from error


def _check_regular(image: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("not_a_file", f"{image} is not a regular file")


@contextmanager
def _strictly_decoding() -> Iterator[None]:
    """Truncated files raise, whatever another package set; Pillow's own warnings yield to our checks."""
    before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def _check_scans(file: io.BufferedReader | io.BytesIO, picture: Image.Image, image: str) -> None:
    if picture.format not in ("JPEG", "MPO"):
        return
    if isinstance(file, io.BytesIO):
        count = _scans(file.getvalue())
    else:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            count = _scans(content)
    if count > MOST_SCANS:
        raise ImageError("too_large", f"{image} has more than {MOST_SCANS} scans")


def _scans(content: bytes | mmap.mmap) -> int:
    """Scans of a JPEG, up to one more than are decoded. It is gone through by its markers, up to its end;
    behind that a phone may have put a film.
    """
    count, place = 0, 2
    while count <= MOST_SCANS and (found := _MARKER.search(content, place)):
        if found[0] == _END:
            break
        count += found[0] == _SCAN
        place = found.end() + int.from_bytes(content[found.end() : found.end() + 2], "big")
    return count


def _decoded(picture: Image.Image, image: str, policy: ImagePolicy, sha256: str) -> LoadedImage:
    width, height = picture.size
    if width * height > policy.max_pixels:
        cap = f"more than records.max_pixels = {policy.max_pixels}"
        raise ImageError("too_large", f"{image} has {height}x{width} pixels, {cap}")
    flags = [] if picture.mode in ("RGB", "L") else [f"mode:{picture.mode}"]
    if getattr(picture, "is_animated", False):
        flags.append("first_frame")
    turned = isinstance(picture, TiffImagePlugin.TiffImageFile)  # Pillow turns these while it loads them
    orientation = _orientation(picture) if turned else 1
    picture.load()
    orientation = orientation if turned else _orientation(picture)
    rgb = _rgb(picture, policy.alpha)
    if orientation in _TURNS:
        flags.append(f"orientation:{orientation}")
        if turned and policy.exif == "ignore":
            rgb = rgb.transpose(_TURNS[_INVERSE.get(orientation, orientation)])
        elif not turned and policy.exif == "transpose":
            rgb = rgb.transpose(_TURNS[orientation])
    kind = "JPEG" if picture.format == "MPO" else picture.format  # MPO: several JPEGs in one, as phones write
    return LoadedImage(np.array(rgb), sha256, str(kind), tuple(flags))


def _orientation(picture: Image.Image) -> int:
    try:
        value = picture.getexif().get(_ORIENTATION, 1)
        return value if value in _TURNS else 1
    except Exception:  # a broken EXIF block says nothing about the pixels
        return 1


def _rgb(picture: Image.Image, alpha: Literal["white", "black"]) -> Image.Image:
    if picture.mode.startswith("I;16"):
        values: Any = np.asarray(picture).astype(np.uint32)
        return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")
    if picture.mode in ("I", "F"):
        return Image.fromarray(_stretched(np.asarray(picture, dtype=np.float64))).convert("RGB")
    if picture.has_transparency_data:
        upper = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", upper.size, alpha), upper).convert("RGB")
    return picture.convert("RGB")


def _stretched(values: np.ndarray) -> UInt8[np.ndarray, "h w"]:
    finite = np.isfinite(values)
    if not finite.all():
        raise ValueError(f"{values.size - int(finite.sum())} of its values are not finite")
    low, high = values.min(), values.max()
    return np.rint((values - low) * (255 / (high - low if high > low else 1))).astype(np.uint8)
