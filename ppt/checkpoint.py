"""Checkpoints of a training: complete or absent, verified, and resumed to the exact bit.

A file holds the tensors of a state as torch saves them, and beside it stands what it is known by: step,
fingerprint and sha256. A file that was cut off, or made by another config, is never loaded.
"""

import io
from dataclasses import dataclass
from typing import Any

import torch

from ppt.durable import identity, json_lines, json_object, write_atomic
from ppt.places import Place

State = dict[str, Any]


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be resumed from; its text says which, why, and what to do."""


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoint of the training in `folder`: a file of tensors and last.json.

    fingerprint: of all that the training depends on.
    """

    folder: Place
    fingerprint: str

    def save(self, step: int, state: State) -> None:
        """Replace the last checkpoint. A crash at any moment leaves the old one or the new one."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        data = buffer.getvalue()
        name = f"step_{step:08d}.pt"
        write_atomic(self.folder / name, data)
        known = {"file": name, "step": step, "fingerprint": self.fingerprint, **identity(data)}
        write_atomic(self.folder / "last.json", json_lines([known]))
        for old in self.folder.glob("step_*.pt"):
            if old.name != name:
                old.unlink(missing_ok=True)

    def load(self) -> tuple[int, State] | None:
        """The step after which it was saved, and the state; None where there is none.

        Raises CheckpointError for a file that is damaged or belongs to another training.
        """
        known = json_object(self.folder / "last.json")
        if known is None:
            return None
        path = self.folder / known["file"]
        if known["fingerprint"] != self.fingerprint:
            raise CheckpointError(f"{path}: made with other settings or inputs; use --fresh to start over")
        data = path.read_bytes() if path.exists() else b""
        if identity(data) != {"sha256": known["sha256"], "bytes": known["bytes"]}:
            raise CheckpointError(f"{path}: damaged or missing; use --fresh to start over")
        return known["step"], torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
