"""A trained segmenter in use, and on disk: one shard of an artifact, without CLIP's own weights or SAM's."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8

from ppt import rle
from ppt.backbones.clip_towers import StagedModel
from ppt.backbones.memory import memory_errors
from ppt.rle import Rle
from ppt.segmenter.decoders import spread
from ppt.segmenter.drawing import Canvas
from ppt.segmenter.frames import Frame
from ppt.segmenter.model import Design, Looked, Seen, Segmenter
from ppt.store import Artifact, ArtifactError
from ppt.types import PromptableModel

SHARD = "00000"


@dataclass(frozen=True)
class Prediction:
    """A mask in the image's own pixels, which may be empty, and how sure the segmenter is of it: the mean of
    its probabilities inside, in [0, 1], 0 for an empty one.
    """

    mask: Rle
    sure: float

    def to_json(self) -> dict[str, Any]:
        """{"segmentation", "sure"}; the former is null for an empty mask."""
        mask = self.mask.to_json() if rle.area(self.mask) else None
        return {"segmentation": mask, "sure": round(self.sure, 6)}


@dataclass(frozen=True)
class Reader:
    """A segmenter in evaluation mode, the CLIP whose towers it stands between, the side of the square, in
    pixels, that it reads, and the SAM that draws where it points. threshold: the probability, in (0, 1),
    above which a pixel is in a mask that the segmenter draws itself.
    """

    clip: StagedModel
    segmenter: Segmenter
    size: int
    sam: PromptableModel | None = None
    threshold: float = 0.5

    @memory_errors("segmenter: reading the image")
    @torch.inference_mode()
    def __call__(self, image: UInt8[np.ndarray, "h w 3"], texts: Sequence[str]) -> list[Prediction]:
        """What each sentence means in an RGB image. Raises MemoryError."""
        frame = Frame(self.size, *image.shape[:2])
        canvas = None
        if self.segmenter.design.decoder == "point":
            if self.sam is None:
                raise ValueError("a segmenter that points needs the SAM that draws")
            canvas = Canvas(self.sam, self.sam.embed(image), frame)
        looked, found = self._looked(image), list[Prediction]()
        for seen in self._seen(looked, texts):
            found.append(self._drawn(seen, canvas) if canvas else _opened(seen, frame, self.threshold))
        return found

    @torch.inference_mode()
    def activations(
        self, image: UInt8[np.ndarray, "h w 3"], texts: Sequence[str]
    ) -> list[dict[str, Float[np.ndarray, "h w"]]]:
        """For each sentence what every stage of the network lights up, in [0, 1] of the image's own pixels.

        tap: the cosine of CLIP's last tap with the sentence, of DINOv2 none; cost_<level>: what the neck has
        for it, of rca only. Both stretched so that the image's lowest place has 0 and its highest 1.
        round_<number>: the mask that the decoder would draw from the fusion after that round. logits: the
        mask's probabilities.
        """
        frame = Frame(self.size, *image.shape[:2])
        found: list[dict[str, np.ndarray]] = []
        looked = self._looked(image)
        for seen in self._seen(looked, texts):
            words = seen.words
            maps = {f"cost_{i + 1}": cost[:, 0] for i, cost in enumerate(seen.costs)}
            if self.segmenter.towers.image.joint:
                tap = seen.taps[-1][seen.of]
                maps["tap"] = F.cosine_similarity(tap, words.sentence[:, :, None, None])
            shown = {name: _stretched(frame.opened(_plane(map))) for name, map in maps.items()}
            for number, cells in enumerate(seen.rounds):
                drawn = self.segmenter.decoder(
                    cells, seen.spoken, words.there, words.sentence, looked.pixels, seen.of
                )
                shown[f"round_{number + 1}"] = frame.opened(_plane(drawn.logits[:, 0].sigmoid()))
            shown["logits"] = frame.opened(_plane(seen.logits[:, 0].sigmoid()))
            found.append(shown)
        return found

    def _drawn(self, seen: Seen, canvas: Canvas) -> Prediction:
        """The thing that one sentence's click, and a second look, come to."""
        assert seen.drawn.click is not None
        share, frame = _plane(seen.logits[:, 0].sigmoid()), canvas.frame
        things = canvas.things(_plane(seen.drawn.click[:, 0]), share, self.segmenter.design.things)
        if not things:
            return Prediction(rle.encode(np.zeros((frame.height, frame.width), bool)), 0.0)
        best = things[0]
        if len(things) > 1:
            device = seen.logits.device
            covered = torch.from_numpy(np.stack([thing.covered for thing in things]))[None].to(device)
            known = torch.ones(1, len(things), dtype=torch.bool, device=device)
            there = torch.from_numpy(frame.there(len(share)))[None, None].to(device)
            click = spread(seen.drawn.click, there)
            best = things[int(self.segmenter.choose(seen, covered, known, click).argmax())]
        inside = float((best.covered * share).sum()) / max(float(best.covered.sum()), 1e-6)
        return Prediction(canvas.redrawn(best, share), inside)

    def _looked(self, image: UInt8[np.ndarray, "h w 3"]) -> Looked:
        pixels = self.clip.framed(image, self.size)[None]
        return self.segmenter.look(pixels.to(next(self.segmenter.parameters()).device))

    def _seen(self, looked: Looked, texts: Sequence[str]) -> Iterator[Seen]:
        first = torch.zeros(1, dtype=torch.long, device=looked.pixels.device)
        for text in texts:  # one by one: the last bits of a row depend on the other rows of its batch
            yield self.segmenter.read(looked, self.clip.tokens([text]), first)


def _opened(seen: Seen, frame: Frame, threshold: float) -> Prediction:
    """The mask that the logits of one sentence come to. They are enlarged, and then cut: CRIS and ETRIS, from
    whom the switch is, enlarge probabilities.
    """
    share = _plane(seen.logits[:, 0].sigmoid())
    inside = share[share > threshold]
    sure = float(inside.mean()) if len(inside) else 0.0
    least = math.log(threshold / (1 - threshold))
    return Prediction(rle.encode(frame.opened(_plane(seen.logits[:, 0])) > least), sure)


def _plane(map: Float[torch.Tensor, "1 g g"]) -> Float[np.ndarray, "g g"]:
    return map[0].float().cpu().numpy()


def _stretched(map: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    low, high = float(map.min()), float(map.max())
    return (map - low) / (high - low) if high > low else np.zeros_like(map)


def rows_and_tensors(segmenter: Segmenter, size: int) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """What a shard holds of a segmenter: one row with its design and size, and what was learned."""
    tensors = {name: value.detach().cpu().numpy() for name, value in segmenter.state_dict().items()}
    return [{"design": segmenter.design.to_json(), "size": size}], tensors


def read_segmenter(artifact: Artifact, clip: StagedModel) -> Reader:
    """A segmenter from disk, frozen. Raises ArtifactError where it was trained with another CLIP, or where
    the weights do not fit.
    """
    if artifact.manifest.weights.get("clip") != clip.weights_sha256:
        raise ArtifactError(f"{artifact.folder}: trained with another CLIP; name that one in clip.weights")
    row = next(iter(artifact.rows(SHARD)))
    segmenter = Segmenter(clip.towers(), Design(**row["design"]))
    try:
        segmenter.load_state_dict({n: torch.from_numpy(v) for n, v in artifact.tensors(SHARD).items()})
    except RuntimeError as error:
        raise ArtifactError(f"{artifact.folder}: no weights of a segmenter: {error}") from None
    device = next(segmenter.towers.parameters()).device
    return Reader(clip, segmenter.to(device).eval().requires_grad_(False), row["size"])
