"""The attention of SAM's image encoder, made in pieces that stay in a processor's cache.

SAM's own adds its positions to a matrix of all queries by all keys, 0.8 GB for the 64 x 64 cells of a ViT-B,
which then goes through memory five times. Here the same operations run on some of its rows at a time. At the
sizes of SAM's models the bits are the same; where a matrix product rounds otherwise for few rows, as those
of very few cells may, they are not.
"""

import torch
from jaxtyping import Float
from segment_anything.modeling.image_encoder import Attention, get_rel_pos
from torch import Tensor, nn

PIECE = 2**20
"""Numbers of that matrix at a time."""


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


def as_published(network: nn.Module) -> None:
    """Undo `in_pieces`."""
    for module in network.modules():
        if type(module) is PiecewiseAttention:
            module.__class__ = Attention  # pyright: ignore[reportAttributeAccessIssue]


def in_pieces(network: nn.Module) -> None:
    """Let every attention of SAM's ViT under `network` that is on a processor work in pieces from now on."""
    for module in network.modules():
        if type(module) is Attention and module.qkv.weight.device.type == "cpu":
            module.__class__ = PiecewiseAttention
