"""Which of several things a sentence means: the reading of names, places, sizes and relations.

A map of the whole sentence cannot tell two things of one name apart, and lights up the bus in "the dog left
of the bus" too. So each thing is described by where it lies, how large it is, how relevant it is to the
sentence and to every word of it; and it is *compared*: with the image's middle, and with its rivals, the
other things weighted by how relevant they are. What a word of place asks of these comparisons is linear
("left": less x than the rivals), which is why little data teaches it; a transformer over things and words
adds the rest. The design is ours: of PPT (Dai & Yang, CVPR 2024) no more is known than that a query has a
confidence.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ppt.points.scene import WORDS, Scene

SHARP = 10.0
"""How much more a rival counts for its relevance: e^SHARP from none to full."""
LINEAR = 4.0
"""Scale of the linear part, whose comparisons are small numbers."""
PRIOR = 10.0
"""What full relevance adds to a logit before anything is learned: CLIP knows more names than the pairs that
teach the judge have.
"""
_DESCRIPTION, _COMPARISON = 9, 6


class Judge(nn.Module):
    """(`Scene`, things) -> logits to be compared: which thing the sentence means.

    dimension: of CLIP's joint space. identity: what of a word's vector is kept; few numbers, so that words of
    place are learned and not the names of the things that taught them.
    """

    common: Float[Tensor, " d"]

    def __init__(
        self, dimension: int, width: int = 64, identity: int = 32, layers: int = 2, heads: int = 4
    ) -> None:
        super().__init__()
        self.register_buffer("common", torch.zeros(dimension))
        self.describe = nn.Sequential(
            nn.Linear(_DESCRIPTION + _COMPARISON, width), nn.GELU(), nn.Linear(width, width)
        )
        self.word = nn.Sequential(nn.Linear(dimension, identity), nn.Linear(identity, width))
        self.order = nn.Parameter(0.1 * torch.randn(WORDS, width))
        self.lit = nn.Sequential(nn.Linear(2, width), nn.GELU(), nn.Linear(width, width))
        self.weigh = nn.Linear(dimension, 1)
        self.wanted = nn.Sequential(nn.Linear(dimension, width), nn.GELU(), nn.Linear(width, _COMPARISON))
        self.layers = nn.ModuleList([_Layer(width, heads) for _ in range(layers)])
        self.score = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 1))

    def forward(
        self, scene: Scene, things: Float[Tensor, "b s n"], there: Bool[Tensor, "b s"]
    ) -> Float[Tensor, "b s"]:
        """things: the share of each of the n = h * w cells that each thing covers, in [0, 1]. there: False
        for padding, whose logit is -1e4.
        """
        described, q = _described(scene, things)
        compared = _compared(q, described[..., _RELEVANT], others(things, there))
        words = 3 * (scene.identity - self.common) * scene.has_word[..., None]
        share = self.weigh(words)[..., 0].masked_fill(~scene.has_word, -torch.inf).softmax(-1)
        wanted = self.wanted(torch.einsum("bt,btd->bd", share, words))
        x = self.describe(torch.cat([described, 4 * compared], -1))
        lit = _lit(scene, things)
        best = lit.masked_fill(~there[..., None], -1e4).amax(1, keepdim=True)
        known = self.word(words) + self.order[: words.shape[1]]
        memory = known[:, None] + self.lit(torch.stack([lit, lit - best], -1))
        for layer in self.layers:
            x = layer(x, ~there, memory, ~scene.has_word)
        relevant = described[..., _RELEVANT : _RELEVANT + 2].mean(-1)
        logits = self.score(x)[..., 0] + LINEAR * torch.einsum("bsc,bc->bs", compared, wanted)
        logits = logits + PRIOR * relevant
        return logits.masked_fill(~there, -1e4)


class _Layer(nn.Module):
    """Things look at each other, then each at the words as they are lit by it; normalised before each."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(3)])
        self.things = nn.MultiheadAttention(width, heads, batch_first=True)
        self.words = nn.MultiheadAttention(width, heads, batch_first=True)
        self.rest = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor, no_thing: Tensor, memory: Tensor, no_word: Tensor) -> Float[Tensor, "b s w"]:
        y = self.norms[0](x)
        x = x + self.things(y, y, y, key_padding_mask=no_thing, need_weights=False)[0]
        y, rows = self.norms[1](x).flatten(0, 1)[:, None], memory.flatten(0, 1)
        unread = no_word[:, None].expand(-1, x.shape[1], -1).flatten(0, 1)
        x = x + self.words(y, rows, rows, key_padding_mask=unread, need_weights=False)[0].view_as(x)
        return x + self.rest(self.norms[2](x))


_RELEVANT = 3


def _described(scene: Scene, things: Tensor) -> tuple[Float[Tensor, "b s 9"], Float[Tensor, "b s 3"]]:
    """Each thing alone: centre, root of its area, relevance inside (mean, most) and outside, extents, and the
    correlation with the map. And what is compared: centre and half the logarithm of the area's root.
    """
    has = scene.has_cell.flatten(1).to(things.dtype)[:, None]
    xy, relevance = scene.xy.flatten(1, 2), scene.relevance.flatten(1)[:, None]
    things, cells = things * has, has.sum(-1, keepdim=True)
    size = things.sum(-1, keepdim=True)
    inside = things / size.clamp(min=1e-3)
    centre = torch.einsum("bsn,bnc->bsc", inside, xy)
    square = torch.einsum("bsn,bnc->bsc", inside, xy.square())
    extent = (square - centre.square()).clamp(min=1e-8).sqrt()
    root = (size / cells).clamp(min=1e-6).sqrt()
    mean = (inside * relevance).sum(-1, keepdim=True)
    most = (things.gt(0.3) * relevance).amax(-1, keepdim=True)
    rest = (has - things).clamp(min=0)
    outside = (rest * relevance).sum(-1, keepdim=True) / rest.sum(-1, keepdim=True).clamp(min=1e-3)
    agreement = _correlation(things, relevance.expand_as(things), has, cells)
    described = torch.cat([centre, 2 * root, mean, most, 4 * extent, outside, agreement], -1)
    return described, torch.cat([centre, root.log() / 2], -1)


def _correlation(a: Tensor, b: Tensor, has: Tensor, cells: Tensor) -> Float[Tensor, "b s 1"]:
    a = (a - (a * has).sum(-1, keepdim=True) / cells) * has
    b = (b - (b * has).sum(-1, keepdim=True) / cells) * has
    scale = (a.square().sum(-1, keepdim=True) * b.square().sum(-1, keepdim=True)).clamp(min=1e-8).sqrt()
    return (a * b).sum(-1, keepdim=True) / scale


def others(things: Float[Tensor, "b s n"], there: Bool[Tensor, "b s"]) -> Bool[Tensor, "b s s"]:
    """Which things are other things: two that share half of the smaller are one, found twice."""
    both = torch.einsum("bsn,brn->bsr", things, things)
    size = things.square().sum(-1)
    smaller = torch.minimum(size[:, :, None], size[:, None])
    return there[:, None] & there[..., None] & (both < 0.5 * smaller)


def _compared(q: Tensor, relevance: Tensor, rival: Tensor) -> Float[Tensor, "b s 6"]:
    """Each thing less the mean of its rivals, and less the image's middle."""
    weight = (SHARP * relevance)[:, None].masked_fill(~rival, -1e4).softmax(-1) * rival
    against = (q - weight @ q) * rival.any(-1, keepdim=True)
    middle = torch.tensor([0.5, 0.5, -0.5], device=q.device, dtype=q.dtype)
    return torch.cat([against, q - middle], -1)


def _lit(scene: Scene, things: Tensor) -> Float[Tensor, "b s t"]:
    """How much more than the image each thing is lit by each word, in standard deviations of all the words'
    maps: what a cosine is worth differs from one CLIP to another.
    """
    has = scene.has_cell.flatten(1).to(things.dtype)
    cells = scene.cells.flatten(1, 2)
    inside = things * has[:, None]
    inside = inside / inside.sum(-1, keepdim=True).clamp(min=1e-3)
    maps = torch.einsum("bnd,btd->btn", cells, scene.words)
    count = has.sum(-1)[:, None, None]
    mean = (maps * has[:, None]).sum(-1, keepdim=True) / count
    variance = ((maps - mean).square() * has[:, None]).sum(-1, keepdim=True) / count
    read = scene.has_word[..., None].to(things.dtype)
    spread = ((variance * read).sum(1, keepdim=True) / read.sum(1, keepdim=True)).clamp(min=1e-8).sqrt()
    return torch.einsum("bsn,btn->bst", inside, (maps - mean) / spread)
