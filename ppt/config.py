"""The one config loader: a YAML file and `section.key=value` overrides -> frozen, strict models.

Defaults live here and nowhere else. Unknown keys, wrong types and values out of range are errors; all of
them are reported together. Relative paths in the file are relative to the file's folder, in overrides to
the current folder.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ppt.strict_yaml import ConfigError, is_mapping, merged, parsed_override, read

Source = Literal["object_centric", "mosaic", "referring"]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
WEIGHTS_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")


class Section(BaseModel):
    """Strictness shared by all sections."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class RecordsConfig(Section):
    pairs: Path | None = None
    truth: Path | None = None
    splits: tuple[str, ...] = ()  # empty: all
    limit: Count | None = None
    max_pixels: Annotated[int, Field(ge=1, le=2**28)] = 64_000_000
    exif: Literal["ignore", "transpose"] = "ignore"
    alpha: Literal["white", "black"] = "white"
    follow_links: bool = False


class ClipConfig(Section):
    model: str = "embedded"  # or any open_clip architecture
    weights: str | None = None  # a pretrained tag, or a file (known by its suffix)
    size: Count | None = None  # short side in pixels for dense features; None: the model's own
    max_long: Count | None = None  # cap of the long side; None: the model's own


class RelevanceConfig(Section):
    method: Literal["value", "surgery", "gem"] = "value"
    scales: Annotated[tuple[Annotated[float, Field(gt=0, le=4)], ...], Field(min_length=1)] = (1.0,)
    mirror: bool = False  # read the mirror image too
    redundancy: Literal["none", "empty_text", "other_texts"] = "empty_text"


class PointsConfig(Section):
    method: Literal["peak", "surgery", "read", "generator"] = "peak"
    sets: Count = 6  # of the generator's, how many are asked of SAM
    surgery_threshold: Annotated[float, Field(gt=0, le=1)] = 0.8
    read_positive: Share = 0.8
    read_negative: Share = 0.2
    read_points: Count = 30


class GeneratorConfig(Section):
    splits: tuple[str, ...] = ("", "train")  # of the pairs that may teach; "" are those without a split
    width: Count = 128
    sets: Count = 6
    points: Annotated[int, Field(ge=3)] = 6
    layers: Count = 1
    judges: Count = 3
    positives: Count = 3  # target points in a thing
    negatives: Annotated[int, Field(ge=0)] = 3  # and around it
    negative: bool = True  # whether negatives are taught
    ignore: bool = True  # a point may say nothing
    sources: Annotated[tuple[Source, ...], Field(min_length=1)] = ("object_centric", "mosaic", "referring")
    order: Literal["easiest_first", "together", "hardest_first"] = "easiest_first"
    steadiness: bool = True  # ask the mirror image too, to know how far a pseudo-mask is to be believed
    mosaics: Count = 600
    pieces: Share = 0.8  # of the pseudo-masks, the most confident, that mosaics are made of
    mosaic_side: Count = 320  # pixels
    through_sam: Share = 0.05  # of the mosaics, those whose points are led through SAM in training
    refreshes: Count = 1  # times that the referring pairs' pseudo-masks are made anew
    seed: Annotated[int, Field(ge=0)] = 0  # of the network and of what it is taught when
    steps: Count = 800
    batch: Count = 16  # sentences whose images are searched in a step
    readings: Count = 128  # and sentences of mosaics that are read
    rate: Annotated[float, Field(gt=0)] = 2e-3
    save_every: Count = 100


class SamConfig(Section):
    model: Literal["embedded", "vit_b", "vit_l", "vit_h"] = "embedded"
    weights: Path | None = None
    prompt_batch: Count = 8


class MasksConfig(Section):
    choice: Literal["agreement", "predicted_iou"] = "agreement"
    min_area: Share = 0.0005  # share of the image
    max_area: Share = 0.9


class LabelsConfig(Section):
    min_stability: Share = 0.5
    min_agreement: Annotated[float, Field(ge=-1, le=1)] = 0.1
    conflict_iou: Share = 0.9  # overlap at which two sentences' masks are remarked on


Weight = Annotated[float, Field(ge=0)]


class LossesConfig(Section):
    """Weights of the segmenter's losses; 0 leaves one out."""

    cross_entropy: Weight = 0.7
    focal: Weight = 0.0
    dice: Weight = 0.7
    soft_iou: Weight = 0.0
    point: Weight = 1.0  # of the click; for the decoder point alone
    choice: Weight = 1.0  # of one thing among several; for it alone
    pairwise: Weight = 0.0
    contrast: Weight = 0.0
    grounding: Weight = 0.0
    alignment: Weight = 0.0
    released: bool = False  # pairwise and contrast as TALENT's code has them, rather than corrected


class NoiseConfig(Section):
    """What the segmenter does against labels that are wrong; 0 and false leave a measure out."""

    teacher: Weight = 0.0  # of agreeing with the running mean of itself
    pixel_confidence: bool = False  # what that one doubts teaches less
    correction: Share = 0.0  # share of its slope that agreement loses before labels are mended
    exclusion: Weight = 0.0  # of sentences of one image claiming the same pixels
    sharing: bool = False  # paraphrases have one label
    truncation: Share = 0.0  # of a batch, the worst, that teaches nothing at the end
    hidden_patches: Share = 0.0
    hidden_words: Share = 0.0


class SegmenterConfig(Section):
    splits: tuple[str, ...] = ("", "train")  # of the labels that may teach; "" are those without a split
    size: Count = 416  # pixels of the square that is read, a multiple of the image tower's cells
    dino: str = ""  # a DINOv2 of timm's in place of CLIP's image tower, as vit_small_patch14_dinov2
    dino_weights: Path | None = None
    adapter: Literal["none", "bridger", "dense", "cost"] = "none"
    adapter_width: Annotated[int, Field(ge=4, multiple_of=4)] = 64
    neck: Literal["film", "rca", "cam", "concat"] = "rca"
    rounds: Annotated[int, Field(ge=0)] = 0  # of attention between cells and words
    feedback: Literal["add", "value"] = "add"
    decoder: Literal["dynamic", "query", "point"] = "point"  # of which SAM draws the mask
    width: Annotated[int, Field(ge=16, multiple_of=16)] = 256
    things: Count = 3  # that SAM is asked for, of which one is chosen; for it alone
    layers: Count = 2
    detail: Annotated[int, Field(ge=0)] = 0  # channels that are read from the image's own pixels
    prior: bool = True  # what CLIP finds relevant joins the neck
    losses: LossesConfig = LossesConfig()
    noise: NoiseConfig = NoiseConfig()
    seed: Annotated[int, Field(ge=0)] = 0
    steps: Count = 20_000
    batch: Count = 16  # sentences a step
    together: Count = 2  # of them, at most, about one image
    mosaics: Share = 0.5  # of them, the share about mosaics of the images of one thing
    mosaic_images: Annotated[int, Field(ge=0)] = 0  # different mosaics; 0: new ones at every step
    memory_gib: Annotated[float, Field(ge=0)] = 2.0  # for what CLIP makes of images, made once
    accumulate: Count = 1  # batches whose gradients make a step
    bfloat16: bool = False
    rate: Annotated[float, Field(gt=0)] = 1e-4
    save_every: Count = 500
    held_out: Share = 0.0  # of the images, those whose labels tell when to stop, and teach nothing
    patience: Count = 5  # checkpoints without a gain on them before it stops
    settled: Share = 1.0  # mean IoU of their masks with the checkpoint's before above which it stops


class EvaluateConfig(Section):
    resolution: Literal["native"] = "native"  # masks are compared in original pixels
    empty: Literal["zero", "one"] = "zero"  # IoU where prediction and truth are both empty
    at_least: bool = True  # Prec@X counts IoU >= X rather than > X
    nta: bool = False  # whether to measure what the target's distractors light up, at every stage


Variant = Literal[
    "full",
    "no_negatives",
    "no_ignore",
    "together",
    "hardest_first",
    "object_centric",
    "no_mosaics",
    "no_referring",
]


class BenchmarkConfig(Section):
    variants: tuple[Variant, ...] = ()  # of the generator; each is trained, once a seed
    systems: tuple[str, ...] = ()  # of the segmenter: "unified", "unified-dice", "unified+teacher"
    seeds: Count = 1


class Config(Section):
    """Everything a run can be told."""

    seed: Annotated[int, Field(ge=0)] = 0
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    workers: Annotated[int, Field(ge=0)] = 0  # 0: in this process
    shard_size: Count = 32  # images per shard
    with_segmenter: bool = False  # whether `ppt run` trains one on the labels
    records: RecordsConfig = RecordsConfig()
    clip: ClipConfig = ClipConfig()
    relevance: RelevanceConfig = RelevanceConfig()
    points: PointsConfig = PointsConfig()
    generator: GeneratorConfig = GeneratorConfig()
    sam: SamConfig = SamConfig()
    masks: MasksConfig = MasksConfig()
    labels: LabelsConfig = LabelsConfig()
    segmenter: SegmenterConfig = SegmenterConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    benchmark: BenchmarkConfig = BenchmarkConfig()

    def sections(self, *names: str) -> dict[str, Any]:
        """The named sections as JSON for a manifest, less what names a file: files are known by content."""
        values = self.model_dump(mode="json", include=set(names))
        sections: dict[str, Section] = {name: getattr(self, name) for name in names}
        return {name: _without_files(values[name], type(section)) for name, section in sections.items()}


def load_config(path: Path | Sequence[Path] | None, overrides: Sequence[str] = ()) -> Config:
    """Read `path` (None: defaults only), or several of which the later say more, apply overrides such as
    "points.method=read", validate the whole.

    Raises ConfigError listing every problem.
    """
    paths = [path] if isinstance(path, Path) else [*path] if path else []
    source = " + ".join(map(str, paths)) or "--set"
    values: dict[str, Any] = {}
    for one in paths:
        values = merged(values, _anchored(read(one), Config, one.resolve().parent))
    for override in overrides:
        values = merged(values, _anchored(parsed_override(override), Config, Path.cwd()))
    try:
        text = json.dumps(values)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{source}: holds a value that is not plain text, number or list ({error})"
        ) from None
    try:
        # Strict JSON, not strict Python: a list may become a tuple, a string a path, but "2" never a number.
        return Config.model_validate_json(text)
    except ValidationError as error:
        raise ConfigError("\n".join(_line(source, problem) for problem in error.errors())) from None


def canonical_json(value: Any) -> str:
    """One line of JSON with sorted keys: the same value, the same text. Refuses NaN and infinity."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def fingerprint(*parts: Any) -> str:
    """sha256, as 64 hex digits, of the canonical JSON of `parts`."""
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()


def _anchored(values: Mapping[str, Any], model: type[BaseModel], folder: Path) -> dict[str, Any]:
    """`values` with the relative paths that `model` knows made absolute from `folder`."""
    anchored = dict(values)
    for name, field in model.model_fields.items():
        value, kind = values.get(name), field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel) and is_mapping(value):
            anchored[name] = _anchored(value, kind, folder)
        elif isinstance(value, str) and (_is_path(kind) or _is_weights_file(name, value)):
            anchored[name] = str((folder / Path(value).expanduser()).resolve())
    return anchored


def _without_files(values: Mapping[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    return {
        name: value
        for name, value in values.items()
        if name != "weights" and not _is_path(model.model_fields[name].annotation)
    }


def _is_path(kind: Any) -> bool:
    return kind is Path or Path in get_args(kind)


def _is_weights_file(name: str, value: str) -> bool:
    return name == "weights" and value.endswith(WEIGHTS_SUFFIXES)


def _line(source: str, problem: Mapping[str, Any]) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    reason = "unknown key" if problem["type"] == "extra_forbidden" else problem["msg"]
    return f"{source}: {key}: {reason} (got {problem['input']!r})"
