"""SAM's attentions as a processor likes them against SAM's own."""

import copy

import pytest
import torch
from segment_anything.modeling import ImageEncoderViT
from segment_anything.modeling.image_encoder import Attention
from segment_anything.modeling.transformer import Attention as TokenAttention

from ppt.backbones import sam_attention
from ppt.backbones.sam_attention import (
    FEW,
    CellsLastAttention,
    PiecewiseAttention,
    as_published,
    for_processor,
)


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
    for_processor(ours)
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
    for_processor(plain)
    torch.testing.assert_close(plain(x), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("cells", "tokens"), [(81, 7), (81, FEW - 1), (81, FEW), (7, 81), (1, 1)])
def test_the_decoders_attention_has_the_same_sums_and_gradients(cells, tokens):
    torch.manual_seed(0)
    ours = TokenAttention(32, 4, downsample_rate=2)
    published = copy.deepcopy(ours)
    for_processor(ours)
    assert type(ours) is CellsLastAttention
    made = []
    for attention in (ours, published):
        given = [torch.randn(2, n, 32, generator=torch.Generator().manual_seed(n)) for n in (cells, tokens)]
        q, k = (x.requires_grad_() for x in given)
        out = attention(q, k, k * 2)
        out.square().sum().backward()
        made.append((out, q.grad, k.grad))
    for found, wanted in zip(*made, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    assert made[0][0].std().item() > 0.01


def test_what_was_made_for_a_processor_can_be_undone(encoder):
    network = torch.nn.ModuleList([copy.deepcopy(encoder), TokenAttention(32, 4)])
    for_processor(network)
    as_published(network)
    kinds = [type(module) for module in network.modules() if isinstance(module, Attention | TokenAttention)]
    assert kinds == [Attention, Attention, TokenAttention]


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
        for_processor(attention)
        assert torch.equal(attention(x), wanted)
