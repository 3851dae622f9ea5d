"""Randomness is derived, never ambient: (seed, stage, key) -> a generator of its own.

The same triple gives the same stream on every machine, whatever the order of work or the number of workers.
"""

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def generator(seed: int, stage: str, key: str) -> np.random.Generator:
    """NumPy generator for one item of one stage."""
    return np.random.Generator(np.random.PCG64(_entropy(seed, stage, key)))


def torch_generator(seed: int, stage: str, key: str) -> "torch.Generator":
    """Torch CPU generator for one item of one stage; sample on the CPU and move the result."""
    import torch

    return torch.Generator("cpu").manual_seed(_entropy(seed, stage, key) % 2**63)


def _entropy(seed: int, stage: str, key: str) -> int:
    # JSON keeps the three apart: ("a", "bc") and ("ab", "c") must not share a stream.
    return int.from_bytes(hashlib.sha256(json.dumps([seed, stage, key]).encode()).digest())
