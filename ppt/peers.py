"""Processes that train one model together, as torchrun starts them, or another that makes their group.

    with joined("cuda") as peers: ...

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
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

Told = TypeVar("Told")
PATIENCE = datetime.timedelta(hours=1)
"""For which processes wait for one another's gradients."""
LONG = datetime.timedelta(days=7)
"""For which the others wait while the first reads, asks and writes; whoever started them ends it earlier."""


@dataclass(frozen=True)
class Peers:
    """rank: of this process among `count`, from 0. words: the group that what is told goes through; None:
    that of the gradients.
    """

    rank: int = 0
    count: int = 1
    words: "dist.ProcessGroup | None" = None

    @property
    def first(self) -> bool:
        return self.rank == 0

    def told(self, value: Told) -> Told:
        """What the first process says; the others' own value is not looked at. To be asked by all."""
        if self.count == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, group=self.words)
        return box[0]

    def total(self, number: int) -> int:
        """The sum of all processes' numbers. To be asked by all."""
        if self.count == 1:
            return number
        summed = torch.tensor(number)
        dist.all_reduce(summed, group=self.words)
        return int(summed)

    def average(self, values: Sequence[Tensor]) -> None:
        """Each tensor becomes its mean over all processes, in place; they have it in the same order. Asks the
        others once, however many tensors there are.
        """
        if self.count == 1 or not values:
            return
        flat = torch.cat([value.flatten() for value in values])
        dist.all_reduce(flat)
        flat /= self.count
        for value, mean in zip(values, flat.split([value.numel() for value in values]), strict=True):
            value.copy_(mean.view_as(value))


@contextmanager
def joined(device: str = "cpu") -> Iterator[Peers]:
    """This process's peers where torchrun started it, or where there is a group already, which is left as it
    is; else it is alone, whatever a cluster's scheduler left in the environment.

    device: "cpu" or "cuda". With "cuda" gradients go through NCCL, and each process takes the GPU of its
    place on the machine. Raises ValueError where there are fewer GPUs than processes.
    """
    if dist.is_initialized():
        with _within() as peers:
            yield peers
        return
    if not dist.is_torchelastic_launched():
        yield Peers()
        return
    backend = "gloo"
    if device == "cuda":
        place, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if place >= there:
            raise ValueError(
                f"device: each process of a machine needs a GPU of its own, and this one has {there}; start"
                " no more (--nproc-per-node), or say device: cpu"
            )
        torch.cuda.set_device(place)
        backend = "cpu:gloo,cuda:nccl"  # by where a tensor is: models may stay on the CPU
    store, rank, count = next(rendezvous("env://", timeout=PATIENCE))
    # Processes that torchrun begins again must not meet the addresses that those before them left.
    own = PrefixStore(f"attempt_{os.environ['TORCHELASTIC_RESTART_COUNT']}", store)
    dist.init_process_group(backend, store=own, rank=rank, world_size=count, timeout=PATIENCE)
    try:
        with _within() as peers:
            yield peers
    finally:
        dist.destroy_process_group()


@contextmanager
def _within() -> Iterator[Peers]:
    """The peers of the group that there is."""
    if dist.get_world_size() == 1:
        yield Peers()
        return
    words = dist.new_group(backend="gloo", timeout=LONG)
    assert isinstance(words, dist.ProcessGroup)
    try:
        yield Peers(dist.get_rank(), dist.get_world_size(), words)
    finally:
        dist.destroy_process_group(words)
