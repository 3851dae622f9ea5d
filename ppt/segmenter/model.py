"""The whole segmenter: frozen towers, what is learned between and behind them, and which parts those are.

    segmenter = Segmenter(clip.towers(), Design("bridger", "rca", 2, "add", "query", 256, 64, 3))
    seen = segmenter(pixels, tokens)         # logits (b, 1, h, w)

The towers stay CLIP's: parameters, state and modes of a segmenter are those of what is learned.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ppt.backbones.clip_towers import STAGES, Towers, Words
from ppt.segmenter.adapters import Adapter, Bridger, CostAligner, DenseAligner
from ppt.segmenter.decoders import Decoder, Dynamic, Query
from ppt.segmenter.fusion import Feedback, HumanLikeAttention
from ppt.segmenter.necks import Gather, Neck
from ppt.segmenter.prior import Prior


@dataclass(frozen=True)
class Design:
    """Which part stands where, and how wide. rounds: of attention between cells and words, 0 for none.
    detail: channels that are read from the image's own pixels, 0 for none. prior: whether what CLIP finds
    relevant joins the neck.
    """

    adapter: Adapter
    neck: Neck
    rounds: int
    feedback: Feedback
    decoder: Decoder
    width: int
    adapter_width: int
    layers: int
    detail: int = 0
    prior: bool = False

    def __post_init__(self) -> None:
        if self.width % 16 or self.adapter_width % 4:
            raise ValueError(
                "a segmenter's width must be a multiple of 16 and its adapters' of 4, got "
                f"{self.width} and {self.adapter_width}"
            )

    def to_json(self) -> dict[str, Any]:
        """The arguments that make it again."""
        return asdict(self)


@dataclass(frozen=True)
class Seen:
    """What a segmenter makes of b images, each with a sentence.

    logits: of the mask, on the grid of `pixels`. pixels: what the mask was read from. taps: of CLIP; levels,
    costs: of the neck, the costs only of rca; rounds: of the fusion. words: as CLIP's text tower left them.
    spoken: the words after the fusion; without one as they were.
    """

    logits: Float[Tensor, "b 1 h w"]
    pixels: Float[Tensor, "b c h w"]
    taps: tuple[Tensor, ...]
    levels: tuple[Tensor, ...]
    costs: tuple[Tensor, ...]
    rounds: tuple[Tensor, ...]
    words: Words
    spoken: Tensor


class Segmenter(nn.Module):
    """An image and a sentence -> a mask. towers: on the device that the segmenter is on."""

    towers: Towers

    def __init__(self, towers: Towers, design: Design) -> None:
        super().__init__()
        self.design = design
        object.__setattr__(self, "towers", towers)  # unregistered: neither trained, nor saved, nor moved
        image, text, width = towers.image, towers.text, design.width
        self.adapters = nn.ModuleList(
            [_adapter(design.adapter, c, text.width, design.adapter_width) for c in image.inner]
            if design.adapter != "none"
            else []
        )
        self.neck = Gather(design.neck, image.tapped, text.width, text.dimension, width)
        if design.prior and not image.joint:
            raise ValueError(
                "segmenter: a prior needs CLIP's own image tower: no other shares the words' space"
            )
        self.prior = Prior(text.width, text.dimension, width) if design.prior else None
        words = text.width
        self.fusion = None
        if design.rounds:
            self.fusion = HumanLikeAttention(words, text.dimension, width, design.rounds, design.feedback)
            words = width
        decoder = Query if design.decoder == "query" else Dynamic
        self.decoder = decoder(words, text.dimension, width, design.layers, design.detail)

    def forward(
        self,
        pixels: Float[Tensor, "u 3 h w"],
        tokens: Int[Tensor, "b n"],
        of: Int[Tensor, " b"] | None = None,
    ) -> Seen:
        """Normalised pixels whose sides are multiples of the tower's stride, and token ids. of: which image
        each sentence is about; None: each about its own. What the words do not touch is seen once an image.
        """
        of = torch.arange(len(tokens), device=tokens.device) if of is None else of
        walk = self._bridged if self.design.adapter == "bridger" else self._one_way
        taps, words = walk(pixels, tokens, of)
        gathered = self.neck(taps, words.tokens, words.there, words.sentence)
        cells, spoken, rounds = gathered.cells, words.tokens, ()
        if self.prior is not None:
            alone = self.towers.text.alone(tokens[:, : spoken.shape[1]])
            cells = cells + self.prior(taps[-1], words.sentence, alone, spoken, words.there)
        if self.fusion is not None:
            fused = self.fusion(cells, spoken, words.there, words.sentence)
            cells, spoken, rounds = fused.cells, fused.words, fused.rounds
        drawn = self.decoder(cells, spoken, words.there, words.sentence, pixels[of])
        return Seen(
            drawn.logits, drawn.pixels, tuple(taps), gathered.levels, gathered.costs, rounds, words, spoken
        )

    def _bridged(self, pixels: Tensor, tokens: Tensor, of: Tensor) -> tuple[list[Tensor], Words]:
        """Through both towers side by side: after each stage they are spoken to, and speak."""
        image, text = self.towers.image, self.towers.text
        seen, read, before = image.advance(image.begin(pixels), 0).picked(of), text.begin(tokens), None
        taps: list[Tensor] = []
        for stage, bridge in enumerate(self.adapters):
            seen, read = image.advance(seen, stage) if stage else seen, text.advance(read, stage)
            cells, said, before = bridge(image.cells(seen), read.tokens, read.there, before)
            seen, read = image.add(seen, cells), read.plus(said)
            taps.append(image.tap(seen, stage))
        return taps, text.finish(read)

    def _one_way(self, pixels: Tensor, tokens: Tensor, of: Tensor) -> tuple[list[Tensor], Words]:
        """The text first and whole; then the image, to which the words speak where there are adapters."""
        image, words = self.towers.image, self.towers.text.read(tokens)
        seen = image.advance(image.begin(pixels), 0)
        seen = seen.picked(of) if self.adapters else seen
        taps: list[Tensor] = []
        for stage in range(STAGES):
            seen = image.advance(seen, stage) if stage else seen
            if self.adapters:
                seen = image.add(seen, self.adapters[stage](image.cells(seen), words.tokens, words.there))
            taps.append(image.tap(seen, stage))
        return taps if self.adapters else [tap[of] for tap in taps], words


def _adapter(kind: Adapter, channels: int, words: int, width: int) -> nn.Module:
    makers = {"bridger": Bridger, "dense": DenseAligner, "cost": CostAligner}
    return makers[kind](channels, words, width)
