"""The embedded SAM's image encoder: its shapes, what a feature holds, how far it sees."""

import pytest
import torch

from ppt.backbones.sam_encoder import CELL, ConvViTEncoder


@pytest.fixture(scope="module")
def encoder() -> ConvViTEncoder:
    torch.manual_seed(0)
    return ConvViTEncoder(64, [8, 8, 16, 32], depth=2, num_heads=2, mlp_ratio=2, out_chans=24).eval()


def images(count: int = 1) -> torch.Tensor:
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def test_shapes(encoder):
    finest, eighths = encoder.maps(images(2))
    assert finest.shape == (2, 8, 32, 32)
    assert eighths.shape == (2, 16, 8, 8)
    assert encoder(images(2)).shape == (2, 24, 64 // CELL, 64 // CELL)


def test_an_image_is_encoded_the_same_alone_and_in_a_batch(encoder):
    both = images(2)
    with torch.no_grad():
        torch.testing.assert_close(encoder(both)[1:], encoder(both[1:]), rtol=1e-4, atol=1e-5)


def test_a_feature_holds_all_positions_of_its_cell(encoder):
    """Without its surroundings, each of the cell's 4 x 4 finest positions changes it, and no other does."""
    finest = torch.randn(1, 8, 32, 32, generator=torch.Generator().manual_seed(2), requires_grad=True)
    encoder.pack(finest)[0, :, 3, 5].sum().backward()
    changed = finest.grad[0].abs().sum(0) > 0
    assert changed[12:16, 20:24].all()
    assert changed.sum() == 16


def test_every_feature_sees_the_whole_image():
    """Through the ViT blocks: the convolutions see some 110 pixels far, and GroupNorm is taken out here."""
    torch.manual_seed(0)
    encoder = ConvViTEncoder(256, [4, 4, 4, 8], depth=1, num_heads=2, mlp_ratio=1, out_chans=8)
    for part in list(encoder.modules()):
        for name, child in part.named_children():
            if isinstance(child, torch.nn.GroupNorm):
                setattr(part, name, torch.nn.Identity())
    seen = torch.randn(1, 3, 256, 256, requires_grad=True)
    encoder(seen)[0, :, 0, 0].square().sum().backward()
    assert (seen.grad[0, :, -1, -1] != 0).all()
