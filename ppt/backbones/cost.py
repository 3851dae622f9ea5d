"""What the frozen models cost: floating-point operations, counted by torch itself without any weights.

A multiplication and an addition are two operations. Nothing is computed: the networks are built on torch's
meta device, which knows shapes alone. What a machine does in a second is measured, on one block of a
transformer, of which most of the work consists.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from open_clip.transformer import ResidualAttentionBlock
from torch.utils.flop_counter import FlopCounterMode

from ppt.backbones.clip import Reading, dense_values, grid_stride, untrained_clip
from ppt.backbones.clip_towers import STAGES, TextState, TextTower
from ppt.backbones.sam import untrained_sam
from ppt.backbones.weights import resolve_device
from ppt.geometry import short_side_size

POINTS = 6
"""Of a set, as SAM's decoder is counted with."""
LENGTH = 10
"""Tokens of the sentence that is counted: eight words, its start and its end."""
TOKENS, WIDTH, HEADS = 1024, 768, 12
"""Of the block that the machine is measured on: ViT-B's, on 32 x 32 cells."""
MEASURED = 1.0
"""Seconds, at least, that a machine is measured for."""


@dataclass(frozen=True)
class ClipCost:
    """image, sentence: operations of one. cells, dimension: of an image's dense features."""

    image: float
    sentence: float
    cells: int
    dimension: int


@dataclass(frozen=True)
class SamCost:
    """embed: operations for an image; prompt: for a set of points. embedding: numbers kept of an image."""

    embed: float
    prompt: float
    embedding: int


def clip_cost(
    model: str, size: int | None, max_long: int | None, reading: Reading, height: int, width: int
) -> ClipCost:
    """CLIP on images of height x width pixels, read as `load_clip` is told. Raises WeightsError."""
    with torch.device("meta"), torch.random.fork_rng(devices=[]), torch.inference_mode():
        network = untrained_clip(model).eval().requires_grad_(False)
        own: Any = network.visual.image_size
        short = size or (min(own) if isinstance(own, tuple) else own)
        stride, cap = grid_stride(network.visual), max_long or 4 * short
        operations, cells = 0.0, 0
        for scale, _ in reading.views():
            sides = [max(stride, round(side * scale)) for side in (short, cap)]
            high, wide = short_side_size(height, width, sides[0], stride, sides[1])
            pixels = torch.empty(1, 3, high, wide)
            operations += counted(lambda at=pixels: dense_values(network.visual, at, reading.method))
            cells = cells or (high // stride) * (wide // stride)
        sentence = counted(lambda: _read(TextTower(network)))
        return ClipCost(operations, sentence, cells, int(network.visual.output_dim))


def sam_cost(model: str) -> SamCost:
    """SAM on one image and one set of points. Raises WeightsError."""
    with torch.device("meta"), torch.random.fork_rng(devices=[]), torch.inference_mode():
        network = untrained_sam(model).eval().requires_grad_(False)
        side, prompts = network.image_encoder.img_size, network.prompt_encoder
        embed = counted(lambda: network.image_encoder(torch.empty(1, 3, side, side)))
        high, wide = prompts.image_embedding_size
        features = torch.empty(1, prompts.embed_dim, high, wide)
        prompt = counted(
            lambda: network.mask_decoder(
                image_embeddings=features,
                image_pe=features,
                sparse_prompt_embeddings=torch.empty(1, POINTS + 1, prompts.embed_dim),
                dense_prompt_embeddings=features,
                multimask_output=True,
            )
        )
        return SamCost(embed, prompt, features.numel())


def _read(text: TextTower) -> None:
    """A sentence of `LENGTH` tokens. On the meta device they have no values, so it begins behind them."""
    state = TextState(torch.empty(1, LENGTH, text.width), torch.zeros(1, dtype=torch.long))
    for stage in range(STAGES):
        state = text.advance(state, stage)
    text.finish(state)


def counted(run: Callable[[], object]) -> float:
    """Operations of what `run` computes, gradients included where it asks for them."""
    with FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())


def measured_rate(device: str, dtype: torch.dtype = torch.float32) -> float:
    """Operations a second on "auto", "cpu" or "cuda" in that precision, as this machine is used just now."""
    on = resolve_device(device)
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        block = ResidualAttentionBlock(WIDTH, HEADS).eval().to(on, dtype)
        cells = torch.randn(1, TOKENS, WIDTH, device=on, dtype=dtype)
        each = counted(lambda: block(cells))
        begun, times = time.perf_counter(), list[float]()
        while len(times) < 3 or time.perf_counter() - begun < MEASURED:
            start = time.perf_counter()
            block(cells)
            if on.type == "cuda":
                torch.cuda.synchronize(on)
            times.append(time.perf_counter() - start)
    return each / sorted(times)[len(times) // 2]
