"""CLIP's image tower read location by location, three ways: what a place is, not what the image is.

"value" (MaskCLIP, Zhou et al., ECCV 2022): each location gets its own value vector of the last attention,
out_proj(v), instead of an attention-weighted mean, and then goes where the class token would have gone.

"surgery" (CLIP Surgery, Li et al. 2023, section 3.2): locations attend to those of like values.
"gem" (Bousselham et al., CVPR 2024, section 3): to those of like queries, like keys and like values, vectors
of length 1, drawn together once before they are used; the mean of the three.

ViT: the released MaskCLIP code still adds the residual and the MLP of the last block; ClearCLIP (Lan et al.,
ECCV 2024) finds the residual to be the main source of noise and drops both. "value" keeps neither:
ln_post(out_proj(v)) @ proj. The other two run a second path beside the last six blocks: it takes their
attention as above, off the first path's tokens, and no MLP. Positional embeddings are interpolated, so an
image keeps its aspect ratio.

ResNet: the attention pool is the only attention there is; it is left out that the pool adds positions and the
mean, as in MaskCLIP. "surgery" compares values of length 1 at eight times the scale (section 4.1); "gem" was
not made for ResNets, here it is given the pool's queries, keys and values. The last stage's pooling is left
out and its later convolutions are dilated by two (a trous), so that the grid has a cell for every 16 pixels
instead of 32, from the same receptive fields.
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

DenseMethod = Literal["value", "surgery", "gem"]
RESNET_STRIDE = 16
BLOCKS_BESIDE = 6
"""Last blocks of a ViT that "surgery" and "gem" run a path beside, as both releases do."""


def resnet_dense(
    visual: Any, pixels: Float[Tensor, "1 3 h w"], method: DenseMethod
) -> Float[Tensor, "gh gw d"]:
    """Features of open_clip's ModifiedResNet; h and w multiples of 16. Not length-normalised."""
    cells, pool = resnet_cells(visual, pixels), visual.attnpool
    tokens = cells.flatten(2).transpose(1, 2)
    values = pool.v_proj(tokens)
    if method == "surgery":
        v = _heads(values, pool.num_heads)
        unit = F.normalize(v, dim=-1)
        values = _joined(_attend(unit, v, 8 * v.shape[-1] ** -0.5))
    elif method == "gem":
        q, k, v = (_heads(x, pool.num_heads) for x in (pool.q_proj(tokens), pool.k_proj(tokens), values))
        values = _gem(tokens, q, k, v)
    return pool.c_proj(values).reshape(*cells.shape[-2:], -1)


def resnet_cells(visual: Any, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c gh gw"]:
    """What a ResNet's attention pool would receive, at stride 16 instead of 32."""
    cells = visual.stem(pixels)
    for layer in (visual.layer1, visual.layer2, visual.layer3):
        cells = layer(cells)
    return resnet_last_layer(visual, cells)


def resnet_last_layer(visual: Any, cells: Float[Tensor, "b k gh gw"]) -> Float[Tensor, "b c gh gw"]:
    """A ResNet's fourth layer on the third one's grid: its pooling left out, later convolutions dilated."""
    first, *rest = visual.layer4
    shortcut = cells
    for module in first.downsample:
        shortcut = shortcut if isinstance(module, torch.nn.AvgPool2d) else module(shortcut)
    cells = _bottleneck(first, cells, shortcut, spacing=1)
    for block in rest:
        cells = _bottleneck(block, cells, cells, spacing=2)
    return cells


def _bottleneck(
    block: Any, cells: Float[Tensor, "b c gh gw"], shortcut: Float[Tensor, "b k gh gw"], spacing: int
) -> Float[Tensor, "b k gh gw"]:
    """open_clip's Bottleneck without its pooling, its 3 x 3 convolution's taps `spacing` cells apart."""
    x = block.act1(block.bn1(block.conv1(cells)))
    x = F.conv2d(x, block.conv2.weight, padding=spacing, dilation=spacing)
    x = block.act2(block.bn2(x))
    return block.act3(block.bn3(block.conv3(x)) + shortcut)


def vit_dense(visual: Any, pixels: Float[Tensor, "1 3 h w"], method: DenseMethod) -> Float[Tensor, "gh gw d"]:
    """Features of open_clip's VisionTransformer; h and w multiples of the patch. Not length-normalised."""
    blocks = list(visual.transformer.resblocks)
    count = 1 if method == "value" else min(BLOCKS_BESIDE, len(blocks))
    tokens, grid = tokens_before_last_blocks(visual, pixels, count)
    beside = torch.zeros_like(tokens) if method == "value" else tokens
    for index, block in enumerate(blocks[-count:]):
        tokens = blocks[index - count - 1](tokens) if index else tokens
        beside = beside + block.ls_1(block.attn.out_proj(_self_attention(block, tokens, method)))
    return (visual.ln_post(beside)[:, 1:] @ visual.proj).reshape(*grid, -1)


def _self_attention(
    block: Any, tokens: Float[Tensor, "1 t c"], method: DenseMethod
) -> Float[Tensor, "1 t c"]:
    """What a ViT block's attention hands to its output projection where tokens attend to their like."""
    attention, normed = block.attn, block.ln_1(tokens)
    projected = F.linear(normed, attention.in_proj_weight, attention.in_proj_bias).chunk(3, dim=-1)
    if method == "value":
        return projected[2]
    q, k, v = (_heads(x, attention.num_heads) for x in projected)
    return _joined(_attend(v, v, v.shape[-1] ** -0.5)) if method == "surgery" else _gem(normed, q, k, v)


def _gem(
    tokens: Float[Tensor, "1 t c"],
    q: Float[Tensor, "1 n t k"],
    k: Float[Tensor, "1 n t k"],
    v: Float[Tensor, "1 n t k"],
) -> Float[Tensor, "1 t c"]:
    """Mean over q, k and v of attention by likeness; the scale is the tokens' mean length over sqrt(k)."""
    scale = tokens.norm(dim=-1).mean() * v.shape[-1] ** -0.5
    found = torch.zeros_like(v)
    for like in (q, k, v):
        unit = F.normalize(like, dim=-1)
        unit = F.normalize(_attend(unit, unit, scale), dim=-1)
        found = found + _attend(unit, v, scale) / 3
    return _joined(found)


def _attend(
    like: Float[Tensor, "1 n t k"], v: Float[Tensor, "1 n t k"], scale: float | Tensor
) -> Float[Tensor, "1 n t k"]:
    return torch.softmax(like @ like.transpose(-1, -2) * scale, dim=-1) @ v


def _heads(x: Float[Tensor, "1 t c"], count: int) -> Float[Tensor, "1 n t k"]:
    return x.unflatten(2, (count, -1)).transpose(1, 2)


def _joined(x: Float[Tensor, "1 n t k"]) -> Float[Tensor, "1 t c"]:
    return x.transpose(1, 2).flatten(2)


def tokens_before_last_blocks(
    visual: Any, pixels: Float[Tensor, "1 3 h w"], count: int
) -> tuple[Float[Tensor, "1 t c"], tuple[int, int]]:
    """What a ViT's last `count` blocks receive, class token first, and the grid (gh, gw) of the others."""
    cells = visual.conv1(pixels)
    grid = (int(cells.shape[-2]), int(cells.shape[-1]))
    tokens = torch.cat([visual.class_embedding.expand(1, 1, -1), cells.flatten(2).transpose(1, 2)], dim=1)
    own_grid = (int(visual.grid_size[0]), int(visual.grid_size[1]))
    tokens = visual.ln_pre(tokens + grid_positions(visual.positional_embedding, own_grid, grid))
    for block in list(visual.transformer.resblocks)[:-count]:
        tokens = block(tokens)
    return tokens, grid


def grid_positions(
    embedding: Float[Tensor, "t c"], own_grid: tuple[int, int], grid: tuple[int, int]
) -> Float[Tensor, "u c"]:
    """Positional embeddings for another grid: first row (class or mean token) kept, the rest bicubic.

    The same antialiased interpolation open_clip uses when a checkpoint meets another image size.
    """
    if tuple(grid) == tuple(own_grid):
        return embedding
    plane = embedding[1:].reshape(1, *own_grid, -1).permute(0, 3, 1, 2)
    plane = F.interpolate(plane, size=tuple(grid), mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([embedding[:1], plane.permute(0, 2, 3, 1).flatten(0, 2)])
