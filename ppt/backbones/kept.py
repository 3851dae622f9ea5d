"""What SAM's encoder made of images, kept on disk, so that a later stage need not look again.

No artifact: the folder may be deleted at any time, and nothing depends on it but how long things take.
Embeddings are kept as they come, in float32: with them masks are the same to the bit as without.
"""

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors import numpy as safetensors
from torch import Tensor

from ppt.durable import write_atomic

_NAME = "features"


class KeptEmbeddings:
    """A file for each key in `folder`, up to `limit` bytes of them in all; beyond that nothing is added, and
    nothing more after one that could not be written, which is said once on stderr.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit
        self._kept = sum(path.stat().st_size for path in folder.glob("*.safetensors"))

    def __call__(self, key: str, make: Callable[[], Tensor]) -> Tensor:
        """The tensor of that key: as kept, or as made now. It is on the device where `make` leaves it, or the
        CPU.
        """
        path = self._folder / f"{key}.safetensors"
        found = _read(path)
        if found is not None:
            return torch.from_numpy(found)
        made = make()
        if self._kept + made.nbytes <= self._limit:
            try:
                self._folder.mkdir(exist_ok=True)
                write_atomic(path, _stored(made.cpu().numpy()))
                self._kept += path.stat().st_size
            except OSError as error:
                if not path.exists():  # another process may have written the same at the same time
                    self._limit = 0
                    print(f"embeddings: no more are kept, which costs only time: {error}", file=sys.stderr)
        return made


def _stored(values: np.ndarray) -> bytes:
    return safetensors.save({_NAME: values, "sha256": _digest(values)})


def _read(path: Path) -> np.ndarray | None:
    """What is kept; None where that is nothing, or damaged."""
    try:
        found = safetensors.load(path.read_bytes())
        whole = np.array_equal(_digest(found[_NAME]), found["sha256"])
    except (OSError, SafetensorError, KeyError):
        return None
    return np.array(found[_NAME]) if whole else None


def _digest(values: np.ndarray) -> np.ndarray:
    return np.frombuffer(hashlib.sha256(np.ascontiguousarray(values).data).digest(), np.uint8)
