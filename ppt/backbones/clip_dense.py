"""CLIP's image tower read location by location: the value path of its last attention.

MaskCLIP (Zhou et al., ECCV 2022): each location gets its own value vector, out_proj(v), instead of an
attention-weighted mean, and then goes where the class token would have gone.

ViT: the released MaskCLIP code still adds the residual and the MLP of that last block; ClearCLIP (Lan et al.,
ECCV 2024) finds the residual to be the main source of noise and drops both. Neither is kept here:
ln_post(out_proj(v)) @ proj. Positional embeddings are interpolated, so an image keeps its aspect ratio.

ResNet: c_proj(v_proj(x)) of the attention pool, without its positional embedding, as in MaskCLIP. The last
stage's pooling is left out and its later convolutions are dilated by two (a trous), so that the grid has a
cell for every 16 pixels instead of 32, from the same receptive fields.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

DENSE_PATH = "value, no residual, no mlp; resnet without positions at stride 16"
RESNET_STRIDE = 16


def resnet_values(visual: Any, pixels: Float[Tensor, "1 3 h w"]) -> Float[Tensor, "gh gw d"]:
    """Values of open_clip's ModifiedResNet; h and w multiples of 16. Not length-normalised."""
    cells = resnet_cells(visual, pixels)
    grid = cells.shape[-2:]
    return visual.attnpool.c_proj(visual.attnpool.v_proj(cells.flatten(2).transpose(1, 2))).reshape(*grid, -1)


def resnet_cells(visual: Any, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c gh gw"]:
    """What a ResNet's attention pool would receive, at stride 16 instead of 32."""
    cells = visual.stem(pixels)
    for layer in (visual.layer1, visual.layer2, visual.layer3):
        cells = layer(cells)
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


def vit_values(visual: Any, pixels: Float[Tensor, "1 3 h w"]) -> Float[Tensor, "gh gw d"]:
    """Values of open_clip's VisionTransformer; h and w multiples of the patch. Not length-normalised."""
    tokens, grid = tokens_before_last_block(visual, pixels)
    block = visual.transformer.resblocks[-1]
    d = block.attn.embed_dim
    v = F.linear(block.ln_1(tokens), block.attn.in_proj_weight[2 * d :], block.attn.in_proj_bias[2 * d :])
    values = visual.ln_post(block.ls_1(block.attn.out_proj(v)))[:, 1:] @ visual.proj
    return values.reshape(*grid, -1)


def tokens_before_last_block(
    visual: Any, pixels: Float[Tensor, "1 3 h w"]
) -> tuple[Float[Tensor, "1 t c"], tuple[int, int]]:
    """What a ViT's last block receives, class token first, and the grid (gh, gw) of the other tokens."""
    cells = visual.conv1(pixels)
    grid = (int(cells.shape[-2]), int(cells.shape[-1]))
    tokens = torch.cat([visual.class_embedding.expand(1, 1, -1), cells.flatten(2).transpose(1, 2)], dim=1)
    own_grid = (int(visual.grid_size[0]), int(visual.grid_size[1]))
    tokens = visual.ln_pre(tokens + grid_positions(visual.positional_embedding, own_grid, grid))
    for block in list(visual.transformer.resblocks)[:-1]:
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
