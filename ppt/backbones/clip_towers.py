"""CLIP's two towers, walked in three stages each, so that something learned may speak between them. Frozen.

    towers = clip.towers()
    text, image = towers.text.begin(tokens), towers.image.begin(pixels)
    for stage in range(STAGES):
        text, image = towers.text.advance(text, stage), towers.image.advance(image, stage)
        cells, tap = towers.image.cells(image), towers.image.tap(image, stage)
    words = towers.text.finish(text)

A ViT's stages are thirds of its blocks, the image on one grid throughout; a ResNet's are its layers up to the
second, the third, and the fourth, whose pooling is left out and whose later convolutions are dilated, so that
it stays at stride 16. The last tap is in the joint space, the taps before are what the tower holds there.
"""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from ppt.backbones.clip_dense import grid_positions, resnet_last_layer

STAGES = 3


@runtime_checkable
class StagedModel(Protocol):
    """A CLIP whose towers can be walked in stages, with what they are given. stride: pixels a grid cell."""

    weights_sha256: str
    stride: int

    def towers(self) -> "Towers": ...

    def tokens(self, texts: list[str]) -> Int[Tensor, "n context"]: ...

    def framed(self, image: UInt8[np.ndarray, "h w 3"], side: int) -> Float[Tensor, "3 s s"]: ...


@dataclass(frozen=True)
class Words:
    """b sentences read: their tokens, start and end included, and what the end says of the whole.

    there: False for padding, which is known by its place behind the end: the id that fills it is a word, too.
    """

    tokens: Float[Tensor, "b t d"]
    there: Bool[Tensor, "b t"]
    sentence: Float[Tensor, "b e"]


@dataclass(frozen=True)
class TextState:
    """The tokens of b sentences between two stages; end: the place of each one's last token."""

    tokens: Float[Tensor, "b t d"]
    end: Int[Tensor, " b"]

    @property
    def there(self) -> Bool[Tensor, "b t"]:
        """False for padding."""
        return torch.arange(self.tokens.shape[1], device=self.end.device) <= self.end[:, None]

    def plus(self, more: Float[Tensor, "b t d"]) -> "TextState":
        """The state with something added to every token."""
        return replace(self, tokens=self.tokens + more)


@dataclass(frozen=True)
class ImageState:
    """What the image tower holds between two stages: a ResNet its map (b, c, h, w), a ViT its tokens, class
    token first (b, 1 + h * w, c); grid: (h, w).
    """

    values: Tensor
    grid: tuple[int, int]

    def picked(self, of: Int[Tensor, " n"]) -> "ImageState":
        """The states of some of the images, each as often as it is named."""
        return replace(self, values=self.values[of])


@runtime_checkable
class ImageTower(Protocol):
    """An image tower in stages. inner: channels that each stage leaves; tapped: those of its tap; joint:
    whether the last tap lies in the space of the sentences.
    """

    inner: tuple[int, ...]
    tapped: tuple[int, ...]
    joint: bool

    def begin(self, pixels: Float[Tensor, "b 3 h w"]) -> ImageState:
        """Normalised pixels, h and w multiples of the stride."""
        ...

    def advance(self, state: ImageState, stage: int) -> ImageState: ...

    def cells(self, state: ImageState) -> Float[Tensor, "b c gh gw"]: ...

    def add(self, state: ImageState, more: Float[Tensor, "b c gh gw"]) -> ImageState:
        """The state with something added to every cell."""
        ...

    def tap(self, state: ImageState, stage: int) -> Float[Tensor, "b k gh gw"]:
        """What is seen after `stage`."""
        ...


class VitTower(nn.Module):
    """open_clip's VisionTransformer. Implements `ImageTower`."""

    joint = True

    def __init__(self, visual: Any) -> None:
        super().__init__()
        self.visual = visual
        width = int(visual.conv1.out_channels)
        self.inner, self.tapped = (width,) * STAGES, (width, width, int(visual.output_dim))
        self._thirds = thirds(len(visual.transformer.resblocks))

    def begin(self, pixels: Float[Tensor, "b 3 h w"]) -> ImageState:
        visual = self.visual
        cells = visual.conv1(pixels)
        grid = int(cells.shape[-2]), int(cells.shape[-1])
        own = int(visual.grid_size[0]), int(visual.grid_size[1])
        first = visual.class_embedding.expand(len(cells), 1, -1)
        tokens = torch.cat([first, cells.flatten(2).transpose(1, 2)], dim=1)
        return ImageState(
            visual.ln_pre(tokens + grid_positions(visual.positional_embedding, own, grid)), grid
        )

    def advance(self, state: ImageState, stage: int) -> ImageState:
        tokens = state.values
        for block in self.visual.transformer.resblocks[self._thirds[stage]]:
            tokens = block(tokens)
        return replace(state, values=tokens)

    def cells(self, state: ImageState) -> Float[Tensor, "b c gh gw"]:
        return state.values[:, 1:].transpose(1, 2).unflatten(2, state.grid)

    def add(self, state: ImageState, more: Float[Tensor, "b c gh gw"]) -> ImageState:
        first, rest = state.values[:, :1], state.values[:, 1:]
        return replace(state, values=torch.cat([first, rest + more.flatten(2).transpose(1, 2)], dim=1))

    def tap(self, state: ImageState, stage: int) -> Float[Tensor, "b k gh gw"]:
        if stage < STAGES - 1:
            return self.cells(state)
        seen = self.visual.ln_post(state.values[:, 1:]) @ self.visual.proj
        return seen.transpose(1, 2).unflatten(2, state.grid)


class ResnetTower(nn.Module):
    """open_clip's ModifiedResNet. Implements `ImageTower`."""

    joint = True

    def __init__(self, visual: Any) -> None:
        super().__init__()
        self.visual = visual
        layers = (visual.layer2, visual.layer3, visual.layer4)
        self.inner = tuple(int(layer[-1].conv3.out_channels) for layer in layers)
        self.tapped = (*self.inner[:2], int(visual.attnpool.c_proj.out_features))

    def begin(self, pixels: Float[Tensor, "b 3 h w"]) -> ImageState:
        return _on_grid(self.visual.layer1(self.visual.stem(pixels)))

    def advance(self, state: ImageState, stage: int) -> ImageState:
        if stage < STAGES - 1:
            return _on_grid((self.visual.layer2, self.visual.layer3)[stage](state.values))
        return _on_grid(resnet_last_layer(self.visual, state.values))

    def cells(self, state: ImageState) -> Float[Tensor, "b c gh gw"]:
        return state.values

    def add(self, state: ImageState, more: Float[Tensor, "b c gh gw"]) -> ImageState:
        return replace(state, values=state.values + more)

    def tap(self, state: ImageState, stage: int) -> Float[Tensor, "b k gh gw"]:
        if stage < STAGES - 1:
            return state.values
        pool = self.visual.attnpool
        return pool.c_proj(pool.v_proj(state.values.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


class TextTower(nn.Module):
    """The text tower of open_clip's CLIP. width: of its tokens; dimension: of the sentence."""

    mask: Float[Tensor, "n n"]

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.token_embedding, self.transformer = model.token_embedding, model.transformer
        self.ln_final = model.ln_final
        self.positional_embedding, self.text_projection = model.positional_embedding, model.text_projection
        self.register_buffer("mask", model.attn_mask, persistent=False)
        self.width = int(model.token_embedding.embedding_dim)
        self.dimension = int(model.text_projection.shape[1])
        self._thirds = thirds(len(model.transformer.resblocks))

    def begin(
        self,
        tokens: Int[Tensor, "b n"],
        hidden: Bool[Tensor, "b n"] | None = None,
        blank: Float[Tensor, " d"] | None = None,
    ) -> TextState:
        """Token ids as open_clip makes them, the end being the highest; cut behind the last one's end, which
        is exact: no token sees what comes after it. `blank` is read in place of the `hidden` ones.
        """
        end = tokens.argmax(-1)
        tokens = tokens[:, : int(end.max()) + 1]
        embedded = self.token_embedding(tokens)
        if hidden is not None and blank is not None:
            embedded = torch.where(hidden[:, : tokens.shape[1], None], blank, embedded)
        return TextState(embedded + self.positional_embedding[: tokens.shape[1]], end)

    def advance(self, state: TextState, stage: int) -> TextState:
        count, tokens = state.tokens.shape[1], state.tokens
        for block in self.transformer.resblocks[self._thirds[stage]]:
            tokens = block(tokens, attn_mask=self.mask[:count, :count])
        return replace(state, tokens=tokens)

    def read(
        self,
        tokens: Int[Tensor, "b n"],
        hidden: Bool[Tensor, "b n"] | None = None,
        blank: Float[Tensor, " d"] | None = None,
    ) -> Words:
        """From the first stage to the last."""
        state = self.begin(tokens, hidden, blank)
        for stage in range(STAGES):
            state = self.advance(state, stage)
        return self.finish(state)

    def alone(self, tokens: Int[Tensor, "b t"]) -> Float[Tensor, "b t e"]:
        """What CLIP says of each token as the one word of a sentence, in the joint space, not normalised."""
        ids, back = tokens.unique(return_inverse=True)
        start, end = tokens[0, 0].expand_as(ids), tokens.max().expand_as(ids)
        return self.read(torch.stack([start, ids, end], 1)).sentence[back]

    def finish(self, state: TextState) -> Words:
        """After the last stage; the sentence lies in the joint space, not normalised."""
        tokens = self.ln_final(state.tokens)
        last = tokens[torch.arange(len(tokens), device=tokens.device), state.end]
        return Words(tokens, state.there, last @ self.text_projection)


class Towers(nn.Module):
    """An image and a text tower, frozen: no gradient of their own, no moving statistics, in any mode."""

    def __init__(self, image: ImageTower, text: TextTower) -> None:
        super().__init__()
        self.image, self.text = image, text
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "Towers":
        """Frozen towers stay in evaluation mode."""
        return super().train(False)


def thirds(count: int) -> list[slice]:
    """`count` blocks in three stages of equal length as far as it goes."""
    cuts = [round(count * stage / STAGES) for stage in range(STAGES + 1)]
    return [slice(a, b) for a, b in pairwise(cuts)]


def _on_grid(values: Float[Tensor, "b c h w"]) -> ImageState:
    return ImageState(values, (int(values.shape[-2]), int(values.shape[-1])))
