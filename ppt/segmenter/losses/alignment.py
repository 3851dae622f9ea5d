"""MagNet's cross-modal alignment loss (Chng et al., CVPR 2024, section 3.3): pixels of the thing look like
each other and unlike the rest, and like the sentence. Its temperatures are not public; these are ours.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ppt.segmenter.losses.pairwise import drawn

SHARP = 0.1


class Alignment(nn.Module):
    """width: of the pixels; sentence: of the text."""

    def __init__(self, width: int, sentence: int, narrow: int = 64) -> None:
        super().__init__()
        self.pixels, self.sentence = nn.Conv2d(width, narrow, 1), nn.Linear(sentence, narrow)

    def forward(
        self,
        pixels: Float[Tensor, "b c h w"],
        sentence: Float[Tensor, "b e"],
        covered: Float[Tensor, "b 1 h w"],
        there: Float[Tensor, "b 1 h w"],
        generator: torch.Generator,
    ) -> Float[Tensor, " b"]:
        """Pixel to pixel: of the cells drawn inside, each other one against those outside (supervised
        contrast, Khosla et al., NeurIPS 2020). Pixel to text: cross-entropy of the cosine over SHARP.
        """
        x = F.normalize(self.pixels(pixels.float()).flatten(2).transpose(1, 2), dim=-1)
        said = F.normalize(self.sentence(sentence.float()), dim=-1)
        inside, outside = drawn(covered, there, generator)
        return torch.stack([_aligned(*each) for each in zip(x, said, inside, outside, strict=True)])


def _aligned(x: Tensor, said: Tensor, inside: Tensor, outside: Tensor) -> Float[Tensor, ""]:
    if len(inside) < 2 or not len(outside):
        return x.sum() * 0
    own, other = x[inside] @ x[inside].T / SHARP, x[inside] @ x[outside].T / SHARP
    itself = torch.eye(len(inside), dtype=torch.bool, device=x.device)
    rest = torch.logaddexp(own, other.logsumexp(1, keepdim=True))
    pixel_to_pixel = (rest - own)[~itself].mean()
    cosines = torch.cat([x[inside] @ said, x[outside] @ said]) / SHARP
    wanted = torch.cat([torch.ones(len(inside)), torch.zeros(len(outside))]).to(x)
    return pixel_to_pixel + F.binary_cross_entropy_with_logits(cosines, wanted)
