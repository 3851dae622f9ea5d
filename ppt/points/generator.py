"""The point generator: a sentence and an image -> sets of point prompts, and how sure it is of each set.

After PPT (Dai & Yang, CVPR 2024): learnable queries pass through cross-attention to CLIP's dense features and
to the sentence; each query names a *set* of points, positive, negative or ignored, and one confidence. CLIP
and SAM stay frozen; only the generator learns. The paper's widths, heads and losses are not public; the rest
is ours:

- *Find*: every cell says whether it is the middle of a thing. The strongest places, and the most relevant,
  become the anchors of the queries, so that a query need not learn where to look, only what is there.
- *Point*: a query draws a soft shape of its thing on CLIP's grid. A point is the anchor, or the mean of the
  cells under an attention of its own, inside the shape or outside of it; points follow what is seen.
- *Judge*: which of the things found is meant is decided by comparing their shapes (`judge`). A loss on points
  alone is nine tenths about *what*; words of place have to choose among things alike.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ppt.points.judge import Panel
from ppt.points.reading import read
from ppt.points.scene import WORDS, Scene

POSITIVE, NEGATIVE, IGNORED = 0, 1, 2
"""Classes of a point, in the order of the class logits."""
POOL = 2
"""Cells, each way, that are read as one where cells look at each other."""
APART = 5
"""Cells, each way, of the window in which an anchor is the strongest."""
RELEVANT = 2.0
"""What full relevance adds to the logit of an anchor."""
NEVER = -30.0
"""Logit of a class that a point cannot be."""
_NO_CELL = -20.0


@dataclass(frozen=True)
class PointSets:
    """s sets of k points on n = h * w cells.

    xy in [0, 1] of the image; class logits (POSITIVE, NEGATIVE, IGNORED); looks, the share of each cell in
    each point, which sums to 1; shapes, logits of the cells that belong to the set's thing; anchors, the cell
    from which each query started; middles, logits of the cells that are the middle of a thing.
    """

    xy: Float[Tensor, "b s k 2"]
    classes: Float[Tensor, "b s k 3"]
    looks: Float[Tensor, "b s k n"]
    shapes: Float[Tensor, "b s n"]
    anchors: Int[Tensor, "b s"]
    middles: Float[Tensor, "b n"]


class PointGenerator(nn.Module):
    """`Scene` -> `PointSets`.

    dimension: of CLIP's joint space. sets, points: s and k. layers: of the cells' reading, and of the
    queries'. ignore: whether a point may be IGNORED. judges: of the panel. 1.0 M parameters at the defaults
    and 256 dimensions.
    """

    def __init__(
        self,
        dimension: int,
        width: int = 128,
        sets: int = 6,
        points: int = 6,
        layers: int = 1,
        heads: int = 4,
        ignore: bool = True,
        judges: int = 3,
    ) -> None:
        super().__init__()
        self.sets, self.points, self.ignore = sets, points, ignore
        self.cell, self.word = nn.Linear(dimension, width), nn.Linear(dimension, width)
        self.relevance, self.place = nn.Linear(1, width), _Place(width)
        self.order = nn.Parameter(0.1 * torch.randn(WORDS, width))
        self.scene = nn.ModuleList([_layer(width, heads) for _ in range(layers)])
        self.seen = nn.LayerNorm(width)
        last = nn.Linear(width, 1)
        nn.init.constant_(last.bias, -4.0)  # few cells are the middle of a thing
        self.middle = nn.Sequential(nn.Linear(width, width), nn.GELU(), last)
        self.queries = nn.Parameter(torch.randn(sets, width) / width**0.5)
        self.start = nn.Linear(width, width)
        self.finders = nn.ModuleList([_layer(width, heads) for _ in range(layers)])
        self.form, self.shape = nn.Linear(width, width), nn.Linear(width, width + 2)
        self.where, self.look = nn.Linear(width, width // 2), nn.Linear(width, (points - 1) * (width // 2))
        self.classes = nn.Sequential(nn.Linear(2 * width + 4, width), nn.GELU(), nn.Linear(width, 3))
        self.judge = Panel(dimension, judges)

    def forward(self, scene: Scene) -> PointSets:
        """The sets of every pair; padding changes nothing."""
        has, xy = scene.has_cell.flatten(1), scene.xy.flatten(1, 2)
        words, no_word = self.word(scene.words) + self.order[: scene.words.shape[1]], ~scene.has_word
        cells, coarse, no_coarse = self._read(scene, words, no_word)
        middles = self.middle(cells)[..., 0].masked_fill(~has, _NO_CELL)
        anchors = self._anchors(middles.detach(), scene)
        at = _picked(xy, anchors)
        queries = self.queries + self.start(_picked(cells, anchors)) + self.place(at)
        memory, nothing = torch.cat([coarse, words], 1), torch.cat([no_coarse, no_word], 1)
        for layer in self.finders:
            queries = layer(queries, memory, memory_key_padding_mask=nothing)
        shapes = self._shapes(queries, cells, at, xy).masked_fill(~has[:, None], _NO_CELL)
        looks = self._looks(queries, cells, shapes.detach(), has)
        looks = torch.cat([F.one_hot(anchors, has.shape[1]).to(looks.dtype)[:, :, None], looks], 2)
        points = torch.einsum("bskn,bnd->bskd", looks, xy)
        classes = self._classes(queries, cells, looks, points - at[:, :, None], shapes)
        return PointSets(points, classes, looks, shapes, anchors, middles)

    def confidence(self, scene: Scene, things: Float[Tensor, "b s n"]) -> Float[Tensor, "b s"]:
        """Logits, to be compared: which of the things each sentence means. things: the share of each cell
        that each covers, in [0, 1]; the sets' shapes, or what SAM made of them.
        """
        there = torch.ones(things.shape[:2], dtype=torch.bool, device=things.device)
        return self.judge(read(scene, things, there))

    def _read(
        self, scene: Scene, words: Tensor, no_word: Tensor
    ) -> tuple[Float[Tensor, "b n w"], Float[Tensor, "b m w"], Tensor]:
        """The cells, having read the words and each other POOL x POOL at a time; the pooled ones, and which
        of these are padding.
        """
        height, width = scene.grid
        place = self.place(scene.xy.flatten(1, 2)).unflatten(1, (height, width))
        fine = self.cell(scene.cells) + self.relevance(scene.relevance[..., None]) + place
        fine = fine * scene.has_cell[..., None]
        pad = (0, -width % POOL, 0, -height % POOL)
        share = F.avg_pool2d(F.pad(scene.has_cell.to(fine.dtype), pad)[:, None], POOL)
        pooled = F.avg_pool2d(F.pad(fine.permute(0, 3, 1, 2), pad), POOL) / share.clamp(min=1e-6)
        no_coarse, size = (share == 0).flatten(1), pooled.shape[2:]
        coarse = pooled.flatten(2).transpose(1, 2)
        for layer in self.scene:
            coarse = layer(coarse, words, tgt_key_padding_mask=no_coarse, memory_key_padding_mask=no_word)
        coarse = coarse * ~no_coarse[..., None]
        spread = F.interpolate(coarse.transpose(1, 2).unflatten(2, size), scale_factor=POOL)
        spread = spread[:, :, :height, :width].permute(0, 2, 3, 1)
        return self.seen(fine + spread).flatten(1, 2), coarse, no_coarse

    def _anchors(self, middles: Tensor, scene: Scene) -> Int[Tensor, "b s"]:
        """The map's peak, and the strongest cells that are the strongest of their window; others where there
        are too few.
        """
        grid = middles.unflatten(1, scene.grid)[:, None]
        strongest = F.max_pool2d(grid, APART, 1, APART // 2) == grid
        strength = middles + RELEVANT * scene.relevance.flatten(1)
        strength = torch.where(strongest.flatten(1), strength, strength - 100)
        peak = scene.relevance.flatten(1).argmax(1, keepdim=True)
        strength = strength.scatter(1, peak, 100.0)
        count = min(self.sets, strength.shape[1])
        chosen = strength.masked_fill(~scene.has_cell.flatten(1), -1e4).topk(count, 1).indices
        return torch.cat([chosen, chosen[:, :1].expand(-1, self.sets - count)], 1)

    def _shapes(self, queries: Tensor, cells: Tensor, at: Tensor, xy: Tensor) -> Float[Tensor, "b s n"]:
        asked = self.shape(queries)
        likeness = torch.einsum("bsw,bnw->bsn", asked[..., :-2], self.form(cells)) / cells.shape[-1] ** 0.5
        away = (at[:, :, None] - xy[:, None]).square().sum(-1)
        return likeness + asked[..., -2:-1] - 50 * away * asked[..., -1:].exp()

    def _looks(self, queries: Tensor, cells: Tensor, shapes: Tensor, has: Tensor) -> Float[Tensor, "b s j n"]:
        """The first half of the points looks inside the shape, the other outside of it."""
        pointers = self.look(queries).unflatten(2, (self.points - 1, -1))
        likeness = torch.einsum("bskw,bnw->bskn", pointers, self.where(cells)) / pointers.shape[-1] ** 0.5
        inside = (self.points - 1) // 2
        sides = (
            torch.stack([F.logsigmoid(shapes)] * inside, 2),
            torch.stack([F.logsigmoid(-shapes)] * (self.points - 1 - inside), 2),
        )
        likeness = likeness + 2 * torch.cat(sides, 2)
        return likeness.masked_fill(~has[:, None, None], -1e4).softmax(-1)

    def _classes(
        self, queries: Tensor, cells: Tensor, looks: Tensor, away: Tensor, shapes: Tensor
    ) -> Float[Tensor, "b s k 3"]:
        """Of each point by where it came to lie: what is seen there, how far from the anchor, how much of
        the shape. The anchor is positive: whether its thing is meant is the judge's to say.
        """
        seen = torch.einsum("bskn,bnw->bskw", looks, cells)
        within = torch.einsum("bskn,bsn->bsk", looks, shapes.detach().sigmoid())[..., None]
        blur = looks.square().sum(-1, keepdim=True)
        whole = queries[:, :, None].expand(-1, -1, self.points, -1)
        classes = self.classes(torch.cat([whole, seen, away, within, blur], -1))
        never = torch.zeros(self.points, 3, dtype=torch.bool, device=classes.device)
        never[0, [NEGATIVE, IGNORED]] = True  # the anchor
        never[:, IGNORED] |= not self.ignore
        return classes.masked_fill(never, NEVER)


class _Place(nn.Module):
    """A place in [0, 1]^2 as sines and cosines of eight wavelengths each way, projected."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("waves", torch.pi * 2.0 ** torch.arange(8) / 2, persistent=False)
        self.project = nn.Linear(32, width)

    def forward(self, xy: Float[Tensor, "b n 2"]) -> Float[Tensor, "b n w"]:
        phases = (xy[..., None] * self.get_buffer("waves")).flatten(2)
        return self.project(torch.cat([phases.sin(), phases.cos()], -1))


def _picked(values: Float[Tensor, "b n w"], cells: Int[Tensor, "b s"]) -> Float[Tensor, "b s w"]:
    return values.gather(1, cells[..., None].expand(-1, -1, values.shape[2]))


def _layer(width: int, heads: int) -> nn.TransformerDecoderLayer:
    """Self-attention, cross-attention to a memory, and an MLP; normalised before each."""
    return nn.TransformerDecoderLayer(
        width, heads, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
