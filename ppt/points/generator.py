"""The point generator: a sentence and an image -> sets of point prompts, and how sure it is of each set.

After PPT (Dai & Yang, CVPR 2024): learnable queries pass through cross-attention to CLIP's dense features and
to the sentence; each query names a *set* of points, positive, negative or ignored, and one confidence. CLIP
and SAM stay frozen; only the generator learns. The paper's widths, heads and losses are not public; the rest
is ours:

- The cells of CLIP's grid first read the words and each other, so that a cell can know that it is the
  leftmost of its kind.
- A point is where its set looks: the mean of the cells' centres under an attention of its own. Points follow
  what is seen, not a number remembered.
- The sets find things; which of them is meant is decided last, by comparing what they found - where it lies,
  how far it spreads, how relevant it is - with each other and with the words. A loss on points alone is about
  *what*; words of place have to choose among things alike.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

POSITIVE, NEGATIVE, IGNORED = 0, 1, 2
"""Classes of a point, in the order of the class logits."""


@dataclass(frozen=True)
class Scene:
    """What the generator reads of b pairs: n grid cells and t words, padded.

    cells: CLIP's dense features. relevance: the sentence's map, min-max normalised, in [0, 1]. xy: centres of
    the cells, in [0, 1] of the image's width and height. words: CLIP's states of the sentence's tokens.
    has_cell, has_word: False for padding.
    """

    cells: Float[Tensor, "b n c"]
    relevance: Float[Tensor, "b n"]
    xy: Float[Tensor, "b n 2"]
    has_cell: Bool[Tensor, "b n"]
    words: Float[Tensor, "b t w"]
    has_word: Bool[Tensor, "b t"]


@dataclass(frozen=True)
class PointSets:
    """s sets of k points: xy in [0, 1] of the image; class logits (POSITIVE, NEGATIVE, IGNORED); looks, the
    share of each cell in each point, which sums to 1; confidence logits of the sets, to be compared.
    """

    xy: Float[Tensor, "b s k 2"]
    classes: Float[Tensor, "b s k 3"]
    looks: Float[Tensor, "b s k n"]
    confidence: Float[Tensor, "b s"]


class PointGenerator(nn.Module):
    """`Scene` -> `PointSets`.

    cell_width, word_width: of CLIP's dense features and token states. sets, points: s and k. layers: of the
    cells' reading, and of the queries'. ignore: whether a point may be IGNORED. 0.9 M parameters at the
    defaults.
    """

    def __init__(
        self,
        cell_width: int,
        word_width: int,
        width: int = 128,
        sets: int = 6,
        points: int = 8,
        layers: int = 2,
        heads: int = 4,
        ignore: bool = True,
    ) -> None:
        super().__init__()
        self.points, self.ignore = points, ignore
        self.cell, self.word = nn.Linear(cell_width, width), nn.Linear(word_width, width)
        self.relevance = nn.Linear(1, width)
        self.place = _Place(width)
        self.scene = nn.ModuleList([_layer(width, heads) for _ in range(layers)])
        self.queries = nn.Parameter(torch.randn(sets, width) / width**0.5)
        self.finders = nn.ModuleList([_layer(width, heads) for _ in range(layers)])
        self.looks = nn.Linear(width, points * width)
        self.classes = nn.Sequential(nn.Linear(3 * width, width), nn.GELU(), nn.Linear(width, 3))
        self.found = nn.Sequential(nn.Linear(width + 5, width), nn.GELU(), nn.Linear(width, width))
        self.judges = nn.ModuleList([_layer(width, heads) for _ in range(layers)])
        self.confidence = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 1))

    def forward(self, scene: Scene) -> PointSets:
        """The sets of every pair; padding changes nothing."""
        words, no_word = self.word(scene.words), ~scene.has_word
        cells = self.cell(scene.cells) + self.relevance(scene.relevance[..., None]) + self.place(scene.xy)
        for layer in self.scene:
            cells = layer(cells, words, tgt_key_padding_mask=~scene.has_cell, memory_key_padding_mask=no_word)
        memory, nothing = torch.cat([cells, words], 1), torch.cat([~scene.has_cell, no_word], 1)
        sets = self.queries.expand(len(cells), -1, -1)
        for layer in self.finders:
            sets = layer(sets, memory, memory_key_padding_mask=nothing)
        pointers = self.looks(sets).unflatten(2, (self.points, -1))
        likeness = torch.einsum("bskw,bnw->bskn", pointers, cells) / cells.shape[-1] ** 0.5
        looks = likeness.masked_fill(~scene.has_cell[:, None, None], -torch.inf).softmax(-1)
        xy = torch.einsum("bskn,bnd->bskd", looks, scene.xy)
        seen = torch.einsum("bskn,bnw->bskw", looks, cells)
        whole = sets[:, :, None].expand(-1, -1, self.points, -1)
        classes = self.classes(torch.cat([whole, pointers, seen], -1))
        if not self.ignore:
            classes = classes.index_fill(-1, torch.tensor([IGNORED], device=classes.device), -30.0)
        sets = sets + self._found(sets, xy, classes, looks, scene.relevance)
        for layer in self.judges:
            sets = layer(sets, words, memory_key_padding_mask=no_word)
        return PointSets(xy, classes, looks, self.confidence(sets)[..., 0])

    def _found(
        self, sets: Tensor, xy: Tensor, classes: Tensor, looks: Tensor, relevance: Tensor
    ) -> Float[Tensor, "b s w"]:
        """What each set found: where its positive points are, how spread and how relevant."""
        share = classes.softmax(-1)[..., POSITIVE]
        share = share / share.sum(-1, keepdim=True).clamp(min=1e-6)
        middle = (share[..., None] * xy).sum(2)
        spread = (share[..., None] * (xy - middle[:, :, None]).square()).sum(2).clamp(min=1e-8).sqrt()
        relevant = (share * torch.einsum("bskn,bn->bsk", looks, relevance)).sum(2, keepdim=True)
        return self.found(torch.cat([sets, middle, spread, relevant], -1))


class _Place(nn.Module):
    """A place in [0, 1]^2 as sines and cosines of eight wavelengths each way, projected."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("waves", torch.pi * 2.0 ** torch.arange(8) / 2, persistent=False)
        self.project = nn.Linear(32, width)

    def forward(self, xy: Float[Tensor, "b n 2"]) -> Float[Tensor, "b n w"]:
        phases = (xy[..., None] * self.get_buffer("waves")).flatten(2)
        return self.project(torch.cat([phases.sin(), phases.cos()], -1))


def _layer(width: int, heads: int) -> nn.TransformerDecoderLayer:
    """Self-attention, cross-attention to a memory, and an MLP; normalised before each."""
    return nn.TransformerDecoderLayer(
        width, heads, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
