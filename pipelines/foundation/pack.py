"""Checkpoints of the foundation trainings -> the embedded default's files."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from pipelines.foundation import clip, sam
from ppt.backbones.weights import file_sha256


def pack(folder: Path, to: Path, also: Path | None = None) -> None:
    """Write to/{clip,sam}.{json,safetensors} and to/weights.json from folder/{clip,sam}.pt: averaged weights,
    fp16.

    also: the sam.pt of a training that this one began from, or went on with; SAM is then the mean of both
    (stochastic weight averaging, Izmailov et al. 2018).
    """
    to.mkdir(parents=True, exist_ok=True)
    listing: dict[str, dict[str, Any]] = {}
    for kind, config in (("clip", clip.CONFIG), ("sam", sam.CONFIG)):
        state = torch.load(folder / f"{kind}.pt", map_location="cpu", weights_only=True)
        kept = {k: v for k, v in state["average"].items() if not k.startswith(sam.PLACE_HEADS)}
        if kind == "sam" and also is not None:
            other = torch.load(also, map_location="cpu", weights_only=True)["average"]
            kept = {k: (v + other[k]) / 2 if v.is_floating_point() else v for k, v in kept.items()}
        tensors = {k: v.half() if v.is_floating_point() else v for k, v in kept.items()}
        tensors = {k: v.contiguous() for k, v in tensors.items()}
        path = to / f"{kind}.safetensors"
        save_file(tensors, path)
        (to / f"{kind}.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
        listing[kind] = {"file": path.name, "sha256": file_sha256(path), "bytes": path.stat().st_size}
    (to / "weights.json").write_text(json.dumps(listing, indent=1) + "\n", encoding="utf-8")
