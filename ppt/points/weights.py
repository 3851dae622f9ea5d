"""A trained generator on disk: one shard of an artifact, its tensors and the sizes to build it with."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppt.points.generator import PointGenerator
from ppt.store import Artifact, ArtifactError

SHARD = "00000"


def rows_and_tensors(
    sizes: dict[str, Any], state: dict[str, Tensor]
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """What a shard holds of a generator: one row with the arguments of `PointGenerator`, and its state."""
    return [{"sizes": sizes}], {name: value.detach().cpu().numpy() for name, value in state.items()}


def read_generator(artifact: Artifact) -> PointGenerator:
    """The generator, frozen and in evaluation mode. Raises ArtifactError where the weights do not fit."""
    row = next(iter(artifact.rows(SHARD)))
    generator = PointGenerator(**row["sizes"])
    state = {name: torch.from_numpy(value) for name, value in artifact.tensors(SHARD).items()}
    try:
        generator.load_state_dict(state)
    except RuntimeError as error:
        raise ArtifactError(f"{artifact.folder}: no weights of a point generator: {error}") from None
    return generator.eval().requires_grad_(False)
