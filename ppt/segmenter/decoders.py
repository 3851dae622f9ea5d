"""One map, the words and the sentence -> a mask at four times the map's resolution.

What CLIP's cells are too coarse for can be read from the image itself: `detail` channels of a few
convolutions join the enlarged map (after ViT-Adapter's spatial prior, Chen et al., ICLR 2023).

dynamic (CRIS, Wang et al., CVPR 2022, sections 3.2 and 3.3): cells read the words, the map is enlarged, and
the sentence makes the kernel that is laid over it.
query (after SAM's mask decoder, Kirillov et al. 2023, appendix A): a query that begins as the sentence reads
the cells and is read by them; what it comes to is compared with every pixel of the enlarged map.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ppt.segmenter.layers import Attention, FeedForward, as_map, convolution, resized, rows, waves

Decoder = Literal["dynamic", "query"]
HEADS = 8
ENLARGED = 4
"""How much finer a mask is drawn than the map it is drawn from."""


@dataclass(frozen=True)
class Drawn:
    """The mask as logits, and the pixels that they were read from, both on four times the map's grid."""

    logits: Float[Tensor, "b 1 h w"]
    pixels: Float[Tensor, "b c h w"]


class Dynamic(nn.Module):
    """Layers of self-attention, attention to the words, and a feed-forward layer; then the kernel."""

    def __init__(self, words: int, sentence: int, width: int, layers: int, detail: int = 0) -> None:
        super().__init__()
        self.words = nn.Linear(words, width)
        self.itself = nn.ModuleList([Attention(width, HEADS) for _ in range(layers)])
        self.read = nn.ModuleList([Attention(width, HEADS) for _ in range(layers)])
        self.rest = nn.ModuleList([FeedForward(width) for _ in range(layers)])
        self.enlarge = Enlarge(width, width // 2, detail)
        self.kernel = nn.Linear(sentence, 9 * (width // 2) + 1)

    def forward(
        self,
        cells: Float[Tensor, "b c h w"],
        words: Float[Tensor, "b t d"],
        there: Bool[Tensor, "b t"],
        sentence: Float[Tensor, "b e"],
        image: Float[Tensor, "b 3 y x"],
    ) -> Drawn:
        grid = int(cells.shape[-2]), int(cells.shape[-1])
        x, known, where = rows(cells), self.words(words), waves(cells)
        for itself, read, rest in zip(self.itself, self.read, self.rest, strict=True):
            x = itself(x, where=where, keys_where=where)
            x = rest(read(x, known, ~there, where=where))
        pixels = self.enlarge(as_map(x, grid), image)
        count, channels, high, wide = pixels.shape
        kernel = self.kernel(sentence)
        weight = kernel[:, :-1].reshape(count, channels, 3, 3) * channels**-0.5
        # A group for each sentence: its own kernel over its own map.
        logits = F.conv2d(pixels.reshape(1, -1, high, wide), weight, kernel[:, -1], padding=1, groups=count)
        return Drawn(logits.transpose(0, 1), pixels)


class Query(nn.Module):
    """Layers in which [query; words] read themselves and the cells, and the cells read them."""

    def __init__(self, words: int, sentence: int, width: int, layers: int, detail: int = 0) -> None:
        super().__init__()
        self.words, self.sentence = nn.Linear(words, width), nn.Linear(sentence, width)
        self.query = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.itself = nn.ModuleList([Attention(width, HEADS) for _ in range(layers)])
        self.look = nn.ModuleList([Attention(width, HEADS) for _ in range(layers)])
        self.rest = nn.ModuleList([FeedForward(width) for _ in range(layers)])
        self.answer = nn.ModuleList([Attention(width, HEADS) for _ in range(layers)])
        self.enlarge = Enlarge(width, width // 2, detail)
        self.norm = nn.LayerNorm(width)
        self.kernel = nn.Sequential(
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, width // 2),
        )
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(
        self,
        cells: Float[Tensor, "b c h w"],
        words: Float[Tensor, "b t d"],
        there: Bool[Tensor, "b t"],
        sentence: Float[Tensor, "b e"],
        image: Float[Tensor, "b 3 y x"],
    ) -> Drawn:
        grid = int(cells.shape[-2]), int(cells.shape[-1])
        x, where = rows(cells), waves(cells)
        tokens = torch.cat([self.query + self.sentence(sentence)[:, None], self.words(words)], 1)
        missing = torch.cat([torch.zeros_like(there[:, :1]), ~there], 1)
        for itself, look, rest, answer in zip(self.itself, self.look, self.rest, self.answer, strict=True):
            tokens = itself(tokens, missing=missing)
            tokens = rest(look(tokens, x, keys_where=where))
            x = answer(x, tokens, missing, where=where)
        pixels = self.enlarge(as_map(x, grid), image)
        kernel = self.kernel(self.norm(tokens[:, 0]))
        logits = torch.einsum("bchw,bc->bhw", pixels, kernel)[:, None] * pixels.shape[1] ** -0.5
        return Drawn(logits + self.bias, pixels)


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
        self, cells: Float[Tensor, "b c h w"], image: Float[Tensor, "b 3 y x"]
    ) -> Float[Tensor, "b k _ _"]:
        cells = _doubled(self.first(_doubled(cells)))
        if self.detail is not None:
            grid = int(cells.shape[-2]), int(cells.shape[-1])
            cells = torch.cat([cells, resized(self.detail(image), grid)], 1)
        return self.last(self.second(cells))


def _doubled(cells: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c _ _"]:
    return F.interpolate(cells, scale_factor=2, mode="bilinear", align_corners=False)
