"""One shard of an artifact: a share of the items, written by any process, and done when its marker says so.

shards/00000.jsonl  shards/00000.safetensors  shards/00000.done.json (last: the others' hashes)
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from safetensors import numpy as safetensors

from ppt.durable import identity, is_intact, json_lines, sealed, sealed_object, write_atomic
from ppt.places import Place


@dataclass(frozen=True)
class Failure:
    """One item that was passed over: where, which, the error's class and its message."""

    stage: str
    id: str
    error: str
    message: str


@dataclass(frozen=True)
class Shard:
    """One shard to be made. Small and picklable, so that any process can write it."""

    folder: Place
    recipe: str  # of this shard: one that was made by another does not count
    key: str
    items: tuple[str, ...]
    seconds: float = 0.0  # that one item may take, where a worker process makes it; 0: any
    seen: int = 0  # deaths of processes on it that whoever gave it out has seen, and outlived

    def __str__(self) -> str:
        return f"shard {self.key} of {self.folder}"

    def write(
        self,
        rows: Sequence[Mapping[str, Any]] | None = None,
        tensors: Mapping[str, np.ndarray] | None = None,
        failures: Sequence[Failure] = (),
    ) -> None:
        """Write rows (JSON objects) and/or tensors (name -> array), then the marker that makes them count.

        Several processes may write the same shard at the same time: they write the same bytes.
        """
        writer = secrets.token_hex(4)
        payloads: dict[str, bytes] = {}
        if rows is not None:
            payloads[f"{self.key}.jsonl"] = json_lines(rows)
        if tensors is not None:
            arrays = {name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}
            payloads[f"{self.key}.safetensors"] = safetensors.save(arrays)
        for name, data in payloads.items():
            write_atomic(self.folder / "shards" / name, data, writer)
        done = {
            "recipe": self.recipe,
            "items": list(self.items),
            "files": {name: identity(data) for name, data in payloads.items()},
            "failures": [asdict(failure) for failure in failures],
        }
        write_atomic(self._marker, sealed(done), writer)

    @property
    def _marker(self) -> Place:
        return self.folder / "shards" / f"{self.key}.done.json"

    def done(self) -> dict[str, Any] | None:
        """The shard's marker, where it is of this recipe, for these items; None otherwise."""
        done = sealed_object(self._marker)
        if done is None or done.get("recipe") != self.recipe or done.get("items") != list(self.items):
            return None
        return done

    def is_whole(self) -> bool:
        """Whether the marker is there and every file it names has the bytes it was given."""
        done = self.done()
        if done is None:
            return False
        return all(is_intact(self.folder / "shards" / name, known) for name, known in done["files"].items())

    def files(self) -> dict[str, dict[str, Any]]:
        """The files that the marker names and what they are known by; none where the shard is not done."""
        done = self.done()
        return done["files"] if done else {}


def shard_plan(items: Sequence[str], size: int) -> dict[str, tuple[str, ...]]:
    """Cut items, in order, into shards of `size`: {"00000": (...), "00001": (...), ...}."""
    starts = range(0, len(items), size)
    return {f"{number:05d}": tuple(items[start : start + size]) for number, start in enumerate(starts)}
