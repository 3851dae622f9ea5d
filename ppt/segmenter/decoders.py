"""One map, the words and the sentence -> a mask, or where to click for one.

dynamic (CRIS, Wang et al., CVPR 2022, sections 3.2 and 3.3): cells read the words, the map is enlarged, and
the sentence makes the kernel that is laid over it.
query (after SAM's mask decoder, Kirillov et al. 2023, appendix A): a query that begins as the sentence reads
the cells and is read by them; what it comes to is compared with every pixel of the enlarged map.
point (ours): the same query is compared with the cells alone, twice: for a coarse mask, and for the one place
to click, on which all cells compete. The mask itself is SAM's for that click.

dynamic and query draw at four times the map's resolution. What CLIP's cells are too coarse for they can read
from the image itself: `detail` channels of a few convolutions join the enlarged map (after ViT-Adapter's
spatial prior, Chen et al., ICLR 2023).
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ppt.segmenter.layers import Attention, FeedForward, as_map, convolution, resized, rows, waves

Decoder = Literal["dynamic", "query", "point"]
ENLARGED = 4
"""How much finer dynamic and query draw than the map they draw from."""


@dataclass(frozen=True)
class Drawn:
    """The mask as logits, and the pixels that they were read from, on one grid; of point, the logits of the
    click on that grid, and the query as it has become.
    """

    logits: Float[Tensor, "b 1 h w"]
    pixels: Float[Tensor, "b c h w"]
    click: Float[Tensor, "b 1 h w"] | None = None
    asked: Float[Tensor, "b c"] | None = None


def spread(click: Float[Tensor, "b 1 h w"], there: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b h w"]:
    """The softmax of a click's logits over the cells of the image. there: the share of each in the image, of
    which a panorama fills none.
    """
    outside = there < there.amax((2, 3), keepdim=True) / 2
    share = click.float().masked_fill(outside, -torch.inf).flatten(1).softmax(1)
    return share.unflatten(1, (int(click.shape[-2]), int(click.shape[-1])))


class Dynamic(nn.Module):
    """Layers of self-attention, attention to the words, and a feed-forward layer; then the kernel."""

    def __init__(self, words: int, sentence: int, width: int, layers: int, detail: int = 0) -> None:
        super().__init__()
        self.words = nn.Linear(words, width)
        self.itself = nn.ModuleList([Attention(width) for _ in range(layers)])
        self.read = nn.ModuleList([Attention(width) for _ in range(layers)])
        self.rest = nn.ModuleList([FeedForward(width) for _ in range(layers)])
        self.enlarge = Enlarge(width, width // 2, detail)
        self.channels = width // 2
        self.kernel = nn.Linear(sentence, 9 * self.channels + 1)

    def forward(
        self,
        cells: Float[Tensor, "b c h w"],
        words: Float[Tensor, "b t d"],
        there: Bool[Tensor, "b t"],
        sentence: Float[Tensor, "b e"],
        images: Float[Tensor, "u 3 y x"],
        of: Int[Tensor, " b"],
    ) -> Drawn:
        """images: all of them; of: which of them each map is of."""
        grid = int(cells.shape[-2]), int(cells.shape[-1])
        x, known, where = rows(cells), self.words(words), waves(cells)
        for itself, read, rest in zip(self.itself, self.read, self.rest, strict=True):
            x = itself(x, where=where, keys_where=where)
            x = rest(read(x, known, ~there, where=where))
        pixels = self.enlarge(as_map(x, grid), images, of)
        count, channels, high, wide = pixels.shape
        kernel = self.kernel(sentence)
        weight = kernel[:, :-1].reshape(count, channels, 3, 3) * channels**-0.5
        # A group for each sentence: its own kernel over its own map.
        logits = F.conv2d(pixels.reshape(1, -1, high, wide), weight, kernel[:, -1], padding=1, groups=count)
        return Drawn(logits.transpose(0, 1), pixels)


class Query(nn.Module):
    """`Exchanged`, then the query against the pixels of the enlarged map."""

    def __init__(self, words: int, sentence: int, width: int, layers: int, detail: int = 0) -> None:
        super().__init__()
        self.exchanged = Exchanged(words, sentence, width, layers)
        self.enlarge = Enlarge(width, width // 2, detail)
        self.channels = width // 2
        self.kernel = _perceptron(width, self.channels)
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(
        self,
        cells: Float[Tensor, "b c h w"],
        words: Float[Tensor, "b t d"],
        there: Bool[Tensor, "b t"],
        sentence: Float[Tensor, "b e"],
        images: Float[Tensor, "u 3 y x"],
        of: Int[Tensor, " b"],
    ) -> Drawn:
        """images: all of them; of: which of them each map is of."""
        asked, cells = self.exchanged(cells, words, there, sentence)
        pixels = self.enlarge(cells, images, of)
        return Drawn(_compared(pixels, self.kernel(asked)) + self.bias, pixels)


class Point(nn.Module):
    """`Exchanged`, then the query against the cells."""

    def __init__(self, words: int, sentence: int, width: int, layers: int, detail: int = 0) -> None:
        super().__init__()
        self.exchanged = Exchanged(words, sentence, width, layers)
        self.norm = nn.GroupNorm(1, width)
        self.channels = width
        self.kernel, self.spot = _perceptron(width, width), _perceptron(width, width)
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(
        self,
        cells: Float[Tensor, "b c h w"],
        words: Float[Tensor, "b t d"],
        there: Bool[Tensor, "b t"],
        sentence: Float[Tensor, "b e"],
        images: Float[Tensor, "u 3 y x"],
        of: Int[Tensor, " b"],
    ) -> Drawn:
        """Of the images nothing is read."""
        asked, cells = self.exchanged(cells, words, there, sentence)
        cells = self.norm(cells)
        logits = _compared(cells, self.kernel(asked)) + self.bias
        return Drawn(logits, cells, _compared(cells, self.spot(asked)), asked)


class Exchanged(nn.Module):
    """A query and the words, and the cells, after layers in which each reads the other."""

    def __init__(self, words: int, sentence: int, width: int, layers: int) -> None:
        super().__init__()
        self.words, self.sentence = nn.Linear(words, width), nn.Linear(sentence, width)
        self.query = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.layers = nn.ModuleList([_Exchange(width) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)

    def forward(
        self,
        cells: Float[Tensor, "b c h w"],
        words: Float[Tensor, "b t d"],
        there: Bool[Tensor, "b t"],
        sentence: Float[Tensor, "b e"],
    ) -> tuple[Float[Tensor, "b c"], Float[Tensor, "b c h w"]]:
        """The query and the cells."""
        grid = int(cells.shape[-2]), int(cells.shape[-1])
        x, where = rows(cells), waves(cells)
        tokens = torch.cat([self.query + self.sentence(sentence)[:, None], self.words(words)], 1)
        missing = torch.cat([torch.zeros_like(there[:, :1]), ~there], 1)
        for layer in self.layers:
            tokens, x = layer(tokens, x, missing, where)
        return self.norm(tokens[:, 0]), as_map(x, grid)


class _Exchange(nn.Module):
    """Tokens read themselves and the cells; then the cells read themselves, for what is meant depends on what
    else is there, and the tokens.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.tokens_itself, self.look, self.tokens_rest = (
            Attention(width),
            Attention(width),
            FeedForward(width),
        )
        self.cells_itself, self.answer, self.cells_rest = (
            Attention(width),
            Attention(width),
            FeedForward(width),
        )

    def forward(
        self,
        tokens: Float[Tensor, "b t c"],
        cells: Float[Tensor, "b n c"],
        missing: Bool[Tensor, "b t"],
        where: Float[Tensor, "1 n c"],
    ) -> tuple[Float[Tensor, "b t c"], Float[Tensor, "b n c"]]:
        tokens = self.tokens_itself(tokens, missing=missing)
        tokens = self.tokens_rest(self.look(tokens, cells, keys_where=where))
        cells = self.cells_itself(cells, where=where, keys_where=where)
        return tokens, self.cells_rest(self.answer(cells, tokens, missing, where=where))


def _perceptron(width: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, out))


def _compared(pixels: Float[Tensor, "b c h w"], asked: Float[Tensor, "b c"]) -> Float[Tensor, "b 1 h w"]:
    """Scalar products over the root of the width."""
    return torch.einsum("bchw,bc->bhw", pixels, asked)[:, None] * pixels.shape[1] ** -0.5


class Enlarge(nn.Module):
    """To four times the resolution in two steps, each enlarged bilinearly and convolved; the image's detail
    joins before the last.
    """

    def __init__(self, width: int, out: int, detail: int) -> None:
        super().__init__()
        self.first, self.second = convolution(width, width, 3), convolution(width + detail, out, 3)
        self.last = nn.Conv2d(out, out, 1)
        self.detail = None
        if detail:
            steps = (
                convolution(3, detail, 3, 2),
                convolution(detail, detail, 3, 2),
                convolution(detail, detail, 3),
            )
            self.detail = nn.Sequential(*steps)

    def forward(
        self, cells: Float[Tensor, "b c h w"], images: Float[Tensor, "u 3 y x"], of: Int[Tensor, " b"]
    ) -> Float[Tensor, "b k _ _"]:
        cells = _doubled(self.first(_doubled(cells)))
        if self.detail is not None:
            grid = int(cells.shape[-2]), int(cells.shape[-1])
            detail = resized(self.detail(images), grid).index_select(0, of)  # as in the neck, for its order
            cells = torch.cat([cells, detail], 1)
        return self.last(self.second(cells))


def _doubled(cells: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c _ _"]:
    return F.interpolate(cells, scale_factor=2, mode="bilinear", align_corners=False)
