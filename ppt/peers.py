"""Processes that train one model together, as torchrun starts them.

    with joined() as peers: ...

Each computes the losses of batches of its own; their gradients are averaged, so that n processes learn what
one learns from n times the batches a step. The first writes, the others follow it.
"""

import datetime
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Told = TypeVar("Told")
PATIENCE = datetime.timedelta(hours=1)
"""For which the others wait while the first reads, asks and writes."""


@dataclass(frozen=True)
class Peers:
    """rank: of this process among `count`, from 0."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def told(self, value: Told) -> Told:
        """What the first process says; the others' own value is not looked at. To be asked by all."""
        if self.count == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box)
        return box[0]

    def all(self, good: bool) -> bool:
        """Whether it is so for all of them."""
        if self.count == 1:
            return good
        counted = torch.tensor(float(good))
        dist.all_reduce(counted)
        return bool(counted.item() == self.count)

    def average(self, values: Sequence[Tensor]) -> None:
        """Each tensor becomes its mean over all processes, in place; they have it in the same order."""
        if self.count == 1 or not values:
            return
        flat = torch.cat([value.flatten() for value in values])
        dist.all_reduce(flat)
        flat /= self.count
        for value, mean in zip(values, flat.split([value.numel() for value in values]), strict=True):
            value.copy_(mean.view_as(value))


@contextmanager
def joined() -> Iterator[Peers]:
    """This process's peers where torchrun started it; else it is alone, whatever a cluster's scheduler left
    in the environment.
    """
    if not dist.is_torchelastic_launched():
        yield Peers()
        return
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = "cpu:gloo,cuda:nccl"  # by where a tensor is: models may stay on the CPU
    dist.init_process_group(backend, timeout=PATIENCE)
    try:
        yield Peers(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
