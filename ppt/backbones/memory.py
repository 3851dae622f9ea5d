"""The memory of a device: how images come there, and what is said where it has run out."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

_ON_CPU = "DefaultCPUAllocator"
"""In the message of torch's own RuntimeError; there is no class for it."""


def sent(pixels: Tensor, device: torch.device) -> Tensor:
    """On the device; a GPU fetches them from pinned memory while this process goes on."""
    return pixels.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else pixels.to(device)


@contextmanager
def memory_errors(task: str) -> Iterator[None]:
    """While the block runs: where torch finds no memory, on whatever device, Python's own MemoryError is
    raised instead, with the task and what torch says of it. Also a decorator.
    """
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and _ON_CPU not in str(error):
            raise
        raise MemoryError(f"{task}: {str(error).splitlines()[0]}") from None
