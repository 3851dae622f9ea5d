"""What mosaics are cut from: object-centric images with their pseudo-masks, read when they are asked for."""

import functools
from collections.abc import Sequence
from typing import Any

from ppt.mosaics import Piece
from ppt.places import Place
from ppt.records import images
from ppt.rle import decode, from_json


class StoredPieces:
    """Rows {image, sha256, text, segmentation} as `Pieces`. Raises ImageError where an image went away."""

    def __init__(self, rows: Sequence[dict[str, Any]], root: Place, policy: images.ImagePolicy) -> None:
        self._rows, self._root, self._policy = rows, root, policy
        self._load = functools.lru_cache(maxsize=256)(self._read)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int, /) -> Piece:
        return self._load(index)

    def _read(self, index: int) -> Piece:
        row = self._rows[index]
        pixels = images.load(self._root, row["image"], self._policy, row["sha256"]).pixels
        return Piece(pixels, decode(from_json(row["segmentation"])), row["text"])
