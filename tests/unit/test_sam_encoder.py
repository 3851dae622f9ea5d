"""The embedded SAM's image encoder: its shapes, what a feature holds, what it is told."""

import pytest
import timm
import torch

from ppt.backbones.sam_encoder import CELL, ConvEncoder, ImageNetFeatures


@pytest.fixture(scope="module")
def encoder() -> ConvEncoder:
    torch.manual_seed(0)
    return ConvEncoder(64, [8, 8, 16, 32], out_chans=24).eval()


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


@pytest.mark.parametrize("level", range(4))
def test_what_imagenet_knows_reaches_every_feature(level):
    """At each of its four levels, once its projection has learned anything."""
    torch.manual_seed(0)
    encoder = ConvEncoder(64, [8, 8, 16, 32], out_chans=24).eval()
    with torch.no_grad():
        before = encoder(images())
        torch.nn.init.normal_(encoder.told[level].weight)
        assert ((encoder(images()) - before).abs().amax(1) > 1e-3).all()


def test_imagenet_features_are_timms():
    """The same weights give what timm's own model gives on its way."""
    own = ImageNetFeatures()
    for layer in own.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(layer.running_var, 0.5, 2)
    whole = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(1, 2, 3)).eval()
    whole.load_state_dict(own.state_dict(), strict=False)
    imagenet = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = whole((pixels * 255 - 127) / 128)[:3]
        expected.append(whole.blocks[5][:3](expected[2]))
    found = own((pixels - imagenet[0]) / imagenet[1])
    assert [m.shape[1] for m in found] == list(ImageNetFeatures.CHANNELS)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_imagenet_features_stay_as_they_are_while_the_rest_learns():
    learning = ConvEncoder(64, [8, 8, 16, 32], out_chans=24).train()
    torch.nn.init.ones_(learning.told[3].weight)
    before = {name: value.clone() for name, value in learning.known.state_dict().items()}
    learning(images(2)).square().mean().backward()
    assert all(p.grad is None for p in learning.known.parameters())
    assert learning.told[3].weight.grad.abs().sum() > 0
    assert learning.training
    assert all(torch.equal(value, before[name]) for name, value in learning.known.state_dict().items())
