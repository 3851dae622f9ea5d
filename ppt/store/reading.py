"""The read side: an artifact that is complete, every read of it checked against the hash in its index."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from ppt.config import fingerprint
from ppt.durable import identity, is_intact, json_object, parsed_lines, read_bytes, sealed_object
from ppt.manifest import Manifest
from ppt.places import Place, Remote, size
from ppt.shard import Failure


class ArtifactError(ValueError):
    """An artifact that cannot be read or written; the text names the folder or file and the remedy."""


class StaleArtifact(ArtifactError):  # noqa: N818 -- the state is the name
    """The folder holds an artifact made by another recipe; the text lists what differs."""


class DamagedArtifact(ArtifactError):  # noqa: N818
    """A file of the artifact is missing, or has other bytes than it was given."""


class BusyArtifact(ArtifactError):  # noqa: N818
    """Another run is writing to the folder."""


@dataclass(frozen=True)
class Artifact:
    """The read side of a complete artifact. Every read is checked against the hash in the index."""

    folder: Place
    manifest: Manifest
    index: dict[str, Any]

    @classmethod
    def open(cls, folder: Place) -> "Artifact":
        """Raises ArtifactError when the artifact is absent, incomplete, or a file's size is wrong; that of an
        object in a store is not asked for before it is read.
        """
        index, manifest = sealed_object(folder / "index.json"), stored_manifest(folder)
        if index is None or manifest is None:
            raise ArtifactError(
                f"{folder}: no complete artifact here; run its stage, which resumes where it stopped"
            )
        artifact = cls(folder, manifest, index)
        if manifest.fingerprint != index["manifest"]:
            raise ArtifactError(
                f"{folder}: index.json and manifest.json are of different runs; run its stage again"
            )
        for path, known in () if isinstance(folder, Remote) else artifact._files():
            found = size(path) if path.exists() else 0
            if found != known["bytes"]:
                raise _damaged(path, f"has {found} bytes instead of {known['bytes']}")
        return artifact

    @property
    def fingerprint(self) -> str:
        """Of the content: equal for equal bytes, whenever and wherever they were made."""
        return fingerprint({key: self.index[key] for key in ("stage", "shards", "failures")})

    @property
    def keys(self) -> tuple[str, ...]:
        """The shards' keys, in the plan's order."""
        return tuple(sorted(self.index["shards"], key=int))

    def items(self, key: str) -> tuple[str, ...]:
        """The items that the shard was planned for, failed ones included."""
        return tuple(self.index["shards"][key]["items"])

    def part(self, key: str) -> str:
        """Fingerprint of one shard's rows and tensors."""
        return fingerprint(self.index["shards"][key]["files"])

    def rows(self, *keys: str) -> Iterator[dict[str, Any]]:
        """The rows of the given shards (none given: of all), in order, one shard in memory at a time."""
        for key in keys or self.keys:
            yield from parsed_lines(self._read(key, f"{key}.jsonl"))

    def tensors(self, key: str) -> dict[str, np.ndarray]:
        """The tensors of one shard."""
        path = self.folder / "shards" / f"{key}.safetensors"
        try:
            return safetensors.load(self._read(key, path.name))
        except SafetensorError as error:
            raise _damaged(path, str(error)) from None

    def failures(self) -> list[Failure]:
        """What was passed over, in the plan's order."""
        path = self.folder / "failures.jsonl"
        return [Failure(**row) for row in parsed_lines(_checked_bytes(path, self.index["failures"]))]

    def verify(self) -> list[Place]:
        """Every file of the artifact whose bytes are not those in the index."""
        return [path for path, known in self._files() if not is_intact(path, known)]

    def _files(self) -> Iterator[tuple[Place, dict[str, Any]]]:
        yield self.folder / "failures.jsonl", self.index["failures"]
        for shard in self.index["shards"].values():
            for name, known in shard["files"].items():
                yield self.folder / "shards" / name, known

    def _read(self, key: str, name: str) -> bytes:
        files = self.index["shards"][key]["files"]
        if name not in files:
            raise ArtifactError(
                f"{self.folder}: shard {key} has no {name}, only {', '.join(files) or 'nothing'}"
            )
        return _checked_bytes(self.folder / "shards" / name, files[name])


def stored_manifest(folder: Place) -> Manifest | None:
    """What DIR/manifest.json says; None where it is absent, damaged, or of another version of ppt."""
    stored = json_object(folder / "manifest.json")
    try:
        return None if stored is None else Manifest.from_json(stored)
    except TypeError:  # other fields than ours
        return None


def _checked_bytes(path: Place, known: Mapping[str, Any]) -> bytes:
    try:
        data = read_bytes(path)
    except FileNotFoundError:
        raise _damaged(path, "missing") from None
    if identity(data) != known:
        raise _damaged(path, f"{len(data)} bytes, sha256 differs from the index")
    return data


def _damaged(path: Place, reason: str) -> DamagedArtifact:
    return DamagedArtifact(
        f"{path}: damaged ({reason}); run its stage again, which redoes damaged shards only"
    )
