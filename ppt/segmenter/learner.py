"""The segmenter and what teaches it: a batch of pseudo-labels -> losses by name.

Where a pseudo-label is believed by its weight only, so is all that it teaches but the pixels' own losses: a
region on the wrong thing harms most.
"""

from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ppt.curriculum import PARAPHRASE
from ppt.segmenter import noise
from ppt.segmenter.album import Album
from ppt.segmenter.decoders import spread
from ppt.segmenter.losses import contrast, pairwise, region
from ppt.segmenter.losses.alignment import Alignment
from ppt.segmenter.losses.contrast import Contrast
from ppt.segmenter.losses.grounding import Grounding, hide
from ppt.segmenter.losses.pairwise import Pairwise
from ppt.segmenter.model import Looked, Seen, Segmenter
from ppt.segmenter.noise import EarlyLearning, Measures, Teacher

SAME = 0.5
"""IoU of two pseudo-masks above which they may be of one thing."""
APART = 0.3
"""Share of the smaller of two masks up to which they are of two things."""


@dataclass(frozen=True)
class Weights:
    """Of the losses; 0 leaves one out. released: pairwise and contrast as TALENT's code has them."""

    cross_entropy: float
    focal: float
    dice: float
    soft_iou: float
    point: float
    choice: float
    pairwise: float
    contrast: float
    grounding: float
    alignment: float
    released: bool = False


@dataclass(frozen=True)
class Lessons:
    """b pseudo-labels of u images. pixels: normalised, in their frames. tokens: of the sentences. covered,
    there: the shares of each cell in the mask, and in the image, of a grid no coarser than the logits'.
    number: of each image, by which it is known again; below 0 where it is not.
    believed: in [0, 1]. image: the place of each one's image among the u. things: all masks that are known of
    each image, as `covered`; meant: which of them is each one's own.
    """

    pixels: Float[Tensor, "u 3 s s"]
    tokens: Int[Tensor, "b n"]
    covered: Float[Tensor, "b 1 g g"]
    there: Float[Tensor, "b 1 g g"]
    believed: Float[Tensor, " b"]
    image: Int[Tensor, " b"]
    things: Float[Tensor, "u k g g"]
    meant: Int[Tensor, " b"]
    number: Int[Tensor, " u"]

    def on(self, grid: tuple[int, int]) -> "Lessons":
        """On a coarser grid."""
        covered, there, things = (
            F.adaptive_avg_pool2d(one, grid) for one in (self.covered, self.there, self.things)
        )
        return replace(self, covered=covered, there=there, things=things)

    @property
    def rivals(self) -> Bool[Tensor, "b k"]:
        """The things of each one's image that are another than its own."""
        things = self.things[self.image].flatten(2)
        own = things[torch.arange(len(things), device=things.device), self.meant]
        size = things.sum(2)
        shared = torch.einsum("bkn,bn->bk", things, own)
        return (size > 0) & (shared < APART * torch.minimum(size, own.sum(1, keepdim=True)))

    def to(self, device: torch.device | str) -> "Lessons":
        """On another device."""
        return Lessons(*(getattr(self, field.name).to(device) for field in fields(self)))


class Learner(nn.Module):
    """The segmenter with the heads that only training needs."""

    def __init__(
        self,
        segmenter: Segmenter,
        weights: Weights,
        measures: Measures,
        steps: int,
        plain: frozenset[int] = frozenset(),
        room: int = 0,
        together: int = 1,
    ) -> None:
        """steps: of the whole training, each a batch. plain: tokens that are never worth hiding, as articles
        are not. room: bytes for what CLIP makes of images, see `Album`. together: steps that are taken at
        once, their gradients averaged.
        """
        super().__init__()
        self.segmenter, self.weights, self.measures, self.steps = segmenter, weights, measures, steps
        self.teacher = Teacher(segmenter) if measures.ask_teacher else None
        self.album = Album(segmenter, room)
        self.early = EarlyLearning(steps, measures.correction) if measures.correction else None
        self._plain, self._together, self._followed = sorted(plain), together, -1
        width, text = segmenter.design.width, segmenter.towers.text
        heads: dict[str, nn.Module] = {}
        if weights.released and (weights.pairwise or weights.contrast):
            heads["said"] = nn.Linear(text.dimension, width)
        elif weights.pairwise:
            heads["pairwise"] = Pairwise(len(segmenter.towers.image.tapped), width)
        if weights.contrast and not weights.released:
            heads["contrast"] = Contrast(segmenter.decoder.channels, text.dimension)
        if weights.grounding:
            heads["grounding"] = Grounding(text.width, width, text.width)
        if weights.alignment:
            heads["alignment"] = Alignment(segmenter.decoder.channels, text.dimension)
        self.heads = nn.ModuleDict(heads)

    def forward(self, lessons: Lessons, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """The losses of a step that are not left out, each times its weight; `generator` draws what is hidden
        and compared.
        """
        measures = self.measures
        looked, share = self.album.look(lessons.pixels, lessons.number.tolist()), None
        if self.teacher is not None:
            if step // self._together != self._followed:  # once for all that is taken at once
                self.teacher.follow(self.segmenter)
                self._followed = step // self._together
            share = self.teacher.share(looked, lessons.tokens, lessons.image)
        seen = self.segmenter.read(*self._hidden(looked, lessons, generator), lessons.image)
        lessons = lessons.on((int(seen.logits.shape[-2]), int(seen.logits.shape[-1])))
        lessons = self._mended(lessons, seen, share, step)
        pixels = lessons.there
        if measures.pixel_confidence and share is not None:
            pixels = pixels * region.pixel_confidence(share)
        losses = self._region(seen, lessons, pixels)
        each = self._heads(seen, lessons, generator)
        losses |= {name: region.weighted(loss, lessons.believed) for name, loss in each.items()}
        losses |= self._released(seen, lessons)
        losses = {name: getattr(self.weights, name) * loss for name, loss in losses.items()}
        if measures.teacher and share is not None:
            apart = (seen.logits.float().sigmoid() - share).square() * lessons.there
            losses["teacher"] = measures.teacher * apart.sum() / lessons.there.sum().clamp(min=1e-6)
        if measures.exclusion:
            rivals = _of_one_image(lessons) & ~_alike(seen.words.sentence.detach())
            claimed = noise.exclusion(seen.logits, lessons.there, rivals)
            losses["exclusion"] = measures.exclusion * region.weighted(claimed, lessons.believed)
        return losses

    def _hidden(
        self, looked: Looked, lessons: Lessons, generator: torch.Generator
    ) -> tuple[Looked, Int[Tensor, "b n"]]:
        """What the segmenter is shown and told."""
        tokens, measures = lessons.tokens, self.measures
        if measures.hidden_patches:
            pixels = noise.without_patches(lessons.pixels, measures.hidden_patches, generator)
            looked = self.segmenter.look(pixels)
        if measures.hidden_words:
            tokens = noise.without_words(tokens, self._wanted(tokens), measures.hidden_words, generator)
        return looked, tokens

    def _mended(self, lessons: Lessons, seen: Seen, share: Tensor | None, step: int) -> Lessons:
        """The lessons with the labels and the belief that the measures against noise leave them."""
        measures, covered, believed = self.measures, lessons.covered, lessons.believed
        logits = seen.logits.detach()
        if measures.sharing:
            alike = _of_one_image(lessons) & _alike(seen.words.sentence.detach())
            covered = noise.shared(covered, believed, alike)
        if self.early is not None and share is not None:
            agreement = region.weighted(1 - region.soft_iou(logits, covered, lessons.there), believed)
            if self.early.over(step, agreement.item()):
                covered = noise.corrected(covered, share)
        if measures.truncation:
            wrong = region.dice(logits, covered, lessons.there)
            believed = believed * noise.kept(wrong, measures.truncation * step / self.steps)
        return replace(lessons, covered=covered, believed=believed)

    def _region(self, seen: Seen, lessons: Lessons, pixels: Tensor) -> dict[str, Tensor]:
        logits, covered, there = seen.logits, lessons.covered, lessons.there
        losses: dict[str, Tensor] = {}
        if self.weights.cross_entropy:
            losses["cross_entropy"] = region.cross_entropy(logits, covered, pixels)
        if self.weights.focal:
            losses["focal"] = region.focal(logits, covered, pixels)
        for name, loss in (("dice", region.dice), ("soft_iou", region.soft_iou)):
            if getattr(self.weights, name):
                losses[name] = region.weighted(loss(logits, covered, there), lessons.believed)
        if seen.drawn.click is None:
            return losses
        if self.weights.point:
            click = spread(seen.drawn.click, there)
            losses["point"] = region.weighted(region.point(click, covered), lessons.believed)
        if self.weights.choice and self.segmenter.second is not None:
            losses["choice"] = self._choice(seen, lessons)
        return losses

    def _choice(self, seen: Seen, lessons: Lessons) -> Tensor:
        """Cross-entropy of which thing of its image each sentence means, where there are rivals; the click,
        which is taught by itself, is not heard.
        """
        rivals = lessons.rivals
        known = rivals | F.one_hot(lessons.meant, rivals.shape[1]).bool()
        logits = self.segmenter.choose(seen, lessons.things[lessons.image], known, None)
        wrong = F.cross_entropy(logits, lessons.meant, reduction="none")
        return region.weighted(wrong, lessons.believed * rivals.any(1))

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
            losses["contrast"] = self.heads["contrast"](
                seen.drawn.pixels, sentence, lessons.covered, same, unclear
            )
        if "alignment" in self.heads:
            losses["alignment"] = self.heads["alignment"](
                seen.drawn.pixels, sentence, lessons.covered, lessons.there, generator
            )
        if "grounding" in self.heads:
            losses["grounding"] = self._grounded(seen, lessons, covered, generator)
        return losses

    def _released(self, seen: Seen, lessons: Lessons) -> dict[str, Tensor]:
        """TALENT's two losses in its own form: no belief, one positive and one negative a sentence."""
        if "said" not in self.heads:
            return {}
        sentence, losses = seen.words.sentence, dict[str, Tensor]()
        said = self.heads["said"](sentence)
        if self.weights.pairwise:
            losses["pairwise"] = pairwise.released(seen.levels, said)
        if self.weights.contrast:
            same, unclear = meant_alike(sentence.detach(), lessons)
            itself = torch.eye(len(same), dtype=torch.bool, device=same.device)
            other = _of_one_image(lessons) & ~same & ~unclear
            positive = (same & ~itself | itself & (same.sum(1, keepdim=True) == 1)).float().argmax(1)
            negative = other.float().argmax(1)
            cells = torch.stack(seen.levels).mean(0)
            losses["contrast"] = contrast.released(cells, said[positive], said[negative], other.any(1))
        return losses

    def _grounded(
        self, seen: Seen, lessons: Lessons, covered: Tensor, generator: torch.Generator
    ) -> Float[Tensor, " b"]:
        head, text = self.heads["grounding"], self.segmenter.towers.text
        assert isinstance(head, Grounding)
        hidden = hide(self._wanted(lessons.tokens), generator)
        words = text.read(lessons.tokens, hidden, head.blank)
        there = words.there
        tokens, hidden = lessons.tokens[:, : there.shape[1]], hidden[:, : there.shape[1]]
        cells = seen.rounds[-1] if seen.rounds else torch.stack(seen.levels).mean(0)
        return head(words.tokens, there, cells, covered, hidden, tokens, text.token_embedding.weight)

    def _wanted(self, tokens: Int[Tensor, "b n"]) -> Bool[Tensor, "b n"]:
        """The words that say something of a picture: neither plain ones, nor start, end and padding."""
        plain = torch.tensor(self._plain, device=tokens.device, dtype=tokens.dtype)
        place = torch.arange(tokens.shape[1], device=tokens.device)
        inside = (place > 0) & (place < tokens.argmax(1, keepdim=True))
        return inside & ~torch.isin(tokens, plain)


def _alike(sentence: Float[Tensor, "b e"]) -> Bool[Tensor, "b b"]:
    """Which sentences are taken to say the same, each as itself."""
    unit = F.normalize(sentence.float(), dim=-1)
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    return itself | (unit @ unit.T >= PARAPHRASE)


def _of_one_image(lessons: Lessons) -> Bool[Tensor, "b b"]:
    return lessons.image[:, None] == lessons.image


def meant_alike(
    sentence: Float[Tensor, "b e"], lessons: Lessons
) -> tuple[Bool[Tensor, "b b"], Bool[Tensor, "b b"]]:
    """Which sentences mean one thing, by themselves and by their masks, and of which that is unclear."""
    likely = _alike(sentence)
    flat = (lessons.covered > 0.5).flatten(1).float()
    both = flat @ flat.T
    size = flat.sum(1)
    overlap = both > SAME * (size[:, None] + size - both).clamp(min=1)
    one = _of_one_image(lessons)
    itself = torch.eye(len(likely), dtype=torch.bool, device=likely.device)
    same = itself | (one & likely & overlap)
    # Of another image, a sentence that says the same may be true of this thing, too.
    return same, (one & (likely | overlap) | (~one & likely)) & ~same
