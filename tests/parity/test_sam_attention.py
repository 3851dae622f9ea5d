"""SAM's attention in pieces against SAM's own: the same bits, but for matrices of a few cells."""

import copy

import pytest
import torch
from segment_anything.modeling import ImageEncoderViT
from segment_anything.modeling.image_encoder import Attention

from ppt.backbones import sam_attention
from ppt.backbones.sam_attention import PiecewiseAttention, in_pieces


@pytest.fixture(scope="module")
def encoder():
    """6 x 6 cells, one block of windows of 4 and one that sees all."""
    torch.manual_seed(0)
    vit = ImageEncoderViT(
        img_size=96, patch_size=16, embed_dim=24, depth=2, num_heads=3, out_chans=8,
        use_rel_pos=True, window_size=4, global_attn_indexes=(1,),
    )  # fmt: skip
    for name, value in vit.named_parameters():
        if "rel_pos" in name or "pos_embed" in name:
            torch.nn.init.normal_(value, std=0.5)
    return vit.eval().requires_grad_(False)


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("piece", [1, 36 * 6, 36 * 12, 16 * 16 * 2, 16 * 16 * 5, 2**20])
def test_pieces_of_every_size_give_the_same_bits(encoder, monkeypatch, piece, bfloat16):
    monkeypatch.setattr(sam_attention, "PIECE", piece)
    ours = copy.deepcopy(encoder)
    in_pieces(ours)
    assert sum(type(module) is PiecewiseAttention for module in ours.modules()) == 2
    assert sum(type(module) is Attention for module in encoder.modules()) == 2
    images = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        wanted, found = encoder(images), ours(images)
    assert torch.equal(found, wanted)
    assert float(wanted.std()) > 0.1


def test_without_positions_too(monkeypatch):
    monkeypatch.setattr(sam_attention, "PIECE", 30)
    torch.manual_seed(0)
    plain = Attention(24, 3, use_rel_pos=False).eval()
    x = torch.randn(2, 5, 3, 24)
    wanted = plain(x)
    in_pieces(plain)
    torch.testing.assert_close(plain(x), wanted, rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("images", "side"), [(1, 64), (25, 14)])
@pytest.mark.parametrize("bfloat16", [False, True])
def test_the_same_bits_at_the_sizes_of_vit_b(images, side, bfloat16):
    torch.manual_seed(0)
    attention = Attention(768, 12, use_rel_pos=True, input_size=(side, side)).eval()
    for place in (attention.rel_pos_h, attention.rel_pos_w):
        torch.nn.init.normal_(place, std=0.1)
    x = torch.randn(images, side, side, 768)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        wanted = attention(x)
        in_pieces(attention)
        assert torch.equal(attention(x), wanted)
