"""SAM's attentions as a processor likes them.

*In pieces* that stay in its cache, those of the image encoder. SAM's own adds its positions to a matrix of
all queries by all keys, 0.8 GB for the 64 x 64 cells of a ViT-B, which then goes through memory five times.
Here the same operations run on some of its rows at a time. At the sizes of SAM's models the bits are the
same; where a matrix product rounds otherwise for few rows, as those of very few cells may, they are not.

*Cells last*, those of the mask decoder from thousands of cells to a few tokens. Over rows of less than 16
numbers torch's softmax is some twenty times slower than over columns. The same sums in another order: what
comes out differs by some 1e-6.
"""

import math

import torch
from jaxtyping import Float
from segment_anything.modeling.image_encoder import Attention, get_rel_pos
from segment_anything.modeling.transformer import Attention as TokenAttention
from torch import Tensor, nn

PIECE = 2**20
"""Numbers of that matrix at a time."""
FEW = 16
"""Numbers in a row below which torch's softmax takes them one by one."""


class PiecewiseAttention(Attention):
    """`Attention`, whose parameters it shares, in pieces; for a frozen encoder."""

    def forward(self, x: Float[Tensor, "b h w c"]) -> Float[Tensor, "b h w c"]:
        """As `Attention.forward`."""
        b, h, w, _ = x.shape
        n = h * w
        qkv = self.qkv(x).reshape(b, n, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.reshape(3, b * self.num_heads, n, -1).unbind(0)
        scaled, keys = q * self.scale, k.transpose(-2, -1)
        rel_h, rel_w = self._positions(q, h, w) if self.use_rel_pos else (None, None)
        out = torch.empty_like(v)
        heads = max(1, PIECE // (n * n))
        rows = h if heads > 1 else max(1, PIECE // (n * w))
        for head in range(0, len(q), heads):
            own = slice(head, head + heads)
            for row in range(0, h, rows):
                part, cells = slice(row, row + rows), slice(row * w, (row + rows) * w)
                attention = scaled[own, cells] @ keys[own]
                if rel_h is not None and rel_w is not None:
                    m = attention.shape[0]
                    places = attention.view(m, -1, w, h, w)
                    places = places + rel_h[own, part, :, :, None] + rel_w[own, part, :, None, :]
                    attention = places.view(m, -1, n)
                out[own, cells] = attention.softmax(-1).to(v.dtype) @ v[own]
        whole = out.view(b, self.num_heads, h, w, -1).permute(0, 2, 3, 1, 4).reshape(b, h, w, -1)
        return self.proj(whole)

    def _positions(self, q: Tensor, h: int, w: int) -> tuple[Tensor, Tensor]:
        cells = q.reshape(len(q), h, w, -1)
        rel_h = torch.einsum("bhwc,hkc->bhwk", cells, get_rel_pos(h, h, self.rel_pos_h))
        return rel_h, torch.einsum("bhwc,wkc->bhwk", cells, get_rel_pos(w, w, self.rel_pos_w))


class CellsLastAttention(TokenAttention):
    """The decoder's `Attention`, whose parameters it shares, with few tokens in columns of many cells."""

    def forward(
        self, q: Float[Tensor, "b n c"], k: Float[Tensor, "b m c"], v: Float[Tensor, "b m c"]
    ) -> Float[Tensor, "b n c"]:
        """As `Attention.forward`."""
        if k.shape[1] >= FEW:
            return super().forward(q, k, v)
        queries, keys, values = (
            self._separate_heads(project(x), self.num_heads)
            for project, x in ((self.q_proj, q), (self.k_proj, k), (self.v_proj, v))
        )
        attention = keys @ queries.transpose(-2, -1) / math.sqrt(queries.shape[-1])
        return self.out_proj(self._recombine_heads(attention.softmax(-2).transpose(-2, -1) @ values))


_OURS = {Attention: PiecewiseAttention, TokenAttention: CellsLastAttention}


def for_processor(network: nn.Module) -> None:
    """Let every attention of SAM under `network` that is on a processor work so from now on."""
    for module in network.modules():
        if type(module) in _OURS and next(module.parameters()).device.type == "cpu":
            module.__class__ = _OURS[type(module)]


def as_published(network: nn.Module) -> None:
    """Undo `for_processor`."""
    theirs = {ours: published for published, ours in _OURS.items()}
    for module in network.modules():
        if type(module) in theirs:
            module.__class__ = theirs[type(module)]
