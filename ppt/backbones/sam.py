"""The door to SAM: encode an image once, prompt it many times. Frozen; float32, unless its image encoder is
told to work in bfloat16.

In use:

    sam = load_sam("embedded", None, "auto")
    embedding = sam.embed(image)
    candidates = sam.predict(embedding, point_sets)  # one MaskCandidates per PointSet, in order

In float32 every number equals the official `SamPredictor`'s: the same resize, the same coordinates, the same
upsampling. A label of -1 is passed on as SAM's "not a point" embedding. That embedding is attended to like
any other point, so it is not padding: point sets share a decoder call only when they have the same number of
points.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, UInt8
from PIL import Image
from segment_anything import sam_model_registry
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import Tensor

from ppt import rle
from ppt.backbones import weights as checkpoints
from ppt.backbones.image import checked_rgb
from ppt.backbones.kept import KeptEmbeddings
from ppt.backbones.memory import memory_errors, sent
from ppt.backbones.mobile_sam import build_mobile_sam
from ppt.backbones.published import official_sam
from ppt.backbones.sam_attention import for_processor
from ppt.backbones.sam_encoder import CELL, ConvEncoder
from ppt.backbones.weights import WeightsError
from ppt.config import fingerprint
from ppt.geometry import longest_side_size, pixels_to_sam
from ppt.types import MaskCandidates, PointSet

_STABILITY_OFFSET = 1.0
_SECTIONS = ("image_encoder", "prompt_encoder", "mask_decoder", "pixel_mean", "pixel_std")
_OWN = checkpoints.Checkpoint("embedded sam", "sam.safetensors", "name an existing file in sam.weights")


@dataclass(frozen=True)
class ImageEmbedding:
    """What SAM keeps of one image; opaque outside this door.

    features: (1, c, g, g) float32 on the model's device. input_size: (h, w) after the resize, before padding.
    original_size: (h, w) of the image.
    """

    features: Float[Tensor, "1 c g g"]
    input_size: tuple[int, int]
    original_size: tuple[int, int]


class SamModel:
    """A frozen SAM; made by `load_sam`. Implements `PromptableModel`.

    fingerprint: changes with architecture and weights. weights_sha256: of the file. prompt_batch: point sets
    per decoder call at most; a call that runs out of GPU memory goes on with half of it. kept: where
    embeddings are looked for first, and kept. bfloat16: whether the image encoder works in it, whose
    output is float32 all the same, as is all that follows.
    """

    def __init__(
        self,
        model: Sam,
        prompt_batch: int,
        sha256: str,
        recipe: Mapping[str, Any],
        kept: KeptEmbeddings | None = None,
        bfloat16: bool = False,
    ):
        if prompt_batch < 1:
            raise ValueError(f"sam: prompt_batch must be at least 1, got {prompt_batch}")
        self.prompt_batch = prompt_batch
        self.weights_sha256 = sha256
        self.fingerprint = fingerprint("sam", dict(recipe), sha256, *(["bfloat16"] if bfloat16 else []))
        self._model = model
        self._kept = kept
        self._bfloat16 = bfloat16

    @property
    def network(self) -> Sam:
        """The network itself, for comparisons with what others do with it."""
        return self._model

    @memory_errors("sam: encoding the image")
    @torch.inference_mode()
    def embed(self, image: UInt8[np.ndarray, "h w 3"]) -> ImageEmbedding:
        """The image encoder's output for one RGB image, longest side resized to the model's input size.

        Raises MemoryError.
        """
        image = checked_rgb(image)
        height, width = image.shape[:2]
        new_h, new_w = longest_side_size(height, width, self._model.image_encoder.img_size)

        def encoded() -> Tensor:
            resized = np.array(Image.fromarray(image).resize((new_w, new_h), Image.Resampling.BILINEAR))
            pixels = torch.from_numpy(resized).permute(2, 0, 1).contiguous()[None]
            pixels = sent(pixels, self._model.device)
            with torch.autocast(self._model.device.type, torch.bfloat16, enabled=self._bfloat16):
                return self._model.image_encoder(self._model.preprocess(pixels)).float()

        if self._kept is None:
            return ImageEmbedding(encoded(), (new_h, new_w), (height, width))
        seen = hashlib.sha256(np.ascontiguousarray(image).data).hexdigest()
        features = self._kept(fingerprint(self.fingerprint, seen, [height, width]), encoded)
        return ImageEmbedding(features.to(self._model.device), (new_h, new_w), (height, width))

    @memory_errors("sam: drawing masks")
    def predict(self, embedding: ImageEmbedding, prompts: Sequence[PointSet]) -> list[MaskCandidates]:
        """SAM's multimask candidates for each point set, in the order given.

        Masks are logits above the model's threshold at original resolution. predicted_iou is SAM's own
        estimate as it comes (it may leave [0, 1]). stability is the IoU of the mask at threshold +1 and -1:
        in [0, 1], and 0 where even the larger one is empty.
        A set without points gets no candidates. Raises FloatingPointError for logits that are not finite,
        MemoryError where there is no room for one set alone.
        """
        none = np.zeros(0, np.float32)
        found = [MaskCandidates((), none, none)] * len(prompts)
        for index, logits, predicted_iou in self.logits(embedding, prompts):
            masks = (logits > self._model.mask_threshold).cpu().numpy()
            found[index] = MaskCandidates(
                tuple(rle.encode(mask) for mask in masks),
                predicted_iou.cpu().numpy(),
                stability(logits, self._model.mask_threshold).cpu().numpy(),
            )
        return found

    def logits(
        self, embedding: ImageEmbedding, prompts: Sequence[PointSet]
    ) -> Iterator[tuple[int, Float32[Tensor, "c h w"], Float32[Tensor, " c"]]]:
        """(index of the point set, mask logits at original resolution, predicted IoU), grouped by set length.

        One set's full-size logits at a time, so that memory does not grow with the number of sentences.
        """
        lengths = [len(points.labels) for points in prompts]
        waiting = sorted((index for index, length in enumerate(lengths) if length), key=lengths.__getitem__)
        batch = self.prompt_batch
        while waiting:
            chunk = [index for index in waiting[:batch] if lengths[index] == lengths[waiting[0]]]
            try:
                low, predicted_iou = self._decode(embedding, [prompts[index] for index in chunk])
            except torch.OutOfMemoryError:
                if batch == 1:
                    raise
                batch = max(1, len(chunk) // 2)
                continue
            waiting = waiting[len(chunk) :]
            for row, index in enumerate(chunk):
                yield index, self._full_size(embedding, low[row : row + 1], index), predicted_iou[row]

    def mask_logits(
        self, embedding: ImageEmbedding, xy: Float[Tensor, "k 2"], labels: Int[Tensor, " k"]
    ) -> Float[Tensor, "h w"]:
        """The single-mask logits of one point set, differentiable in `xy`; the weights stay frozen.

        embedding: of normal tensors, not of inference mode. xy: original pixels. labels: 1, 0, or -1 for a
        point that is none. (h, w) is `low_size` of the embedding.
        """
        model, device = self._model, self._model.device
        (new_h, new_w), (old_h, old_w) = embedding.input_size, embedding.original_size
        # As `pixels_to_sam` does.
        points = (xy * torch.tensor([new_w / old_w, new_h / old_h], device=xy.device)).to(device)
        sparse, dense = model.prompt_encoder((points[None], labels[None].to(device)), None, None)
        low, _ = model.mask_decoder(
            image_embeddings=embedding.features,
            image_pe=model.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
        height, width = self.low_size(embedding)
        return low[0, 0, :height, :width]

    def low_size(self, embedding: ImageEmbedding) -> tuple[int, int]:
        """(h, w) that the image takes of the decoder's own masks, which have four cells, each way, for each
        of the embedding.
        """
        share = 4 * embedding.features.shape[-1] / self._model.image_encoder.img_size
        height, width = (max(1, round(side * share)) for side in embedding.input_size)
        return height, width

    @torch.inference_mode()
    def _decode(self, embedding: ImageEmbedding, prompts: Sequence[PointSet]) -> tuple[Tensor, Tensor]:
        """Low-resolution logits (b, c, 4g, 4g) and predicted IoU (b, c) of sets of equal length."""
        model, device = self._model, self._model.device
        frames = embedding.original_size, embedding.input_size
        xy = np.stack([pixels_to_sam(points.xy, *frames) for points in prompts])
        labels = np.stack([points.labels for points in prompts])
        sparse, dense = model.prompt_encoder(
            points=(
                torch.as_tensor(xy, dtype=torch.float, device=device),
                torch.as_tensor(labels, dtype=torch.int, device=device),
            ),
            boxes=None,
            masks=None,
        )
        return model.mask_decoder(
            image_embeddings=embedding.features,
            image_pe=model.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
        )

    @torch.inference_mode()
    def _full_size(self, embedding: ImageEmbedding, low: Tensor, index: int) -> Tensor:
        logits = self._model.postprocess_masks(low, embedding.input_size, embedding.original_size)[0]
        if not bool(torch.isfinite(low).all()):
            height, width = embedding.original_size
            raise FloatingPointError(
                f"sam: logits of point set {index} are not finite (image {height} x {width})"
            )
        return logits


def stability(logits: Float[Tensor, "c h w"], threshold: float) -> Float32[Tensor, " c"]:
    """IoU between each mask thresholded 1 above and 1 below `threshold`; 0 where the larger one is empty."""
    inner = (logits > threshold + _STABILITY_OFFSET).sum(dim=(-2, -1))
    outer = (logits > threshold - _STABILITY_OFFSET).sum(dim=(-2, -1))
    return inner.float() / outer.clamp(min=1).float()


def load_sam(
    model: str,
    weights: str | Path | None,
    device: str,
    prompt_batch: int = 8,
    kept: KeptEmbeddings | None = None,
    bfloat16: bool = False,
    compiled: bool = False,
) -> SamModel:
    """A frozen SAM from local weights; nothing is downloaded and nothing is ever left random.

    model: "embedded", "vit_b", "vit_l", "vit_h" or "mobile_sam". weights: a file (.safetensors, or a state
    dict saved by torch); None for the shipped file, or for the official file wherever `checkpoints.resolve`
    finds it. An embedded file given by path takes its architecture from the .json of the same stem beside it.
    device: "auto", "cpu", "cuda" or "cuda:N". prompt_batch: point sets per decoder call at most. kept: where
    embeddings are kept. bfloat16: of the image encoder, which is `compiled` by torch at its first image.
    Raises WeightsError: missing, altered or unfitting file, unknown model.
    """
    path, sha256 = find_sam(model, weights)
    if model == "embedded":
        beside = path.with_suffix(".json") if weights is not None else checkpoints.SHIPPED / "sam.json"
        recipe = checkpoints.read_json(beside)
    else:
        recipe = {"registry": model}
    with torch.random.fork_rng(devices=[]):
        network = untrained_sam(model, recipe)
    checkpoints.fit(network, checkpoints.read_state_dict(path), path, device)
    for_processor(network)
    if compiled:
        network.image_encoder.compile()
        recipe = {**recipe, "compiled": True}  # the last bits are other ones
    return SamModel(network, prompt_batch, sha256, recipe, kept, bfloat16)


def find_sam(model: str, weights: str | Path | None) -> tuple[Path, str]:
    """The file that `load_sam` would read, and its sha256. Raises WeightsError where there is none."""
    if model == "embedded":
        return checkpoints.resolve(checkpoints.embedded("sam") if weights is None else _OWN, weights)
    return checkpoints.resolve(official_sam(model), weights)


def untrained_sam(model: str, recipe: Mapping[str, Any] | None = None) -> Sam:
    """The network of a SAM that `load_sam` knows, WITHOUT weights: random, to be filled or counted.

    recipe: of the embedded one, in place of the shipped. Draws from torch's global generator.
    """
    match model:
        case "embedded":
            return build_embedded_sam(recipe or checkpoints.read_json(checkpoints.SHIPPED / "sam.json"))
        case "mobile_sam":
            return build_mobile_sam()
        case _:
            return sam_model_registry[model]()


def build_embedded_sam(config: Mapping[str, Any]) -> Sam:
    """The embedded architecture, SAM's own but for the image encoder, WITHOUT weights: for training only.

    config: the content of `tiny/sam.json`:
        image_encoder   img_size, widths, out_chans (of ConvEncoder)
        prompt_encoder  mask_in_chans
        mask_decoder    num_multimask_outputs, iou_head_depth, iou_head_hidden_dim,
                        transformer: depth, mlp_dim, num_heads
        pixel_mean, pixel_std   three numbers each, in [0, 255]
    The prompt encoder and the decoder are as wide as the image encoder's out_chans. Draws from torch's global
    generator. Raises WeightsError for missing or unknown keys.
    """
    if sorted(config) != sorted(_SECTIONS):
        raise WeightsError(
            f"not an embedded SAM config: expected the keys {list(_SECTIONS)}, got {list(config)}"
        )
    try:
        encoder, decoder = dict(config["image_encoder"]), dict(config["mask_decoder"])
        width, side = encoder["out_chans"], encoder["img_size"]
        grid = side // CELL
        transformer = TwoWayTransformer(embedding_dim=width, **decoder.pop("transformer"))
        image_encoder: Any = ConvEncoder(**encoder)  # `Sam` names its ViT, but asks for no more than this
        return Sam(
            image_encoder=image_encoder,
            prompt_encoder=PromptEncoder(
                embed_dim=width,
                image_embedding_size=(grid, grid),
                input_image_size=(side, side),
                **config["prompt_encoder"],
            ),
            mask_decoder=MaskDecoder(transformer_dim=width, transformer=transformer, **decoder),
            pixel_mean=list(config["pixel_mean"]),
            pixel_std=list(config["pixel_std"]),
        )
    except (TypeError, KeyError) as error:
        raise WeightsError(f"not an embedded SAM config: {error}") from error
