"""DINOv2's image tower beside CLIP's text tower, for the segmenter alone. Frozen.

    both = load_dino("vit_small_patch14_dinov2", Path("model.safetensors"), clip, "auto")
    segmenter = Segmenter(both.towers(), design)

DINOv2 (Oquab et al. 2023) sees borders and parts that CLIP does not, and has no words: what it sees and what
is said meet in the segmenter alone. Its networks are timm's, and so are the names of its weights.
"""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from ppt.backbones import weights as checkpoints
from ppt.backbones.clip_towers import STAGES, ImageState, StagedModel, Towers, thirds
from ppt.backbones.image import Colours
from ppt.backbones.weights import WeightsError


class DinoTower(nn.Module):
    """timm's VisionTransformer with images of any size. Implements `ImageTower`."""

    joint = False

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self.inner = self.tapped = (int(network.embed_dim),) * STAGES
        self._thirds = thirds(len(network.blocks))

    def begin(self, pixels: Float[Tensor, "b 3 h w"]) -> ImageState:
        network = self.network
        cells = network.patch_embed(pixels)
        return ImageState(network.norm_pre(network._pos_embed(cells)), (cells.shape[1], cells.shape[2]))

    def advance(self, state: ImageState, stage: int) -> ImageState:
        tokens = state.values
        for block in self.network.blocks[self._thirds[stage]]:
            tokens = block(tokens)
        return replace(state, values=tokens)

    def cells(self, state: ImageState) -> Float[Tensor, "b c gh gw"]:
        return self._on_grid(state.values, state.grid)

    def add(self, state: ImageState, more: Float[Tensor, "b c gh gw"]) -> ImageState:
        first, rest = self._split(state.values)
        return replace(state, values=torch.cat([first, rest + more.flatten(2).transpose(1, 2)], dim=1))

    def tap(self, state: ImageState, stage: int) -> Float[Tensor, "b k gh gw"]:
        values = state.values if stage < STAGES - 1 else self.network.norm(state.values)
        return self._on_grid(values, state.grid)

    def _on_grid(self, tokens: Float[Tensor, "b n c"], grid: tuple[int, int]) -> Float[Tensor, "b c gh gw"]:
        return self._split(tokens)[1].transpose(1, 2).unflatten(2, grid)

    def _split(self, tokens: Float[Tensor, "b n c"]) -> tuple[Tensor, Tensor]:
        """(class and register tokens, those of the cells)."""
        first = self.network.num_prefix_tokens
        return tokens[:, :first], tokens[:, first:]


class DinoWithClip:
    """Implements `StagedModel`. weights_sha256: of both; stride: pixels a cell of DINOv2's grid."""

    def __init__(self, network: Any, clip: StagedModel, sha256: str) -> None:
        self.weights_sha256 = hashlib.sha256(f"{sha256} {clip.weights_sha256}".encode()).hexdigest()
        self.stride = int(network.patch_embed.patch_size[0])
        self._network, self._clip = network, clip
        known = network.pretrained_cfg
        self._colours = Colours(known["mean"], known["std"], known["interpolation"] == "bilinear")

    def towers(self) -> Towers:
        """The image's, and CLIP's text tower."""
        return Towers(DinoTower(self._network), self._clip.towers().text)

    def tokens(self, texts: list[str]) -> Int[Tensor, "n context"]:
        """As CLIP has them."""
        return self._clip.tokens(texts)

    def framed(self, image: UInt8[np.ndarray, "h w 3"], side: int) -> Float[Tensor, "3 s s"]:
        """An RGB image as the tower is given it: in a square of `side` pixels, 0 right of it and below."""
        return self._colours.framed(image, side)


def load_dino(model: str, path: Path | None, clip: StagedModel, device: str) -> DinoWithClip:
    """A frozen DINOv2 of timm's from a file of its weights; nothing is downloaded.

    device: "auto", "cpu", "cuda" or "cuda:N". Raises WeightsError: unknown model, no file, or one that does
    not fit.
    """
    known = timm.list_models("*dinov2*")
    if model not in known:
        raise WeightsError(f"dino: unknown model {model!r}; expected one of {', '.join(known)}")
    own = checkpoints.Checkpoint(
        model, "model.safetensors", "name timm's file of it in segmenter.dino_weights"
    )
    found, sha256 = checkpoints.resolve(own, path)
    with torch.random.fork_rng(devices=[]):
        network: Any = timm.create_model(model, pretrained=False, dynamic_img_size=True, num_classes=0)
    checkpoints.fit(network, checkpoints.read_state_dict(found), found, device)
    return DinoWithClip(network, clip, sha256)
