"""MobileSAM: the names and shapes of the published file, and what its layers compute."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ppt.backbones.mobile_sam import TinyViT, build_mobile_sam
from ppt.backbones.published import official_sam
from ppt.backbones.sam import load_sam
from ppt.backbones.weights import WeightsError
from ppt.types import PointSet

NORM = ("weight", "bias", "running_mean", "running_var")
STAGES = {1: (128, 4, 7, 2), 2: (160, 5, 14, 6), 3: (320, 10, 7, 2)}
"""Of TinyViT-5M with attention: channels, heads, window, blocks."""


def convolution(name, outputs, inputs, kernel):
    """One of TinyViT's: a convolution without bias, and its batch norm."""
    yield f"{name}.c.weight", (outputs, inputs, kernel, kernel)
    yield from ((f"{name}.bn.{part}", (outputs,)) for part in NORM)
    yield f"{name}.bn.num_batches_tracked", ()


def linear(name, outputs, inputs):
    yield f"{name}.weight", (outputs, inputs)
    yield f"{name}.bias", (outputs,)


def norm(name, width):
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def image_encoder():
    yield from convolution("patch_embed.seq.0", 32, 3, 3)
    yield from convolution("patch_embed.seq.2", 64, 32, 3)
    for block in range(2):
        yield from convolution(f"layers.0.blocks.{block}.conv1", 256, 64, 1)
        yield from convolution(f"layers.0.blocks.{block}.conv2", 256, 1, 3)
        yield from convolution(f"layers.0.blocks.{block}.conv3", 64, 256, 1)
    for layer, (before, after) in enumerate(((64, 128), (128, 160), (160, 320))):
        yield from convolution(f"layers.{layer}.downsample.conv1", after, before, 1)
        yield from convolution(f"layers.{layer}.downsample.conv2", after, 1, 3)
        yield from convolution(f"layers.{layer}.downsample.conv3", after, after, 1)
    for layer, (width, heads, window, blocks) in STAGES.items():
        for name in (f"layers.{layer}.blocks.{block}" for block in range(blocks)):
            yield f"{name}.attn.attention_biases", (heads, window * window)
            yield from norm(f"{name}.attn.norm", width)
            yield from linear(f"{name}.attn.qkv", 3 * width, width)
            yield from linear(f"{name}.attn.proj", width, width)
            yield from norm(f"{name}.mlp.norm", width)
            yield from linear(f"{name}.mlp.fc1", 4 * width, width)
            yield from linear(f"{name}.mlp.fc2", width, 4 * width)
            yield from convolution(f"{name}.local_conv", width, 1, 3)
    yield from norm("norm_head", 320)
    yield from linear("head", 1000, 320)
    yield "neck.0.weight", (256, 320, 1, 1)
    yield from norm("neck.1", 256)
    yield "neck.2.weight", (256, 256, 3, 3)
    yield from norm("neck.3", 256)


def prompt_encoder():
    yield "pe_layer.positional_encoding_gaussian_matrix", (2, 128)
    yield from ((f"point_embeddings.{kind}.weight", (1, 256)) for kind in range(4))
    yield "not_a_point_embed.weight", (1, 256)
    yield "no_mask_embed.weight", (1, 256)
    for layer, shape in ((0, (4, 1, 2, 2)), (3, (16, 4, 2, 2)), (6, (256, 16, 1, 1))):
        yield f"mask_downscaling.{layer}.weight", shape
        yield f"mask_downscaling.{layer}.bias", shape[:1]
    yield from norm("mask_downscaling.1", 4)
    yield from norm("mask_downscaling.4", 16)


def attention(name, inner):
    for part in ("q_proj", "k_proj", "v_proj"):
        yield from linear(f"{name}.{part}", inner, 256)
    yield from linear(f"{name}.out_proj", 256, inner)


def mask_decoder():
    for layer in ("transformer.layers.0", "transformer.layers.1"):
        yield from attention(f"{layer}.self_attn", 256)
        yield from attention(f"{layer}.cross_attn_token_to_image", 128)
        yield from attention(f"{layer}.cross_attn_image_to_token", 128)
        yield from linear(f"{layer}.mlp.lin1", 2048, 256)
        yield from linear(f"{layer}.mlp.lin2", 256, 2048)
        for index in range(1, 5):
            yield from norm(f"{layer}.norm{index}", 256)
    yield from attention("transformer.final_attn_token_to_image", 128)
    yield from norm("transformer.norm_final_attn", 256)
    yield "iou_token.weight", (1, 256)
    yield "mask_tokens.weight", (4, 256)
    for layer, inputs, outputs in ((0, 256, 64), (3, 64, 32)):
        yield f"output_upscaling.{layer}.weight", (inputs, outputs, 2, 2)
        yield f"output_upscaling.{layer}.bias", (outputs,)
    yield from norm("output_upscaling.1", 64)
    heads = [(f"output_hypernetworks_mlps.{mask}", 32) for mask in range(4)]
    for name, outputs in (*heads, ("iou_prediction_head", 4)):
        for layer, width in enumerate((256, 256, outputs)):
            yield from linear(f"{name}.layers.{layer}", width, 256)


PUBLISHED = {
    f"{part.__name__}.{name}": shape
    for part in (image_encoder, prompt_encoder, mask_decoder)
    for name, shape in part()
}


def random_state(shapes):
    """Made-up weights that keep their distance from zero and from infinity."""
    torch.manual_seed(0)
    state = {}
    for name, shape in shapes.items():
        fan = max(1, int(np.prod(shape[1:])))
        values = torch.randn(shape) / fan**0.5
        if name.endswith(("running_var", "norm.weight", "bn.weight")):
            values = 0.5 + torch.rand(shape)
        state[name] = torch.tensor(7) if name.endswith("num_batches_tracked") else values
    return state


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("mobile_sam") / "mobile_sam.pt"
    torch.save(random_state(PUBLISHED), path)
    return path


def test_names_and_shapes_are_the_published_ones():
    found = {name: tuple(value.shape) for name, value in build_mobile_sam().state_dict().items()}
    assert found == PUBLISHED


def test_the_published_file_has_room_for_these_weights_and_hardly_more():
    """439 tensors of four bytes a number, but for the counts of eight, and torch's framing of each."""
    numbers = sum(int(np.prod(shape, dtype=int)) * (8 if shape == () else 4) for shape in PUBLISHED.values())
    assert len(PUBLISHED) == 439
    assert 0 < official_sam("mobile_sam").size - numbers < 512 * len(PUBLISHED)


# --- TinyViT by hand, from the names alone


def convolved(state, name, x, stride=1):
    weight = state[f"{name}.c.weight"]
    groups = x.shape[1] // weight.shape[1]
    x = F.conv2d(x, weight, None, stride, weight.shape[-1] // 2, groups=groups)
    scale, shift, mean, variance = (state[f"{name}.bn.{part}"][:, None, None] for part in NORM)
    return (x - mean) / (variance + 1e-5).sqrt() * scale + shift


def normed(state, name, x):
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])


def projected(state, name, x):
    return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def attended(state, name, window, heads):
    """Attention in one window (w, w, c), biased by how far apart two places are in y and in x."""
    w, _, channels = window.shape
    place = torch.cartesian_prod(torch.arange(w), torch.arange(w))
    apart = (place[:, None] - place[None]).abs()
    bias = state[f"{name}.attention_biases"][:, apart[..., 0] * w + apart[..., 1]]
    tokens = normed(state, f"{name}.norm", window.reshape(w * w, channels))
    q, k, v = projected(state, f"{name}.qkv", tokens).view(w * w, heads, 3, 32).permute(2, 1, 0, 3)
    weights = torch.softmax(q @ k.transpose(1, 2) * 32**-0.5 + bias, dim=-1)
    return projected(state, f"{name}.proj", (weights @ v).transpose(0, 1).flatten(1)).view(w, w, channels)


def attention_block(state, name, x, heads, window):
    """x: (1, c, h, w). Zeros below and right of it fill the last windows."""
    _, _, height, width = x.shape
    cells = x[0].permute(1, 2, 0)
    padded = F.pad(cells, (0, 0, 0, -width % window, 0, -height % window))
    found = torch.zeros_like(padded)
    for top in range(0, padded.shape[0], window):
        for left in range(0, padded.shape[1], window):
            part = slice(top, top + window), slice(left, left + window)
            found[part] = attended(state, f"{name}.attn", padded[part], heads)
    cells = cells + found[:height, :width]
    cells = convolved(state, f"{name}.local_conv", cells.permute(2, 0, 1)[None])[0].permute(1, 2, 0)
    hidden = F.gelu(projected(state, f"{name}.mlp.fc1", normed(state, f"{name}.mlp.norm", cells)))
    return (cells + projected(state, f"{name}.mlp.fc2", hidden)).permute(2, 0, 1)[None]


def by_hand(state, x):
    x = convolved(state, "patch_embed.seq.0", x, 2)
    x = convolved(state, "patch_embed.seq.2", F.gelu(x), 2)
    for block in ("layers.0.blocks.0", "layers.0.blocks.1"):
        inner = F.gelu(convolved(state, f"{block}.conv1", x))
        inner = F.gelu(convolved(state, f"{block}.conv2", inner))
        x = F.gelu(x + convolved(state, f"{block}.conv3", inner))
    for layer, (_, heads, window, blocks) in STAGES.items():
        merging = f"layers.{layer - 1}.downsample"
        x = F.gelu(convolved(state, f"{merging}.conv1", x))
        x = F.gelu(convolved(state, f"{merging}.conv2", x, stride=1 if layer == 3 else 2))
        x = convolved(state, f"{merging}.conv3", x)
        for block in range(blocks):
            x = attention_block(state, f"layers.{layer}.blocks.{block}", x, heads, window)
    for index in (0, 2):
        weight = state[f"neck.{index}.weight"]
        x = F.conv2d(x, weight, padding=weight.shape[-1] // 2).permute(0, 2, 3, 1)
        scale, shift = (state[f"neck.{index + 1}.{part}"] for part in ("weight", "bias"))
        x = F.layer_norm(x, (256,), scale, shift, 1e-6).permute(0, 3, 1, 2)
    return x


@pytest.mark.parametrize("side", [96, 112], ids=["padded windows", "one window exactly"])
def test_the_layers_compute_what_tinyvit_does(side):
    state = random_state(dict(image_encoder()))
    encoder = TinyViT().eval()
    encoder.load_state_dict(state)
    image = torch.randn(1, 3, side, side)
    with torch.inference_mode():
        found, expected = encoder(image), by_hand(state, image)
    assert found.shape == (1, 256, side // 16, side // 16)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


# --- behind the door


def test_it_loads_by_name_and_knows_its_weights(file):
    sam = load_sam("mobile_sam", file, "cpu")
    assert not any(value.requires_grad for value in sam._model.parameters())
    for name, value in torch.load(file, weights_only=True).items():
        assert torch.equal(sam._model.state_dict()[name], value)
    assert sam.fingerprint == load_sam("mobile_sam", file, "cpu").fingerprint


def test_anothers_weights_are_refused(file, tmp_path):
    state = torch.load(file, weights_only=True)
    state["image_encoder.patch_embed.seq.0.conv.weight"] = state.pop(
        "image_encoder.patch_embed.seq.0.c.weight"
    )
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(WeightsError, match=r"other\.pt.*seq\.0\.c\.weight is missing"):
        load_sam("mobile_sam", tmp_path / "other.pt", "cpu")


def test_a_missing_file_names_the_command(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PPT_WEIGHTS", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    with pytest.raises(WeightsError, match=r"mobile_sam\.pt.*`ppt weights fetch mobile_sam`"):
        load_sam("mobile_sam", None, "cpu")


@pytest.mark.slow
def test_an_image_of_full_size_has_masks(file):
    sam = load_sam("mobile_sam", file, "cpu")
    image = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    embedding = sam.embed(image)
    assert embedding.features.shape == (1, 256, 64, 64)
    assert embedding.input_size == (768, 1024)
    points = PointSet(np.array([[100, 80]], np.float32), np.ones(1, np.int8), 1.0)
    [candidates] = sam.predict(embedding, [points])
    assert [(mask.height, mask.width) for mask in candidates.rles] == [(240, 320)] * 3
    assert np.isfinite(candidates.predicted_iou).all()
