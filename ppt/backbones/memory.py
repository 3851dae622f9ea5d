"""Out of memory, told alike whatever it was that ran out."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_ON_CPU = "DefaultCPUAllocator"
"""In the message of torch's own RuntimeError; there is no class for it."""


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
