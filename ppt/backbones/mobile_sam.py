"""MobileSAM (Zhang et al. 2023): SAM with TinyViT-5M (Wu et al., ECCV 2022) for its image encoder.

The layers are timm's, arranged and named as in the published mobile_sam.pt, whose state dict therefore fits
as it is. What MobileSAM changed of TinyViT: the last of the three mergings keeps its grid, so that a cell is
16 pixels as SAM's decoder expects, and SAM's neck takes the place of the classifier, which is in the file all
the same.
"""

from collections import OrderedDict
from typing import Any

import timm
from jaxtyping import Float
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from segment_anything.modeling.common import LayerNorm2d
from torch import Tensor, nn

from ppt.backbones.sam_encoder import PIXEL_MEAN, PIXEL_STD

SIDE = 1024
CELL = 16
"""Pixels along a side of one feature."""
_WIDTH = 256
_CLASSES = 1000


class TinyViT(nn.Module):
    """Normalised images (b, 3, s, s) -> features (b, 256, s / 16, s / 16). img_size: the s of SAM, 1024."""

    img_size = SIDE

    def __init__(self) -> None:
        super().__init__()
        whole: Any = timm.create_model("tiny_vit_5m_224", pretrained=False, num_classes=_CLASSES)
        stem, stages = whole.patch_embed, list(whole.stages)
        self.patch_embed = nn.ModuleDict({"seq": nn.Sequential(stem.conv1, stem.act, stem.conv2)})
        # timm merges before a stage's blocks, the file has each merging behind the blocks that precede it.
        mergings = [stage.downsample for stage in stages[1:]]
        mergings[-1].conv2.conv.stride = (1, 1)
        self.layers = nn.ModuleList(
            nn.ModuleDict({"blocks": stage.blocks, "downsample": merging})
            for stage, merging in zip(stages[:-1], mergings, strict=True)
        )
        self.layers.append(nn.ModuleDict({"blocks": stages[-1].blocks}))
        width = int(whole.num_features)
        self.norm_head, self.head = nn.LayerNorm(width), nn.Linear(width, _CLASSES)
        self.neck = nn.Sequential(
            nn.Conv2d(width, _WIDTH, 1, bias=False),
            LayerNorm2d(_WIDTH),
            nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1, bias=False),
            LayerNorm2d(_WIDTH),
        )
        _name_convolutions(self)

    def forward(self, images: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b c g g"]:
        """Features of normalised images."""
        x = self.patch_embed["seq"](images)
        for index, layer in enumerate(self.layers):
            parts: Any = layer
            # Blocks of attention, unlike those of convolutions, have channels last.
            x = parts["blocks"](x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) if index else parts["blocks"](x)
            x = parts["downsample"](x) if "downsample" in parts else x
        return self.neck(x)


def _name_convolutions(module: nn.Module) -> None:
    """A convolution and its batch norm are called `c` and `bn` in the file; timm says `conv` and `bn`."""
    for name, child in module.named_children():
        parts = dict(child.named_children())
        if isinstance(child, nn.Sequential) and parts.keys() == {"conv", "bn"}:
            setattr(module, name, nn.Sequential(OrderedDict(c=parts["conv"], bn=parts["bn"])))
        else:
            _name_convolutions(child)


def build_mobile_sam() -> Sam:
    """The architecture WITHOUT weights. Draws from torch's global generator."""
    image_encoder: Any = TinyViT()  # `Sam` names its ViT, but asks for no more than this
    return Sam(
        image_encoder=image_encoder,
        prompt_encoder=PromptEncoder(
            embed_dim=_WIDTH,
            image_embedding_size=(SIDE // CELL, SIDE // CELL),
            input_image_size=(SIDE, SIDE),
            mask_in_chans=16,
        ),
        mask_decoder=MaskDecoder(
            transformer_dim=_WIDTH,
            transformer=TwoWayTransformer(depth=2, embedding_dim=_WIDTH, mlp_dim=2048, num_heads=8),
            num_multimask_outputs=3,
            iou_head_depth=3,
            iou_head_hidden_dim=256,
        ),
        pixel_mean=list(PIXEL_MEAN),
        pixel_std=list(PIXEL_STD),
    )
