"""What made an artifact, and what differs between two makings.

An artifact is current when its manifest's fingerprint is that of the manifest a run would write now.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeGuard, cast

import ppt
from ppt.config import fingerprint

ABSENT = "absent"


@dataclass(frozen=True)
class Manifest:
    """One stage's recipe.

    config: the sections the stage depends on, as JSON (`Config.sections`). inputs: name -> fingerprint of
    an artifact or file it reads. weights: name -> sha256. schema_version: of the rows it writes.
    """

    stage: str
    schema_version: int
    config: dict[str, Any]
    inputs: dict[str, str]
    weights: dict[str, str]
    seed: int
    code_version: str = ppt.__version__

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.to_json())

    def recipe(self, part: str) -> str:
        """Of one shard: all of this, but of the inputs only the part that the shard is made of."""
        return fingerprint({**self.to_json(), "inputs": part})

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Manifest":
        return cls(**value)


def difference(old: Manifest, new: Manifest) -> list[str]:
    """What changed from `old` to `new`, a line each: "points.method: 'peak' -> 'read'"; empty when equal."""
    before, after = dict(_leaves(old)), dict(_leaves(new))
    return [
        f"{key}: {before.get(key, ABSENT)} -> {after.get(key, ABSENT)}"
        for key in sorted(before | after)
        if before.get(key) != after.get(key)
    ]


def _leaves(manifest: Manifest) -> Iterator[tuple[str, str]]:
    values = manifest.to_json()
    yield from _flat("", values.pop("config"))
    yield from _flat("", values)


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
    if _is_mapping(value) and value:
        for key, inner in value.items():
            yield from _flat(f"{prefix}.{key}" if prefix else key, inner)
    elif _are_mappings(value):
        for number, inner in enumerate(value):
            yield from _flat(f"{prefix}[{number}]", inner)
    else:
        yield prefix, repr(value)


def _are_mappings(value: Any) -> TypeGuard[list[dict[str, Any]]]:
    return (
        isinstance(value, list) and value != [] and all(_is_mapping(one) for one in cast("list[Any]", value))
    )


def _is_mapping(value: Any) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)
