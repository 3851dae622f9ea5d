"""The dense path against open_clip itself: the same tokens, the same value path, the same positions."""

from typing import Any

import numpy as np
import pytest
import torch
from open_clip.model import resize_pos_embed
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from ppt.backbones import clip_dense
from ppt.backbones.clip import Clip, build_embedded_clip, dense_values

TEXT = {"context_length": 8, "vocab_size": 100, "width": 16, "heads": 2, "layers": 1}
RESNET = {"image_size": 96, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32}
VIT = {"image_size": 64, "patch_size": 16, "layers": 3, "width": 32, "head_width": 8}


def build(vision, seed=0, **more) -> Any:
    """A random CLIP whose norms are not at their neutral start."""
    torch.manual_seed(seed)
    net = build_embedded_clip({"embed_dim": 20, "vision_cfg": vision, "text_cfg": TEXT, **more})
    for name, value in net.named_parameters():
        if "ln_" in name or ".bn" in name or "bias" in name:
            torch.nn.init.normal_(value, mean=0.5, std=0.3)
    return net.eval().requires_grad_(False)


def pixels(height, width):
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(3))


def only_oneself(count):
    """An attention mask that leaves every token nothing but itself: attention becomes out_proj(v)."""
    return torch.full((count, count), float("-inf")).fill_diagonal_(0)


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("quick_gelu", [False, True])
def test_vit_with_its_full_last_block_is_encode_image(quick_gelu):
    net, image = build(VIT, quick_gelu=quick_gelu), pixels(64, 64)
    tokens, grid = clip_dense.tokens_before_last_blocks(net.visual, image, 1)
    assert grid == (4, 4)
    last = net.visual.transformer.resblocks[-1](tokens)
    close(net.visual.ln_post(last)[:, 0] @ net.visual.proj, net.encode_image(image))


@pytest.mark.parametrize("layer_scale", [None, 0.3])
def test_vit_values_are_attention_that_sees_only_itself(layer_scale):
    net, image = build({**VIT, "ls_init_value": layer_scale}), pixels(48, 80)
    block = net.visual.transformer.resblocks[-1]
    tokens, grid = clip_dense.tokens_before_last_blocks(net.visual, image, 1)
    attended = block.ls_1(block.attention(block.ln_1(tokens), attn_mask=only_oneself(tokens.shape[1])))
    expected = (net.visual.ln_post(attended) @ net.visual.proj)[0, 1:]
    assert grid == (3, 5)
    close(dense_values(net.visual, image), expected.unflatten(0, grid))


def test_vit_on_another_grid_is_open_clips_model_resized():
    """open_clip interpolates a checkpoint's positions for a model of another image size; so must we."""
    net, image = build(VIT), pixels(96, 160)
    resized = build({**VIT, "image_size": [96, 160]})
    state = net.state_dict()
    resize_pos_embed(state, resized)
    resized.load_state_dict(state)
    close(dense_values(net.visual, image), dense_values(resized.visual, image))
    tokens, _ = clip_dense.tokens_before_last_blocks(net.visual, image, 1)
    last = net.visual.transformer.resblocks[-1](tokens)
    close(net.visual.ln_post(last)[:, 0] @ net.visual.proj, resized.encode_image(image))


def test_resnet_cells_pooled_are_the_towers_own():
    """With one block in the last stage only a pooling differs; before the last ReLU, pooling ours gives
    open_clip's.
    """
    net, image = build({**RESNET, "layers": [1, 1, 1, 1]}), pixels(96, 160)
    visual = net.visual
    visual.layer4[0].act2 = visual.layer4[0].act3 = torch.nn.Identity()
    cells = visual.stem(image)
    for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        cells = layer(cells)
    close(torch.nn.functional.avg_pool2d(clip_dense.resnet_cells(visual, image), 2), cells)


def test_resnet_later_blocks_see_what_they_were_trained_on():
    """On an image of constant 32-pixel cells a dilated block meets the same neighbours as the pooled one,
    inside.
    """
    net = build({**RESNET, "layers": [1, 1, 1, 3]})
    block = net.visual.layer4[1]
    coarse = torch.randn(1, block.conv1.in_channels, 5, 6, generator=torch.Generator().manual_seed(1))
    fine = coarse.repeat_interleave(2, 2).repeat_interleave(2, 3)
    dilated = clip_dense._bottleneck(block, fine, fine, spacing=2)
    close(dilated[:, :, 2:-2:2, 2:-2:2], block(coarse)[:, :, 1:-1, 1:-1])


def test_resnet_values_are_the_pools_value_path():
    net, image = build(RESNET), pixels(64, 160)
    pool, cells = net.visual.attnpool, clip_dense.resnet_cells(net.visual, image)
    values = dense_values(net.visual, image)
    assert values.shape == (4, 10, 20)
    close(values[2, 7], pool.c_proj(pool.v_proj(cells[0, :, 2, 7])))


def test_resnet_full_pool_is_encode_image():
    """Attention of the mean token written out over the tower's tokens gives open_clip's own image vector."""
    net, image = build(RESNET), pixels(96, 96)
    visual, pool = net.visual, net.visual.attnpool
    cells = visual.layer4(visual.layer3(visual.layer2(visual.layer1(visual.stem(image)))))
    tokens = cells.flatten(2).transpose(1, 2)
    tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], 1) + pool.positional_embedding
    heads = pool.num_heads
    q = pool.q_proj(tokens[:, :1]).unflatten(2, (heads, -1)).transpose(1, 2)  # b h 1 c
    k = pool.k_proj(tokens).unflatten(2, (heads, -1)).transpose(1, 2)  # b h t c
    v = pool.v_proj(tokens).unflatten(2, (heads, -1)).transpose(1, 2)  # b h t c
    attention = torch.softmax(q @ k.transpose(-1, -2) / k.shape[-1] ** 0.5, dim=-1)
    expected = pool.c_proj((attention @ v).transpose(1, 2).flatten(2))[:, 0]
    close(net.encode_image(image), expected)


@pytest.mark.parametrize("vision", [RESNET, VIT], ids=["resnet", "vit"])
def test_rows_are_rows_and_columns_are_columns(vision):
    """A change in the top left corner of a wide image moves cell (0, 0) most, not a transposed one."""
    net, image = build(vision), pixels(96, 192)
    changed = image.clone()
    changed[..., :16, 160:] += 3
    moved = (dense_values(net.visual, changed) - dense_values(net.visual, image)).norm(dim=-1)
    row, column = np.unravel_index(int(moved.argmax()), moved.shape)
    assert row == 0
    assert column >= 0.7 * moved.shape[1]


def test_preprocessing_is_open_clips_where_the_size_already_fits():
    """An image of the model's own size goes through without a resize: only the colours are standardised."""
    net = build(VIT)
    settings = PreprocessCfg(size=64, mean=(0.1, 0.5, 0.9), std=(0.2, 0.3, 0.4), resize_mode="squash")
    clip = Clip(net, settings, 64, 256, "0" * 64, {})
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    transform: Any = image_transform_v2(settings, is_train=False)
    expected = torch.nn.functional.normalize(
        dense_values(net.visual, transform(Image.fromarray(image))[None]), dim=-1
    ).numpy()
    np.testing.assert_allclose(clip.encode_image(image).values, expected, atol=2e-6)


def like_to_like(block, tokens, *, repeat):
    """The output of torch's own MultiheadAttention whose q, k and v weights are all one of the block's."""
    own = block.attn
    d = own.embed_dim
    twin = torch.nn.MultiheadAttention(d, own.num_heads, batch_first=True)
    rows = slice(repeat * d, (repeat + 1) * d)
    twin.in_proj_weight.data = own.in_proj_weight[rows].repeat(3, 1)
    twin.in_proj_bias.data = own.in_proj_bias[rows].repeat(3)
    twin.out_proj.load_state_dict(own.out_proj.state_dict())
    return twin(*[block.ln_1(tokens)] * 3, need_weights=False)[0]


@pytest.mark.parametrize("layers", [2, 8])
def test_vit_surgery_is_value_to_value_attention_beside_the_last_six_blocks(layers):
    net, image = build({**VIT, "layers": layers}), pixels(48, 80)
    count = min(6, layers)
    tokens, grid = clip_dense.tokens_before_last_blocks(net.visual, image, count)
    beside = tokens
    for block in net.visual.transformer.resblocks[-count:]:
        beside = beside + like_to_like(block, tokens, repeat=2)
        tokens = block(tokens)
    expected = (net.visual.ln_post(beside) @ net.visual.proj)[0, 1:].unflatten(0, grid)
    torch.testing.assert_close(dense_values(net.visual, image, "surgery"), expected, rtol=1e-5, atol=1e-5)


def gem_by_hand(tokens, weights, biases, heads):
    """Section 3 of GEM with one head and one token at a time."""
    q, k, v = (tokens @ w.T + b for w, b in zip(weights, biases, strict=True))
    width = q.shape[1] // heads
    scale = np.linalg.norm(tokens, axis=1).mean() / width**0.5
    out = np.zeros_like(v)
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        for like in (q, k, v):
            unit = like[:, part] / np.linalg.norm(like[:, part], axis=1, keepdims=True)
            for values in (unit, v[:, part]):
                found = np.zeros_like(values)
                for i in range(len(unit)):
                    weight = np.exp(scale * unit @ unit[i])
                    found[i] = weight @ values / weight.sum()
                unit = found / np.linalg.norm(found, axis=1, keepdims=True) if values is unit else unit
            out[:, part] += found / 3
    return out


def test_vit_gem_by_hand():
    net, image = build({**VIT, "layers": 1}), pixels(48, 64)
    visual, block = net.visual, net.visual.transformer.resblocks[0]
    tokens, grid = clip_dense.tokens_before_last_blocks(visual, image, 1)
    weights = block.attn.in_proj_weight.chunk(3)
    biases = block.attn.in_proj_bias.chunk(3)
    normed = block.ln_1(tokens)[0].double().numpy()
    found = gem_by_hand(
        normed,
        [w.double().numpy() for w in weights],
        [b.double().numpy() for b in biases],
        block.attn.num_heads,
    )
    beside = tokens + block.attn.out_proj(torch.from_numpy(found).float())
    expected = (visual.ln_post(beside) @ visual.proj)[0, 1:].unflatten(0, grid)
    torch.testing.assert_close(dense_values(visual, image, "gem"), expected, rtol=1e-4, atol=1e-5)


def test_resnet_gem_by_hand():
    net, image = build(RESNET), pixels(64, 96)
    pool, cells = net.visual.attnpool, clip_dense.resnet_cells(net.visual, image)
    tokens = cells[0].flatten(1).T.double().numpy()
    layers = (pool.q_proj, pool.k_proj, pool.v_proj)
    found = gem_by_hand(
        tokens,
        [x.weight.double().numpy() for x in layers],
        [x.bias.double().numpy() for x in layers],
        pool.num_heads,
    )
    expected = pool.c_proj(torch.from_numpy(found).float()).unflatten(0, (4, 6))
    torch.testing.assert_close(dense_values(net.visual, image, "gem"), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["surgery", "gem"])
def test_where_all_places_are_alike_a_resnet_reads_their_values(method):
    net = build(RESNET)
    net.visual.layer4 = torch.nn.Sequential(net.visual.layer4[0])
    image = torch.zeros(1, 3, 64, 96)
    net.visual.stem = lambda x: torch.ones(1, 8, x.shape[2] // 4, x.shape[3] // 4)  # no borders
    for block in (net.visual.layer1, net.visual.layer2, net.visual.layer3, net.visual.layer4):
        for module in block.modules():
            if isinstance(module, torch.nn.Conv2d) and module.kernel_size == (3, 3):
                module.weight.data[..., [0, 0, 0, 1, 1, 2, 2, 2], [0, 1, 2, 0, 2, 0, 1, 2]] = 0
    values = dense_values(net.visual, image, "value")
    torch.testing.assert_close(dense_values(net.visual, image, method), values, rtol=1e-4, atol=1e-5)
