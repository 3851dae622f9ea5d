"""What both foundation trainings share: a clock-driven learning rate, averaged weights, checkpoints that
resume.
"""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn
from torch.multiprocessing.spawn import spawn


class Training:
    """Model, AdamW, a running average of the weights, and the clock. Saves every three minutes; resumes when
    run again.

    The learning rate warms up over the first 3 % of `minutes` and falls along a cosine to `floor` times
    `rate` at its end.
    """

    def __init__(
        self, model: nn.Module, path: Path, minutes: float, rate: float, floor: float = 0, decay: float = 0.05
    ) -> None:
        matrices = [p for p in model.parameters() if p.ndim >= 2]
        vectors = [p for p in model.parameters() if p.ndim < 2]
        groups = [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
        self.model, self.path, self.minutes, self.rate, self.floor = model, path, minutes, rate, floor
        self.optimiser = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), eps=1e-6)
        self.average = {k: v.detach().clone() for k, v in model.state_dict().items()}
        self.steps, self.spent, self._saved = 0, 0.0, 0.0
        if path.exists():
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            model.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.average, self.steps, self.spent = state["average"], state["steps"], state["spent"]
        self._saved = self.spent
        self._last = time.monotonic()

    @property
    def progress(self) -> float:
        """Share of the planned time that is spent, 0 to 1."""
        return min(1.0, self.spent / (60 * self.minutes))

    def step(self, loss: torch.Tensor) -> None:
        """One optimiser step on `loss`, averaged over processes; one that is not finite is passed over."""
        now = time.monotonic()
        self.spent, self._last, self.steps = self.spent + now - self._last, now, self.steps + 1
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self._agree()
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        if torch.isfinite(nn.utils.clip_grad_norm_(parameters, 1.0)):
            warm = min(1.0, self.progress / 0.03 + 0.02)
            cosine = 0.5 + 0.5 * math.cos(math.pi * self.progress)
            for group in self.optimiser.param_groups:
                group["lr"] = self.rate * warm * (self.floor + (1 - self.floor) * cosine)
            self.optimiser.step()
        keep = min(0.998, self.steps / (self.steps + 20))
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                if value.is_floating_point():
                    self.average[name].lerp_(value, 1 - keep)
                else:
                    self.average[name].copy_(value)
        if self.spent - self._saved > 180 or self.progress >= 1:
            self.save()

    def _agree(self) -> None:
        """Average gradients and clock over the processes, if there are several: they stay one training."""
        if not distributed.is_initialized():
            return
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        joined = torch.cat([g.flatten() for g in gradients] + [torch.tensor([self.spent])])
        distributed.all_reduce(joined)
        *averaged, spent = (joined / distributed.get_world_size()).split([g.numel() for g in gradients] + [1])
        for gradient, mean in zip(gradients, averaged, strict=True):
            gradient.copy_(mean.view_as(gradient))
        self.spent = float(spent)

    def save(self) -> None:
        """Write the whole state beside its final name, then rename. Of several processes the first does."""
        self._saved = self.spent
        if distributed.is_initialized() and distributed.get_rank():
            return
        temporary = self.path.with_suffix(".tmp")
        state = {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.average,
        }
        torch.save({**state, "steps": self.steps, "spent": self.spent}, temporary)
        temporary.replace(self.path)


def side_by_side(train: Callable[[int], None], processes: int, threads: int, folder: Path) -> None:
    """Call `train(rank)` in `processes` processes of `threads` threads each, joined into one training.

    On two cores, two processes of one thread make a third more steps than one of two. `train` must be
    picklable.
    """
    folder.mkdir(parents=True, exist_ok=True)
    meeting = folder.resolve() / "meeting"
    meeting.unlink(missing_ok=True)
    spawn(_join, (train, processes, threads, meeting), nprocs=processes)


def _join(rank: int, train: Callable[[int], None], processes: int, threads: int, meeting: Path) -> None:
    torch.set_num_threads(threads)
    if processes > 1:
        distributed.init_process_group("gloo", f"file://{meeting}", rank=rank, world_size=processes)
    train(rank)
    if processes > 1:  # left to the end of the process, gloo's threads may abort it
        distributed.barrier()
        distributed.destroy_process_group()
