"""The door to CLIP: image -> dense features on a grid, sentence -> vector. Frozen, float32.

In use:

    clip = load_clip("embedded", None, "auto")
    features = clip.encode_image(image)              # DenseFeatures, every vector of length 1
    vectors, truncated = clip.encode_texts(texts)    # (n, d), every row of length 1
"""

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from jaxtyping import Float, Float32, Int, UInt8
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transform import PreprocessCfg, image_transform_v2
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from PIL import Image
from torch import Tensor

from ppt.backbones import clip_dense
from ppt.backbones import weights as checkpoints
from ppt.backbones.clip_towers import ResnetTower, TextTower, Towers, VitTower
from ppt.backbones.clip_weights import named_weights, tag_settings
from ppt.backbones.image import Colours, checked_rgb
from ppt.backbones.memory import memory_errors, sent
from ppt.backbones.weights import WeightsError
from ppt.config import fingerprint
from ppt.geometry import short_side_size
from ppt.types import DenseFeatures

_CACHED_TEXTS = 65536
_LONG_OVER_SHORT = 4
_PREPROCESS_KEYS = ("mean", "std", "interpolation", "resize_mode", "fill_color", "mode")
_OWN = checkpoints.Checkpoint("embedded clip", "clip.safetensors", "name an existing file in clip.weights")
_OPENAIS_NOTES = ("input_resolution", "context_length", "vocab_size")
"""Sizes that OpenAI's files hold as if they were weights."""


@dataclass(frozen=True)
class Reading:
    """How the image tower is read: the dense path, at which multiples of the size, mirrored too or not."""

    method: clip_dense.DenseMethod = "value"
    scales: tuple[float, ...] = (1.0,)
    mirror: bool = False

    def at(self, scale: float) -> "Reading":
        """The same at `scale` times the size."""
        return replace(self, scales=tuple(scale * one for one in self.scales))

    def views(self) -> list[tuple[float, bool]]:
        """(scale, mirrored) of every reading of one image."""
        return [
            (scale, mirror)
            for scale in self.scales
            for mirror in ((False, True) if self.mirror else (False,))
        ]


class Clip:
    """A frozen CLIP; made by `load_clip`. Implements `TextImageModel`.

    fingerprint: changes with architecture, weights, preprocessing and dense path. weights_sha256: of the
    file. size, max_long: pixels of the short side and cap of the long side for dense features. stride: pixels
    per grid cell. dimension: of every vector. context_length: tokens, start and end included. logit_scale:
    the learned temperature.
    """

    def __init__(
        self,
        model: Any,
        preprocess: PreprocessCfg,
        size: int,
        max_long: int,
        sha256: str,
        recipe: Mapping,
        reading: Reading | None = None,
    ):
        self.size = size
        self.max_long = max_long
        self._reading = reading or Reading()
        self.weights_sha256 = sha256
        self.fingerprint = fingerprint(
            "clip",
            dict(recipe),
            sha256,
            asdict(preprocess),
            {"size": size, "max_long": max_long},
            asdict(self._reading),
        )
        self.stride = grid_stride(model.visual)
        self.dimension = int(model.visual.output_dim)
        self.context_length = int(model.context_length)
        self.logit_scale = float(model.logit_scale.exp())
        self._model = model
        self._text_tower = TextTower(model)  # as the model's own, but no longer than the sentence
        self._tokenizer = open_clip.SimpleTokenizer(context_length=self.context_length)
        self._colours = Colours(preprocess.mean, preprocess.std, preprocess.interpolation == "bilinear")
        self._squash: Any = image_transform_v2(preprocess, is_train=False)
        self._device = next(model.parameters()).device
        self._texts: dict[str, tuple[Float32[np.ndarray, " d"], bool]] = {}

    def at(self, scale: float) -> "Clip":
        """The same weights, for dense features of images at `scale` times the size."""
        other = copy.copy(self)
        other._reading = self._reading.at(scale)
        other.fingerprint = fingerprint(self.fingerprint, scale)
        return other

    @memory_errors("clip: encoding the image")
    @torch.inference_mode()
    def encode_image(self, image: UInt8[np.ndarray, "h w 3"]) -> DenseFeatures:
        """Dense features of a whole RGB image: (gh, gw, d) float32, each vector of L2 norm 1.

        The image keeps its aspect ratio as far as whole grid cells allow; cell (i, j) covers the pixels
        [j * w / gw, (j + 1) * w / gw) by [i * h / gh, (i + 1) * h / gh). With several scales or the mirror
        image, unit vectors are averaged on the grid of the first scale. Raises MemoryError.
        """
        image = checked_rgb(image)
        views = [self._values(image, scale, mirror) for scale, mirror in self._reading.views()]
        grid = views[0].shape[1], views[0].shape[2]
        fitted = [v if v.shape[1:] == torch.Size(grid) else _resampled(v, grid) for v in views]
        mean = torch.nn.functional.normalize(torch.stack(fitted).mean(0), dim=0)
        return DenseFeatures(np.ascontiguousarray(mean.permute(1, 2, 0).cpu().numpy()), *image.shape[:2])

    def _values(
        self, image: UInt8[np.ndarray, "h w 3"], scale: float, mirror: bool
    ) -> Float[Tensor, "d gh gw"]:
        """Unit vectors of the image at `scale` times the size, in the image's own left and right."""
        height, width = image.shape[:2]
        size, cap = max(self.stride, round(self.size * scale)), max(self.stride, round(self.max_long * scale))
        new_h, new_w = short_side_size(height, width, size, self.stride, cap)
        pixels = self._colours.normalised(image, new_h, new_w)
        pixels = pixels.flip(-1) if mirror else pixels
        values = dense_values(self._model.visual, sent(pixels[None], self._device), self._reading.method)
        values = torch.nn.functional.normalize(values, dim=-1).permute(2, 0, 1)
        return values.flip(-1) if mirror else values

    @torch.inference_mode()
    def encode_image_global(self, image: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, " d"]:
        """The image's one vector by open_clip's own preprocessing and `encode_image`; L2 norm 1."""
        pixels = self._squash(Image.fromarray(checked_rgb(image)))
        return self._model.encode_image(sent(pixels[None], self._device), normalize=True)[0].cpu().numpy()

    def towers(self) -> Towers:
        """Both towers in stages, for what is to be learned between them; they share this model's weights."""
        return staged(self._model)

    def framed(self, image: UInt8[np.ndarray, "h w 3"], side: int) -> Float[Tensor, "3 s s"]:
        """An RGB image as the towers are given it: in a square of `side` pixels, 0 right of it and below."""
        return self._colours.framed(image, side)

    def tokens(self, texts: list[str]) -> Int[Tensor, "n context"]:
        """Token ids of sentences, cut to the context, padded behind the end."""
        return self._tokenizer(texts).to(self._device)

    def encode_texts(self, texts: list[str]) -> tuple[Float32[np.ndarray, "n d"], list[bool]]:
        """Vectors of sentences, (n, d) float32 of L2 norm 1, and whether each was cut to fit the context."""
        rows = [self._encode_text(text) for text in texts]
        vectors = np.stack([row[0] for row in rows]) if rows else np.zeros((0, self.dimension), np.float32)
        return vectors, [row[1] for row in rows]

    @torch.inference_mode()
    def _encode_text(self, text: str) -> tuple[Float32[np.ndarray, " d"], bool]:
        if text not in self._texts:
            # One sentence at a time: the last bits of a row depend on the other rows of its batch, and what
            # is left to encode depends on the cache. Alone, a sentence always gives the same bytes.
            tokens = self._tokenizer([text]).to(self._device)
            sentence = self._text_tower.read(tokens).sentence[0]
            vector = torch.nn.functional.normalize(sentence, dim=-1).cpu().numpy()
            with_start_and_end = len(self._tokenizer.encode(text)) + 2
            if len(self._texts) >= _CACHED_TEXTS:
                self._texts.pop(next(iter(self._texts)))
            self._texts[text] = vector, with_start_and_end > self.context_length
        return self._texts[text]


def load_clip(
    model: str,
    weights: str | Path | None,
    device: str,
    size: int | None = None,
    max_long: int | None = None,
    reading: Reading | None = None,
) -> Clip:
    """A frozen CLIP from local weights; nothing is downloaded and nothing is ever left random.

    model: "embedded" or an open_clip architecture ("ViT-B-16", "RN50", "ViT-B-16-quickgelu", ...). weights: a
    file (.safetensors, a state dict saved by torch, or a TorchScript archive such as OpenAI's) or a
    pretrained tag of that architecture, whose file is looked for as `checkpoints.resolve` does; None for the
    embedded default. An embedded file given by path takes its architecture from the .json of the same stem
    beside it. A file named `<model>.<tag>.*`, or with a published sha256, takes activation and colour
    statistics from the tag, any other file from the architecture's name. device: "auto", "cpu", "cuda" or
    "cuda:N". size: short side in pixels for dense features, None for the model's own. max_long: cap of the
    long side in pixels, None for four times `size`. reading: how the image tower is read, None for the value
    path once.

    Raises WeightsError (missing, altered or unfitting file; unsupported architecture) and ValueError (sizes).
    """
    if model == "embedded":
        path, sha256 = find_clip(model, weights)
        beside = path.with_suffix(".json") if weights is not None else checkpoints.SHIPPED / "clip.json"
        recipe = checkpoints.read_json(beside)
        preprocess_settings = recipe.get("preprocess_cfg", {})
        if not {"mean", "std"} <= set(preprocess_settings) <= {"size", *_PREPROCESS_KEYS}:
            raise WeightsError(f"{beside}: preprocess_cfg needs mean and std, got {preprocess_settings}")
        with torch.random.fork_rng(devices=[]):
            network = build_embedded_clip(recipe)
    else:
        model = model.replace("/", "-")
        recipe = _named_architecture(model)
        path, sha256, tag = named_weights(model, weights)
        preprocess_settings = tag_settings(model, tag, path)
        recipe["quick_gelu"] = bool(recipe.get("quick_gelu") or preprocess_settings.get("quick_gelu"))
        with torch.random.fork_rng(devices=[]):
            network = _build(recipe)
    state = checkpoints.read_state_dict(path)
    for name in _OPENAIS_NOTES:
        state.pop(name, None)
    checkpoints.fit(network, state, path, device)
    settings = {key: preprocess_settings[key] for key in _PREPROCESS_KEYS if key in preprocess_settings}
    preprocess = PreprocessCfg(**{"size": network.visual.image_size, **settings})
    short = size if size is not None else own_side(network.visual)
    long = max_long if max_long is not None else _LONG_OVER_SHORT * short
    stride = grid_stride(network.visual)
    if not stride <= short <= long:
        raise ValueError(
            f"clip: need stride {stride} <= size <= max_long, got size {short} and max_long {long}"
        )
    return Clip(network, preprocess, short, long, sha256, recipe, reading)


def build_embedded_clip(config: Mapping[str, Any]) -> open_clip.CLIP:
    """The embedded architecture in open_clip's own `CLIP`, WITHOUT weights: random, for training only.

    config: the content of `tiny/clip.json`, an open_clip model config {"embed_dim", "vision_cfg", "text_cfg",
    optionally "quick_gelu"} plus "preprocess_cfg" {"mean", "std", "interpolation", "resize_mode"}, which is
    not part of the network. Draws from torch's global generator. Raises WeightsError for unknown keys.
    """
    return _build({key: value for key, value in config.items() if key != "preprocess_cfg"})


def find_clip(model: str, weights: str | Path | None) -> tuple[Path, str]:
    """The file that `load_clip` would read, and its sha256. Raises WeightsError where there is none."""
    if model == "embedded":
        return checkpoints.resolve(checkpoints.embedded("clip") if weights is None else _OWN, weights)
    path, sha256, _ = named_weights(model.replace("/", "-"), weights)
    return path, sha256


def untrained_clip(model: str) -> Any:
    """The network of "embedded" or an open_clip architecture WITHOUT weights: random, to be counted alone.

    Draws from torch's global generator. Raises WeightsError for an unsupported architecture.
    """
    if model == "embedded":
        return build_embedded_clip(checkpoints.read_json(checkpoints.SHIPPED / "clip.json"))
    return _build(_named_architecture(model.replace("/", "-")))


def staged(network: Any) -> Towers:
    """Both towers of open_clip's CLIP in stages, for what is to be learned between them."""
    visual = network.visual
    image = ResnetTower(visual) if isinstance(visual, ModifiedResNet) else VitTower(visual)
    return Towers(image, TextTower(network))


def _build(config: Mapping[str, Any]) -> Any:
    try:
        network = open_clip.CLIP(**config)
    except (TypeError, KeyError) as error:
        raise WeightsError(f"not an open_clip model config: {error}") from error
    grid_stride(network.visual)
    return network


def _named_architecture(model: str) -> dict[str, Any]:
    """open_clip's config of `model`. Raises WeightsError where dense path or token count is unknown."""
    config = open_clip.get_model_config(model) if ":" not in model else None
    if config is None:
        raise WeightsError(
            f"unknown CLIP architecture {model!r}: use 'embedded' or a name from open_clip.list_models()"
        )
    vision, text = config["vision_cfg"], config["text_cfg"]
    foreign = [key for key in ("timm_model_name", "attentional_pool") if vision.get(key)]
    foreign += [key for key in ("hf_model_name", "hf_tokenizer_name") if text.get(key)]
    foreign += [key for key in ("multimodal_cfg", "custom_text") if config.get(key)]
    if foreign:
        raise WeightsError(
            f"CLIP architecture {model!r} is not supported ({', '.join(foreign)}): "
            "use a plain ViT or ResNet CLIP"
        )
    return config


def own_side(visual: Any) -> int:
    """The short side, in pixels, of the images that an image tower was made for."""
    size: int | tuple[int, int] = visual.image_size
    return size if isinstance(size, int) else min(size)


def grid_stride(visual: Any) -> int:
    """Pixels per grid cell of an image tower. Raises WeightsError for a tower without a dense path."""
    if isinstance(visual, ModifiedResNet):
        return clip_dense.RESNET_STRIDE
    patch: Any = getattr(visual, "patch_size", None)
    if (
        isinstance(visual, VisionTransformer)
        and visual.attn_pool is None
        and isinstance(visual.transformer.resblocks[-1], ResidualAttentionBlock)
        and patch[0] == patch[1]
    ):
        return int(patch[0])
    raise WeightsError(f"image tower {type(visual).__name__} has no dense path: use a plain ViT or ResNet")


def dense_values(
    visual: Any, pixels: Float[Tensor, "1 3 h w"], method: clip_dense.DenseMethod = "value"
) -> Float[Tensor, "gh gw d"]:
    """Dense features of normalised pixels, h and w multiples of the stride; not length-normalised."""
    read = clip_dense.resnet_dense if isinstance(visual, ModifiedResNet) else clip_dense.vit_dense
    return read(visual, pixels, method)


def _resampled(values: Float[Tensor, "d h w"], grid: tuple[int, int]) -> Float[Tensor, "d gh gw"]:
    """Another scale's features on the first one's grid."""
    return torch.nn.functional.interpolate(values[None], grid, mode="bilinear", antialias=True)[0]
