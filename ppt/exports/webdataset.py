"""WebDataset: tars of samples, a sample a sentence, whose files share their name up to the first dot.

<split>-000000.tar   <key>.jpg (or .png ...), <key>.txt the sentence, <key>.mask.png of 0 and 255, <key>.json

The tars are plain USTAR, with no owner and no time, so that the same samples are the same bytes. An image
with several sentences is in each of their samples.
"""

import io
import tarfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from ppt.config import canonical_json
from ppt.exports import names
from ppt.exports.items import Picture
from ppt.exports.png import described, encoded
from ppt.exports.streams import Job
from ppt.records.images import ImageError

SHARD_BYTES = 2**28
"""A shard is closed before the sample with which it would be larger."""


def write(job: Job, pictures: Iterable[Picture], shard_bytes: int = SHARD_BYTES) -> None:
    """*.tar"""
    shards = _Shards(job.folder, shard_bytes)
    with shards:
        for picture in pictures:
            try:
                content = job.carrier.content(picture)
            except ImageError as error:
                job.tally.leave(f"image {error.error}", len(picture.masks), fault=True)
                continue
            for mask in picture.masks:
                told = described(picture, mask) | {"segmentation": mask.rle.to_json()}
                parts = {
                    job.carrier.suffix(picture): content,
                    ".txt": mask.item.text.encode(),
                    ".mask.png": encoded(mask.rle),
                    ".json": f"{canonical_json(told)}\n".encode(),
                }
                shards.add(picture.split, names.safe(mask.item.id), parts)
            job.tally.count(picture)


class _Shards:
    """The open tar of each split. Used in a `with` block."""

    def __init__(self, folder: Path, shard_bytes: int) -> None:
        self._folder, self._bytes = folder, shard_bytes
        self._open: dict[str, tarfile.TarFile] = {}
        self._made: Counter[str] = Counter()

    def __enter__(self) -> "_Shards":
        return self

    def __exit__(self, *_: object) -> None:
        for tar in self._open.values():
            tar.close()

    def add(self, split: str, key: str, parts: dict[str, bytes]) -> None:
        """Write a sample: what follows its key -> the file."""
        tar = self._open.get(split)
        size = sum(len(content) + 2 * tarfile.BLOCKSIZE for content in parts.values())
        if tar is not None and tar.offset and tar.offset + size > self._bytes:
            tar.close()
            tar = None
        if tar is None:
            path = self._folder / f"{split}-{self._made[split]:06d}.tar"
            self._made[split] += 1
            tar = self._open[split] = tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
        for ending, content in parts.items():
            member = tarfile.TarInfo(f"{key}{ending}")
            member.size, member.mode, member.mtime = len(content), 0o644, 0
            tar.addfile(member, io.BytesIO(content))
