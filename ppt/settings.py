"""Every setting with its default: a frozen, strict model for each section of a config."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, GetPydanticSchema, model_validator
from pydantic_core import CoreSchema, core_schema

from ppt.places import Place, Remote, place

Source = Literal["object_centric", "mosaic", "referring"]
View = Literal["mirrored", "smaller", "reworded"]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


def _place_schema(*_: Any) -> CoreSchema:
    """A path or a URL, from text."""
    remote, path = core_schema.is_instance_schema(Remote), core_schema.is_instance_schema(Path)
    text = core_schema.str_schema(strict=True)
    return core_schema.json_or_python_schema(
        core_schema.no_info_after_validator_function(place, text),
        core_schema.union_schema([remote, path]),
        serialization=core_schema.to_string_ser_schema(),
    )


Named = Annotated[Place, GetPydanticSchema(_place_schema)]


class Section(BaseModel):
    """Strictness shared by all sections."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


Format = Literal[
    "pairs",
    "refer",
    "cris",
    "phrasecut",
    "coco_captions",
    "flickr30k",
    "classes",
    "imagefolder",
    "webdataset",
]


class SourceConfig(Section):
    """A data set in the layout it is published in."""

    format: Format
    path: Named  # the file, or the folder, that the format's reader names; a URL for pairs alone
    images: Named | None = None  # the folder of its images; None: where the layout has it
    by: str = "unc"  # of refer: whose split, as in refs(unc).p
    splits: tuple[str, ...] = ()  # of those it has; empty: all
    split: str = "train"  # of data that has none of its own
    truth: bool = True  # whether the true masks it comes with are locked away for evaluation
    per_class: Count | None = None  # of classes: the first so many images of each
    names: Path | None = None  # of classes: the file that says what the folders' names mean
    template: Annotated[str, Field(pattern=r"\{\}")] = "{}"  # of classes: the sentence about a {}


class RecordsConfig(Section):
    pairs: Named | None = None  # a path or a URL
    truth: Named | None = None
    sources: tuple[SourceConfig, ...] = ()  # data sets, beside the pairs
    drop_leaks: bool = False  # leave out what teaches about an image that is judged, rather than stop
    splits: tuple[str, ...] = ()  # empty: all
    limit: Count | None = None
    max_pixels: Annotated[int, Field(ge=1, le=2**28)] = 64_000_000
    exif: Literal["ignore", "transpose"] = "ignore"
    alpha: Literal["white", "black"] = "white"
    follow_links: bool = False
    sentence: Literal["sent", "raw"] = "sent"  # of REFER's two spellings; other data has one
    overlap: Literal["any", "once"] = "any"  # where polygons of a thing overlap: true, or not (for parity)


class RayConfig(Section):
    """Of engine: ray. Shards are done by actors, each of which has its own models."""

    address: str = "local"  # host:port of a cluster; auto: the one this machine is of; local: started here
    actors: Annotated[int, Field(ge=0)] = 0  # 0: as many as there is room for
    cores: Count = 1  # of each actor
    gpus: Annotated[float, Field(ge=0)] = 0.0
    memory_gib: Annotated[float, Field(ge=0)] = 0.0  # that Ray counts for each; 0: uncounted


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
    accumulate: Count = 1  # batches, of both, whose gradients make a step
    rate: Annotated[float, Field(gt=0)] = 2e-3
    save_every: Count = 100


class SamConfig(Section):
    model: Literal["embedded", "vit_b", "vit_l", "vit_h", "mobile_sam"] = "embedded"
    weights: Path | None = None
    prompt_batch: Count = 8
    bfloat16: bool = False  # the image encoder's arithmetic; the masks differ a little
    compile: bool = False  # the image encoder, by torch.compile; for many images, and other last bits


class MasksConfig(Section):
    choice: Literal["agreement", "predicted_iou"] = "agreement"
    min_area: Share = 0.0005  # share of the image
    max_area: Share = 0.9


class LabelsConfig(Section):
    min_stability: Share = 0.5
    min_agreement: Annotated[float, Field(ge=-1, le=1)] = 0.1
    conflict_iou: Share = 0.9  # overlap at which two sentences' masks are remarked on


class ViewsConfig(Section):
    """Other ways in which CLIP looks for what a label shows."""

    ask: tuple[View, ...] = ("mirrored", "smaller", "reworded")  # empty: none
    scale: Annotated[float, Field(gt=0, le=4)] = 0.75  # of smaller: times CLIP's size
    words: Annotated[str, Field(pattern=r"^[^{}]*\{\}[^{}]*$")] = "a photo of {}"  # of reworded


class QualityConfig(Section):
    """Bands of the quality, which says what IoU a label is expected to have."""

    keep: Share = 0.75  # from here on: keep
    drop: Share = 0.5  # below: drop; between the two a person may look

    @model_validator(mode="after")
    def _in_order(self) -> "QualityConfig":
        if self.drop > self.keep:
            raise ValueError(f"drop: expected no more than keep, {self.keep}")
        return self


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


class PredictionsConfig(Section):
    # the probability above which a pixel is in the segmenter's mask; where SAM draws it, it has no say
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5


class EvaluateConfig(Section):
    unit: Literal["sentence", "first_sentence"] = "sentence"  # what is a sample; the first of each thing's
    resolution: Literal["native"] | Annotated[int, Field(ge=1, le=4096)] = "native"  # or a square's side
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
    # of speed:
    images: Count = 4
    sentences: Count = 7  # about each of them
    rounds: Count = 3
    untrained: tuple[Literal["vit_b", "vit_l", "vit_h", "mobile_sam"], ...] = ()  # SAMs raced without weights
    batch: Count = 8  # sentences that networks read at once
    steps: Count = 20  # of each training that is timed
    # of engine:
    shards: Annotated[int, Field(ge=4)] = 20
    shard_seconds: tuple[Annotated[float, Field(gt=0)], ...] = (0.2, 1.0)  # that a shard sleeps
    pairs: Count = 1_000_000  # that are planned
