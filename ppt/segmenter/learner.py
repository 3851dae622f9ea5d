"""The segmenter and what teaches it: a batch of pseudo-labels -> losses by name.

Where a pseudo-label is believed by its weight only, so is all that it teaches but the pixels' own losses: a
region on the wrong thing harms most.
"""

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ppt.segmenter.losses import region
from ppt.segmenter.losses.alignment import Alignment
from ppt.segmenter.losses.contrast import Contrast
from ppt.segmenter.losses.grounding import Grounding, hide
from ppt.segmenter.losses.pairwise import Pairwise
from ppt.segmenter.model import Seen, Segmenter

PARAPHRASE = 0.9
"""Cosine of two sentences of one image from which they are taken to say the same."""
SAME = 0.5
"""IoU of two pseudo-masks above which they may be of one thing."""


@dataclass(frozen=True)
class Weights:
    """Of the losses; 0 leaves one out."""

    cross_entropy: float
    focal: float
    dice: float
    soft_iou: float
    pairwise: float
    contrast: float
    grounding: float
    alignment: float


@dataclass(frozen=True)
class Lessons:
    """b pseudo-labels. pixels: normalised, in their frames. tokens: of the sentences. covered, there: the
    shares of each cell of the logits' grid in the mask, and in the image. believed: in [0, 1]. image: the
    number of each one's image; two sentences of one image have the same.
    """

    pixels: Float[Tensor, "b 3 s s"]
    tokens: Int[Tensor, "b n"]
    covered: Float[Tensor, "b 1 g g"]
    there: Float[Tensor, "b 1 g g"]
    believed: Float[Tensor, " b"]
    image: Int[Tensor, " b"]

    def to(self, device: torch.device | str) -> "Lessons":
        """On another device."""
        return Lessons(*(getattr(self, field.name).to(device) for field in fields(self)))


class Learner(nn.Module):
    """The segmenter with the heads that only training needs."""

    def __init__(self, segmenter: Segmenter, weights: Weights, plain: frozenset[int] = frozenset()) -> None:
        """plain: tokens that are never worth hiding, as articles are not."""
        super().__init__()
        self.segmenter, self.weights = segmenter, weights
        self._plain = sorted(plain)
        width, text = segmenter.design.width, segmenter.towers.text
        heads: dict[str, nn.Module] = {}
        if weights.pairwise:
            heads["pairwise"] = Pairwise(len(segmenter.towers.image.tapped), width)
        if weights.contrast:
            heads["contrast"] = Contrast(width // 2, text.dimension)
        if weights.grounding:
            heads["grounding"] = Grounding(text.width, width, text.width)
        if weights.alignment:
            heads["alignment"] = Alignment(width // 2, text.dimension)
        self.heads = nn.ModuleDict(heads)

    def forward(self, lessons: Lessons, generator: torch.Generator) -> dict[str, Tensor]:
        """The losses that are not left out, each times its weight; `generator` draws cells and words."""
        seen = self.segmenter(lessons.pixels, lessons.tokens)
        losses = self._region(seen, lessons)
        each = self._heads(seen, lessons, generator)
        losses |= {name: region.weighted(loss, lessons.believed) for name, loss in each.items()}
        return {name: getattr(self.weights, name) * loss for name, loss in losses.items()}

    def _region(self, seen: Seen, lessons: Lessons) -> dict[str, Tensor]:
        logits, covered, there = seen.logits, lessons.covered, lessons.there
        losses: dict[str, Tensor] = {}
        if self.weights.cross_entropy:
            losses["cross_entropy"] = region.cross_entropy(logits, covered, there)
        if self.weights.focal:
            losses["focal"] = region.focal(logits, covered, there)
        for name, loss in (("dice", region.dice), ("soft_iou", region.soft_iou)):
            if getattr(self.weights, name):
                losses[name] = region.weighted(loss(logits, covered, there), lessons.believed)
        return losses

    def _heads(self, seen: Seen, lessons: Lessons, generator: torch.Generator) -> dict[str, Tensor]:
        grid = int(seen.levels[0].shape[-2]), int(seen.levels[0].shape[-1])
        covered = F.adaptive_avg_pool2d(lessons.covered, grid)
        there = F.adaptive_avg_pool2d(lessons.there, grid)
        sentence = seen.words.sentence
        losses: dict[str, Tensor] = {}
        if "pairwise" in self.heads:
            losses["pairwise"] = self.heads["pairwise"](seen.levels, covered, there, generator)
        if "contrast" in self.heads:
            same, unclear = meant_alike(sentence.detach(), lessons)
            losses["contrast"] = self.heads["contrast"](seen.pixels, sentence, lessons.covered, same, unclear)
        if "alignment" in self.heads:
            losses["alignment"] = self.heads["alignment"](
                seen.pixels, sentence, lessons.covered, lessons.there, generator
            )
        if "grounding" in self.heads:
            losses["grounding"] = self._grounded(seen, lessons, covered, generator)
        return losses

    def _grounded(
        self, seen: Seen, lessons: Lessons, covered: Tensor, generator: torch.Generator
    ) -> Float[Tensor, " b"]:
        head, text = self.heads["grounding"], self.segmenter.towers.text
        assert isinstance(head, Grounding)
        there = seen.words.there
        tokens = lessons.tokens[:, : there.shape[1]]
        plain = torch.tensor(self._plain, device=tokens.device, dtype=tokens.dtype)
        wanted = there & ~torch.isin(tokens, plain)
        wanted[:, 0] = False
        wanted &= F.pad(there[:, 1:], (0, 1))  # neither start nor end
        hidden = hide(wanted, generator)
        words = text.read(lessons.tokens, hidden, head.blank)
        cells = seen.rounds[-1] if seen.rounds else torch.stack(seen.levels).mean(0)
        return head(words.tokens, there, cells, covered, hidden, tokens, text.token_embedding.weight)


def meant_alike(
    sentence: Float[Tensor, "b e"], lessons: Lessons
) -> tuple[Bool[Tensor, "b b"], Bool[Tensor, "b b"]]:
    """Which sentences mean one thing, by themselves and by their masks, and of which that is unclear."""
    unit = F.normalize(sentence.float(), dim=-1)
    likely = unit @ unit.T >= PARAPHRASE
    flat = (lessons.covered > 0.5).flatten(1).float()
    both = flat @ flat.T
    size = flat.sum(1)
    overlap = both > SAME * (size[:, None] + size - both).clamp(min=1)
    one = lessons.image[:, None] == lessons.image
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    same = itself | (one & likely & overlap)
    # Of another image, a sentence that says the same may be true of this thing, too.
    return same, (one & (likely | overlap) | (~one & likely)) & ~same
