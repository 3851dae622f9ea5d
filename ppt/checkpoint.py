"""Checkpoints of a training: complete or absent, verified, and resumed to the exact bit.

    step_00000400.pt  step_00000400.json

A file holds the tensors of a state as torch saves them, and beside it stands what it is known by: step,
fingerprint and sha256. The last two are kept: where the last was cut off or zero-filled, the one before it
serves. A file that is damaged, or made by another config, is never loaded.
"""

import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from ppt.durable import identity, json_lines, json_object, read_bytes, write_atomic
from ppt.places import Place, rename

State = dict[str, Any]
KEPT = 2
ASIDE = ".damaged"
"""What is added to the name of a file that is set aside."""


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be resumed from; its text says which, why, and what to do."""


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of the training in `folder`.

    fingerprint: of all that the training depends on.
    """

    folder: Place
    fingerprint: str

    def save(self, step: int, state: State) -> None:
        """Add a checkpoint; the last KEPT are kept. A crash at any moment leaves those before it whole."""
        buffer = io.BytesIO()
        torch.save(_plain(state), buffer)
        data = buffer.getvalue()
        path = self.folder / f"step_{step:08d}.pt"
        write_atomic(path, data)
        known = {"step": step, "fingerprint": self.fingerprint, **identity(data)}
        write_atomic(path.with_suffix(".json"), json_lines([known]))
        self._keep_last()

    def load(self) -> tuple[int, State] | None:
        """The step after which the last one was saved, and its state; None where there is none.

        Where the last is damaged, it is set aside with a word on stderr, and the one before it is the last.
        Raises CheckpointError where all are damaged, or where one belongs to another training.
        """
        for leftover in self.folder.glob("step_*.tmp"):  # of a save that was cut off
            leftover.unlink(missing_ok=True)
        damaged: list[Place] = []
        for path in self._from_last():
            known = json_object(path.with_suffix(".json"))
            if known is not None and known["fingerprint"] != self.fingerprint:
                raise CheckpointError(
                    f"{path}: made with other settings or inputs; use --fresh to start over"
                )
            data = read_bytes(path) if path.exists() else b""
            if known is None or identity(data) != {name: known[name] for name in ("sha256", "bytes")}:
                damaged.append(path)
                continue
            for one in damaged:
                print(f"{one}: damaged; set aside, going on from step {known['step']}", file=sys.stderr)
                if one.exists():
                    rename(one, one.name + ASIDE)
                one.with_suffix(".json").unlink(missing_ok=True)
            self._keep_last()  # a kill may have come between saving one and this
            return known["step"], torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        if damaged:
            named = ", ".join(map(str, damaged))
            raise CheckpointError(f"{named}: damaged, and no other is kept; use --fresh to start over")
        return None

    def _keep_last(self) -> None:
        """Remove all but the last KEPT, and tensors whose finishing was cut off."""
        kept = [*self._from_last()][:KEPT]
        for name in (".json", ".pt"):  # never what a file is known by without the file
            for old in self.folder.glob(f"step_*{name}"):
                if old.with_suffix(".pt") not in kept:
                    old.unlink()

    def _from_last(self) -> Iterator[Place]:
        """The files of tensors, the last first; one without what it is known by was never finished."""
        names = {path.stem for path in self.folder.glob("step_*.json")}
        yield from (self.folder / f"{name}.pt" for name in sorted(names, reverse=True))


def _plain(value: Any) -> Any:
    """The same state, with nothing left of where it came from: a pickle tells one name from two that are
    equal, and so what was loaded from what never was.
    """
    if isinstance(value, dict):
        return {sys.intern(k) if isinstance(k, str) else k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)([_plain(one) for one in value])
    return value
