"""What is done against labels that are wrong. Each measure is a switch; none asks the truth.

teacher: a segmenter whose weights are the running mean of the student's sees the image whole (mean teacher,
Tarvainen & Valpola, NeurIPS 2017). The student is drawn towards it; with `pixel_confidence` its doubts weigh
the pixels (SemiRES, Yang et al., ICML 2024); with `correction` it overrules labels, once the student's
agreement with them no longer rises fast (ADELE, Liu et al., CVPR 2022): what is learned later is the noise.
exclusion: sentences of one image that say different things should not claim the same pixels; sharing:
those that say the same have one label (Segment, Select, Correct; Eiras et al. 2023, arXiv 2310.13479).
truncation: what is furthest from its label teaches less and less.
hidden_patches, hidden_words: parts of the image and of the sentence are taken away (MaskRIS, Lee et al. 2024,
arXiv 2411.19067).
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from scipy.optimize import curve_fit
from torch import Tensor, nn

from ppt.segmenter.model import Looked, Segmenter

SURE = 0.8
"""A pixel's probability, or its complement, from which a teacher overrules a label."""
MOMENTS = 20
"""Parts of the training over which agreement with the labels is averaged."""
FEWEST = 4
"""Moments before it is asked whether early learning is over."""
PATCH = 32
"""Pixels, each way, of the patches that are hidden."""


@dataclass(frozen=True)
class Measures:
    """Against noise; 0 and False leave one out. teacher, exclusion: weights of their losses. correction: the
    share of its first slope that agreement has lost when labels begin to be corrected. truncation: share of a
    batch that teaches nothing at the end of the training. hidden: shares of patches and words.
    """

    teacher: float = 0.0
    pixel_confidence: bool = False
    correction: float = 0.0
    exclusion: float = 0.0
    sharing: bool = False
    truncation: float = 0.0
    hidden_patches: float = 0.0
    hidden_words: float = 0.0

    @property
    def ask_teacher(self) -> bool:
        """Whether any of them needs a teacher."""
        return bool(self.teacher or self.pixel_confidence or self.correction)


class Teacher(nn.Module):
    """The running mean of a segmenter's weights, itself never trained."""

    age: Int[Tensor, ""]

    def __init__(self, student: Segmenter, keep: float = 0.999) -> None:
        super().__init__()
        self.keep = keep
        self.segmenter = Segmenter(student.towers, student.design)
        self.segmenter.load_state_dict(student.state_dict())
        self.segmenter.eval().requires_grad_(False)
        self.register_buffer("age", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def follow(self, student: Segmenter) -> None:
        """One step behind the student; its first steps are soon forgotten."""
        keep = min(self.keep, (1 + int(self.age)) / (10 + int(self.age)))
        for own, new in zip(self.segmenter.parameters(), student.parameters(), strict=True):
            own.lerp_(new, 1 - keep)
        self.age += 1

    @torch.no_grad()
    def share(
        self, looked: Looked, tokens: Int[Tensor, "b n"], of: Int[Tensor, " b"]
    ) -> Float[Tensor, "b 1 h w"]:
        """Its probabilities. looked: by any segmenter between the same towers."""
        return self.segmenter.read(looked, tokens, of).logits.float().sigmoid()


class EarlyLearning(nn.Module):
    """Whether a student still learns what labels have in common, or by now their noise."""

    agreement: Float[Tensor, " s"]
    ended: Bool[Tensor, ""]

    def __init__(self, steps: int, lost: float) -> None:
        """lost: the share of the first slope that has to be lost."""
        super().__init__()
        self.steps, self.lost = steps, lost
        self.register_buffer("agreement", torch.zeros(steps))
        self.register_buffer("ended", torch.zeros((), dtype=torch.bool))

    def over(self, step: int, agreement: float) -> bool:
        """Note the agreement with the labels at a step, in [0, 1]; whether early learning was over before.

        To be asked step after step. Once over it stays over.
        """
        size = max(1, self.steps // MOMENTS)
        if step % size == 0 and step // size >= FEWEST and not self.ended:
            moments = self.agreement[:step].reshape(-1, size).mean(1).cpu().numpy()
            self.ended.fill_(lost_slope(moments) > self.lost)
        self.agreement[step] = agreement
        return bool(self.ended)


def lost_slope(agreement: Float[np.ndarray, " n"]) -> float:
    """The share of its first slope that a rising curve has lost by its end: that of a (1 - exp(-t^b / c))
    fitted to it, as ADELE has it; 0 where nothing fits.
    """
    t = np.arange(1, len(agreement) + 1, dtype=np.float64)
    try:
        (a, b, c), _ = curve_fit(
            lambda t, a, b, c: a * (1 - np.exp(-(t**b) / c)),
            t,
            agreement.astype(np.float64),
            p0=(1.0, 1.0, 1.0),
            bounds=((0, 0.05, 1e-3), (1, 5, 1e3)),
            maxfev=2000,
        )
    except RuntimeError:
        return 0.0
    slope = a * b * t ** (b - 1) / c * np.exp(-(t**b) / c)
    return float((slope[0] - slope[-1]) / slope[0]) if slope[0] > 0 else 0.0


def corrected(covered: Float[Tensor, "b 1 h w"], share: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
    """The labels, where a teacher is sure of something as it has it."""
    return torch.where(share > SURE, 1.0, torch.where(share < 1 - SURE, 0.0, covered))


def shared(
    covered: Float[Tensor, "b 1 h w"], believed: Float[Tensor, " b"], alike: Bool[Tensor, "b b"]
) -> Float[Tensor, "b 1 h w"]:
    """For every sentence the mean label of those alike, itself included, by how far each is believed."""
    weights = alike * believed
    total = weights.sum(1, keepdim=True)
    weights = torch.where(total > 0, weights / total.clamp(min=1e-6), torch.eye(len(alike)).to(weights))
    return torch.einsum("ij,jchw->ichw", weights, covered)


def exclusion(
    logits: Float[Tensor, "b 1 h w"], there: Float[Tensor, "b 1 h w"], rivals: Bool[Tensor, "b b"]
) -> Float[Tensor, " b"]:
    """The share of the smaller of two masks that both claim, in [0, 1]; of each sentence the mean over its
    rivals.
    """
    share = (logits.float().sigmoid() * there).flatten(1)
    size = share.sum(1)
    both = share @ share.T / torch.minimum(size[:, None], size).clamp(min=1e-3)
    return (both * rivals).sum(1) / rivals.sum(1).clamp(min=1)


def kept(losses: Float[Tensor, " b"], share: float) -> Bool[Tensor, " b"]:
    """All but the `share` with the highest losses, rounded down."""
    left_out = int(share * len(losses))
    worst = losses.argsort(descending=True, stable=True)[:left_out]
    return torch.ones(len(losses), dtype=torch.bool, device=losses.device).index_fill(0, worst, False)


def without_patches(
    pixels: Float[Tensor, "b 3 h w"], share: float, generator: torch.Generator
) -> Float[Tensor, "b 3 h w"]:
    """Patches at random set to 0, the mean of what CLIP was trained on."""
    count, _, high, wide = pixels.shape
    grid = (count, 1, -(-high // PATCH), -(-wide // PATCH))
    stays = (torch.rand(grid, generator=generator) >= share).to(pixels)
    return pixels * F.interpolate(stays, scale_factor=PATCH)[..., :high, :wide]


def without_words(
    tokens: Int[Tensor, "b n"], wanted: Bool[Tensor, "b n"], share: float, generator: torch.Generator
) -> Int[Tensor, "b n"]:
    """Each word that is `wanted` left out with that probability, the rest moved up; one of them stays."""
    drawn = torch.rand(tokens.shape, generator=generator).to(tokens.device)
    last = F.one_hot(drawn.masked_fill(~wanted, -1).argmax(1), tokens.shape[1]).bool()
    gone = wanted & (drawn < share) & ~last
    order = gone.to(torch.uint8).argsort(stable=True, dim=1)
    return tokens.masked_fill(gone, 0).gather(1, order)
