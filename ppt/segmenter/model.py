"""The whole segmenter: frozen towers, what is learned between and behind them, and which parts those are.

    segmenter = Segmenter(clip.towers(), Design("bridger", "rca", 2, "add", "query", 256, 64, 2))
    seen = segmenter(pixels, tokens)         # logits (b, 1, h, w)

The towers stay CLIP's: parameters, state and modes of a segmenter are those of what is learned.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ppt.backbones.clip_towers import STAGES, ImageState, Towers, Words
from ppt.segmenter.adapters import Adapter, Bridger, CostAligner, DenseAligner
from ppt.segmenter.decoders import Decoder, Drawn, Dynamic, Point, Query
from ppt.segmenter.fusion import Feedback, HumanLikeAttention
from ppt.segmenter.necks import Gather, Neck, no_finer
from ppt.segmenter.prior import Prior
from ppt.segmenter.second_look import SecondLook


@dataclass(frozen=True)
class Design:
    """Which part stands where, and how wide. rounds: of attention between cells and words, 0 for none.
    detail: channels that dynamic and query read from the image's own pixels, 0 for none. prior: whether what
    CLIP finds relevant joins the neck. things: that SAM is asked for, of which the one meant is chosen; of
    point only.
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
    things: int = 1

    def __post_init__(self) -> None:
        if self.things > 1 and self.decoder != "point":
            raise ValueError(f"only the decoder point has several things to choose from, not {self.decoder}")
        if self.width % 16 or self.adapter_width % 4:
            raise ValueError(
                "a segmenter's width must be a multiple of 16 and its adapters' of 4, got "
                f"{self.width} and {self.adapter_width}"
            )

    def to_json(self) -> dict[str, Any]:
        """The arguments that make it again."""
        return asdict(self)


@dataclass(frozen=True)
class Looked:
    """What depends on u images alone: their normalised pixels; what CLIP's tower made of them after its first
    stage, where adapters have a say in the rest, else its taps, on grids no finer than the neck's.
    """

    pixels: Float[Tensor, "u 3 h w"]
    first: ImageState | None
    taps: tuple[Float[Tensor, "u _ _ _"], ...]


@dataclass(frozen=True)
class Seen:
    """What a segmenter makes of b sentences.

    drawn: the mask, what it was read from and, of the decoder point, the click. taps: of CLIP, that of
    sentence i at of[i]; levels, costs: of the neck, the costs only of rca; rounds: of the fusion. words: as
    CLIP's text tower left them. spoken: the words after the fusion; without one as they were. alone: each
    word's vector in the joint space; None where no part asks for it.
    """

    drawn: Drawn
    taps: tuple[Tensor, ...]
    of: Int[Tensor, " b"]
    levels: tuple[Tensor, ...]
    costs: tuple[Tensor, ...]
    rounds: tuple[Tensor, ...]
    words: Words
    spoken: Tensor
    alone: Float[Tensor, "b t e"] | None

    @property
    def logits(self) -> Float[Tensor, "b 1 h w"]:
        """Of the mask."""
        return self.drawn.logits


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
        decoder = {"dynamic": Dynamic, "query": Query, "point": Point}[design.decoder]
        self.decoder = decoder(words, text.dimension, width, design.layers, design.detail)
        self.second = SecondLook(text.dimension, width) if design.things > 1 else None

    def forward(
        self,
        pixels: Float[Tensor, "u 3 h w"],
        tokens: Int[Tensor, "b n"],
        of: Int[Tensor, " b"] | None = None,
    ) -> Seen:
        """Normalised pixels whose sides are multiples of the tower's stride, and token ids. of: which image
        each sentence is about; None: each about its own.
        """
        of = torch.arange(len(tokens), device=tokens.device) if of is None else of
        return self.read(self.look(pixels), tokens, of)

    def look(self, pixels: Float[Tensor, "u 3 h w"]) -> Looked:
        """What the words do not touch. Nothing in it is learned."""
        image = self.towers.image
        state = image.advance(image.begin(pixels), 0)
        if self.adapters:
            return Looked(pixels, state, ())
        taps: list[Tensor] = []
        for stage in range(STAGES):
            state = image.advance(state, stage) if stage else state
            taps.append(image.tap(state, stage))
        return Looked(pixels, None, no_finer(taps))

    def read(self, looked: Looked, tokens: Int[Tensor, "b n"], of: Int[Tensor, " b"]) -> Seen:
        """The sentences about images that were looked at."""
        if looked.first is None:
            taps, words, own = looked.taps, self.towers.text.read(tokens), of
        else:
            walk = self._bridged if self.design.adapter == "bridger" else self._one_way
            taps, words = walk(looked.first.picked(of), tokens)
            own = torch.arange(len(tokens), device=tokens.device)
        gathered = self.neck(taps, own, words.tokens, words.there, words.sentence)
        cells, spoken, rounds, alone = gathered.cells, words.tokens, (), None
        if self.prior is not None or self.second is not None:
            alone = self.towers.text.alone(tokens[:, : spoken.shape[1]])
        if self.prior is not None:
            cells = cells + self.prior(taps[-1][own], words.sentence, alone, spoken, words.there)
        if self.fusion is not None:
            fused = self.fusion(cells, spoken, words.there, words.sentence)
            cells, spoken, rounds = fused.cells, fused.words, fused.rounds
        drawn = self.decoder(cells, spoken, words.there, words.sentence, looked.pixels, of)
        return Seen(drawn, taps, own, gathered.levels, gathered.costs, rounds, words, spoken, alone)

    def choose(
        self,
        seen: Seen,
        covered: Float[Tensor, "b k h w"],
        known: Bool[Tensor, "b k"],
        click: Float[Tensor, "b h w"] | None,
    ) -> Float[Tensor, "b k"]:
        """Logits of which of k things each sentence means; -1e4 where none is known. covered: the share of
        each of the click's cells in each thing; click: that of `seen`, spread, where it has a say. Of a
        design with several things only.
        """
        assert self.second is not None
        drawn, there = seen.drawn, seen.words.there
        return self.second(covered, known, click, drawn.pixels, drawn.asked, seen.alone, there)

    def _bridged(self, seen: ImageState, tokens: Tensor) -> tuple[tuple[Tensor, ...], Words]:
        """Through both towers side by side: after each stage they are spoken to, and speak."""
        image, text = self.towers.image, self.towers.text
        read, before = text.begin(tokens), None
        taps: list[Tensor] = []
        for stage, bridge in enumerate(self.adapters):
            seen, read = image.advance(seen, stage) if stage else seen, text.advance(read, stage)
            cells, said, before = bridge(image.cells(seen), read.tokens, read.there, before)
            seen, read = image.add(seen, cells), read.plus(said)
            taps.append(image.tap(seen, stage))
        return no_finer(taps), text.finish(read)

    def _one_way(self, seen: ImageState, tokens: Tensor) -> tuple[tuple[Tensor, ...], Words]:
        """The text first and whole; then the image, to which the words speak after each stage."""
        image, words = self.towers.image, self.towers.text.read(tokens)
        taps: list[Tensor] = []
        for stage, adapter in enumerate(self.adapters):
            seen = image.advance(seen, stage) if stage else seen
            seen = image.add(seen, adapter(image.cells(seen), words.tokens, words.there))
            taps.append(image.tap(seen, stage))
        return no_finer(taps), words


def _adapter(kind: Adapter, channels: int, words: int, width: int) -> nn.Module:
    makers = {"bridger": Bridger, "dense": DenseAligner, "cost": CostAligner}
    return makers[kind](channels, words, width)
