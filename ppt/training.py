"""The training loop: steps that resume to the exact bit, a rate that rises and falls, averaged weights.

    train(model, losses_of, plan, checkpoints, log)

`losses_of(number)` draws the batch of that number and returns its losses by name; a step takes
plan.accumulate batches of each process. It must depend on nothing but the number and the model, so that a
training that was killed goes on as if nothing had happened.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from ppt.checkpoint import Checkpoints
from ppt.durable import json_lines, parsed_lines, write_atomic
from ppt.engine import Interrupted, stop_requests
from ppt.peers import Peers
from ppt.places import Place

NAMED = 4
"""Items of a batch without a finite loss that are named at once."""


class DivergenceError(RuntimeError):
    """Losses that stay without a number; its text says since when, of what, and what is kept."""


@dataclass(frozen=True)
class Plan:
    """How to train: `steps` of AdamW at up to `rate`.

    warmup: the share of the steps over which the rate rises, before it falls to 0 along a cosine. clip: the
    largest norm of the gradient of each of the model's parts. average: of the running mean of the weights,
    the share that stays at each step. patience: steps in a row without a finite loss before giving up.
    accumulate: batches a step, whose gradients are averaged. power: the rate falls along a polynomial of that
    power instead, as DeepLab's does (Chen et al. 2016). bfloat16: compute in it where torch deems it safe.
    """

    steps: int
    rate: float
    warmup: float = 0.05
    decay: float = 0.05
    clip: float = 1.0
    average: float = 0.99
    save_every: int = 200
    patience: int = 20
    accumulate: int = 1
    power: float | None = None
    bfloat16: bool = False

    def rate_at(self, step: int) -> float:
        """The learning rate of step number `step`, counted from 0."""
        progress = (step + 1) / self.steps
        if progress < self.warmup:
            return self.rate * progress / self.warmup
        through = (progress - self.warmup) / max(1e-9, 1 - self.warmup)
        if self.power is not None:
            return self.rate * (1 - through) ** self.power
        return self.rate * (0.5 + 0.5 * math.cos(math.pi * through))


@dataclass(frozen=True)
class Held:
    """When to stop early, asked at every checkpoint. masks: what averaged weights make of what was held out
    (n, ...) bool. score: of those masks, the higher the better. patience: checkpoints without a better one
    before stopping. settled: mean IoU with the masks of the checkpoint before above which nothing new is
    expected; 1 is never above it.
    """

    masks: Callable[[dict[str, Tensor]], Bool[Tensor, "n ..."]]
    score: Callable[[Bool[Tensor, "n ..."]], float]
    patience: int
    settled: float = 1.0


@dataclass
class _Best:
    """The best averaged weights so far, for how many checkpoints there were none better, and the last masks
    with their likeness to those before.
    """

    state: dict[str, Tensor]
    score: float = -math.inf
    waited: int = 0
    masks: Bool[Tensor, "n ..."] | None = None
    alike: float = 0.0

    def over(self, held: Held) -> bool:
        """Whether to stop."""
        return self.waited > held.patience or self.alike > held.settled

    def ask(self, held: Held, average: dict[str, Tensor]) -> None:
        masks = held.masks(average)
        self.alike = 0.0 if self.masks is None else _likeness(masks, self.masks)
        self.masks = masks
        score = held.score(masks)
        self.waited += 1
        if score > self.score:
            self.state = {name: value.clone() for name, value in average.items()}
            self.score, self.waited = score, 0


def train(
    model: nn.Module,
    losses_of: Callable[[int], Mapping[str, Tensor]],
    plan: Plan,
    checkpoints: Checkpoints,
    log: Place,
    after_step: Callable[[int, dict[str, float]], object] | None = None,
    until: int | None = None,
    held: Held | None = None,
    peers: Peers = Peers(),  # noqa: B008 -- frozen
    items_of: Callable[[int], Sequence[str]] | None = None,
) -> dict[str, Tensor]:
    """Train `model` in place and return the averaged weights of its state: the last, or with `held` the best.

    The losses are summed. A step whose loss or gradient is not finite changes nothing and is counted. Raises
    DivergenceError after plan.patience of them in a row: the last checkpoint stays, and `items_of` a batch's
    number says what was in them, in diverged.jsonl beside the log. `log` gets a line a step, and on resuming
    loses those after the checkpoint. `until` stops before that step, as if killed right after a checkpoint;
    None goes to the end. After a signal the step is finished, a checkpoint saved and Interrupted raised.

    Of several `peers` the first reads and writes; all return the same. A step takes plan.accumulate times
    peers.count batches, numbered on from the step before. So whoever goes on with as many batches a step, in
    more processes or in fewer, goes on along the same curve, but for the last bits. A signal ends several at
    once: they would not stop after the same step.
    """
    decayed = [p for p in model.parameters() if p.requires_grad and p.ndim >= 2]
    others = [p for p in model.parameters() if p.requires_grad and p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": plan.decay}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=plan.rate)
    average = {name: value.detach().clone() for name, value in model.state_dict().items()}
    best = _Best(average)
    start, bad = 0, 0
    found = peers.told(checkpoints.load() if peers.first else None)
    if found is not None:
        start, state = found
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        average, bad = state["average"], state["bad"]
        best = _Best(**state["best"]) if held is not None else best
    rows = _kept(log, start) if peers.first else []
    over = held is not None and peers.told(best.over(held))
    end = plan.steps if until is None else min(until, plan.steps)
    with stop_requests() if peers.count == 1 else nullcontext([]) as stopped:
        for step in range(start, end):
            if over:
                break
            optimiser.zero_grad(set_to_none=True)
            shown = _backward(model, losses_of, plan, step, peers)
            good = shown is not None
            if good:
                norms = [nn.utils.clip_grad_norm_(part, plan.clip) for part in _parts(model)]
                good = bool(torch.isfinite(torch.stack(norms)).all())
            if good:
                for group in optimiser.param_groups:
                    group["lr"] = plan.rate_at(step)
                optimiser.step()
                _average(average, model, min(plan.average, (step + 1) / (step + 10)))
            bad = 0 if good else bad + 1
            if bad > plan.patience:
                raise _diverged(range(step - plan.patience, step + 1), plan, log, peers, items_of)
            row = {"skipped": 1.0}
            if good and shown:
                row = {name: round(value, 6) for name, value in shown.items()}
            rows.append({"step": step, **row})
            if after_step is not None:
                after_step(step, row)
            due = (step + 1) % plan.save_every == 0 or step + 1 == end
            stop = bool(stopped)
            if due or stop:
                if peers.first:
                    state = {
                        "model": model.state_dict(),
                        "optimiser": optimiser.state_dict(),
                        "average": average,
                    }
                    if held is not None:
                        if due:
                            best.ask(held, average)
                            rows[-1] |= {"held_out": round(best.score, 6), "alike": round(best.alike, 6)}
                        state["best"] = vars(best)
                    write_atomic(log, json_lines(rows))
                    checkpoints.save(step + 1, {**state, "bad": bad})
                over = peers.told(held is not None and best.over(held))
            if stop:
                raise Interrupted(stopped[0])
    return average if held is None else peers.told(best.state)


def _backward(
    model: nn.Module, losses_of: Callable[[int], Mapping[str, Tensor]], plan: Plan, step: int, peers: Peers
) -> dict[str, float] | None:
    """The gradients and the mean losses of a step's batches; None where one of them all is not finite."""
    device = next(model.parameters()).device.type
    shown: dict[str, float] = {}
    good = True
    for part in range(plan.accumulate):
        with torch.autocast(device, torch.bfloat16, enabled=plan.bfloat16):
            losses = losses_of((step * plan.accumulate + part) * peers.count + peers.rank)
            loss = torch.stack(list(losses.values())).sum() / plan.accumulate
        for name, value in losses.items():
            shown[name] = shown.get(name, 0.0) + value.item() / plan.accumulate
        good = bool(torch.isfinite(loss))
        if not good:
            break
        loss.backward()
    if peers.count > 1:
        good, shown = _share(model, good, shown, peers)
    return shown if good else None


@torch.no_grad()
def _share(
    model: nn.Module, good: bool, shown: Mapping[str, float], peers: Peers
) -> tuple[bool, dict[str, float]]:
    """Every gradient becomes the mean of all processes'; whether all are good, and their mean losses. One
    question to the others, whatever is asked. What no batch has a use for has no gradient, as in one process.
    """
    learned = [p for p in model.parameters() if p.requires_grad]
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in learned]
    used = [p.grad is not None for p in learned]
    told = torch.tensor([good, *used, *shown.values()], dtype=gradients[0].dtype, device=gradients[0].device)
    peers.average([*gradients, told])
    good, *rest = told.tolist()
    for parameter, gradient, share in zip(learned, gradients, rest, strict=False):
        parameter.grad = gradient if share > 0 else None
    return good == 1, dict(zip(shown, rest[len(learned) :], strict=True))


def _diverged(
    steps: range, plan: Plan, log: Place, peers: Peers, items_of: Callable[[int], Sequence[str]] | None
) -> DivergenceError:
    """What to say of steps without a finite loss; the first process also writes what was in them."""
    batches, path = plan.accumulate * peers.count, log.with_name("diverged.jsonl")
    said = f"{log.parent}: no finite loss since step {steps.start}"
    if items_of is not None and peers.first:
        numbers = ((step, step * batches + part) for step in steps for part in range(batches))
        rows = [{"step": step, "batch": n, "items": [*items_of(n)]} for step, n in numbers]
        write_atomic(path, json_lines(rows))
        first = ", ".join(rows[0]["items"][:NAMED])
        said += f", whose first batch holds {first}; {path} names all that were in them"
    return DivergenceError(
        f"{said}; the checkpoint before it is kept; mend or leave out what is wrong, or lower the learning"
        " rate, and use --fresh"
    )


def _parts(model: nn.Module) -> list[list[nn.Parameter]]:
    """The parameters of each child, and the model's own: what one of them is taught does not slow another."""
    parts = [list(child.parameters()) for child in model.children()]
    return [part for part in [*parts, list(model.parameters(recurse=False))] if part]


@torch.no_grad()
def _average(average: dict[str, Tensor], model: nn.Module, keep: float) -> None:
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - keep)
        else:
            average[name].copy_(value)


def _likeness(masks: Bool[Tensor, "n ..."], before: Bool[Tensor, "n ..."]) -> float:
    """Mean IoU; 0 of two that are empty, for what draws nothing yet has not settled, and of other items."""
    if masks.shape != before.shape or not len(masks):
        return 0.0
    both, either = (masks & before).flatten(1).sum(1), (masks | before).flatten(1).sum(1)
    return float((both / either.clamp(min=1)).mean())


def _kept(log: Place, start: int) -> list[dict[str, Any]]:
    """The log's lines of the steps before `start`."""
    rows = list(parsed_lines(log.read_bytes())) if log.exists() else []
    return [row for row in rows if row["step"] < start]
