"""The one config loader: a YAML file and `section.key=value` overrides -> frozen, strict models.

Unknown keys, wrong types and values out of range are errors; all of them are reported together. Relative
paths in the file are relative to the file's folder, in overrides to the current folder; one may begin with a
variable of the environment, as $PPT_DATA/refcoco. Pairs, truth and images may be URLs. Defaults live in
`settings.py`.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from ppt.places import PlaceError, Remote, place
from ppt.settings import (
    BenchmarkConfig,
    ClipConfig,
    Count,
    EvaluateConfig,
    GeneratorConfig,
    LabelsConfig,
    MasksConfig,
    PointsConfig,
    PredictionsConfig,
    QualityConfig,
    RayConfig,
    RecordsConfig,
    RelevanceConfig,
    SamConfig,
    Section,
    SegmenterConfig,
    ViewsConfig,
)
from ppt.strict_yaml import ConfigError, is_mapping, merged, parsed_override, read

WEIGHTS_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")


class Config(Section):
    """Everything a run can be told."""

    seed: Annotated[int, Field(ge=0)] = 0
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    engine: Literal["local", "ray"] = "local"  # who does the shards; what is made does not depend on it
    workers: Annotated[int, Field(ge=0)] = 0  # of local; 0: in this process
    # of each process that works on shards; 0: this machine's, shared out among the workers. The last bits of
    # what networks compute depend on it
    threads: Annotated[int, Field(ge=0)] = 0
    # that a worker may take for an image with its sentences, and be ended twice for, before the image is
    # passed over; 0: any
    item_seconds: Annotated[float, Field(ge=0)] = 0.0
    shard_size: Count = 32  # images per shard
    # (3, 16): of a stage every 16th shard alone, from number 3 (from 0), while others make the rest
    share: tuple[Annotated[int, Field(ge=0)], Count] | None = None
    # of what SAM makes of images, kept in DIR/embeddings for later stages; the folder may be deleted
    embeddings_gib: Annotated[float, Field(ge=0)] = 0.0
    keep_trained: bool = False  # whether what was trained on other inputs stays in use
    with_segmenter: bool = False  # whether `ppt run` trains one on the labels
    records: RecordsConfig = RecordsConfig()
    clip: ClipConfig = ClipConfig()
    relevance: RelevanceConfig = RelevanceConfig()
    points: PointsConfig = PointsConfig()
    generator: GeneratorConfig = GeneratorConfig()
    sam: SamConfig = SamConfig()
    masks: MasksConfig = MasksConfig()
    labels: LabelsConfig = LabelsConfig()
    views: ViewsConfig = ViewsConfig()
    quality: QualityConfig = QualityConfig()
    segmenter: SegmenterConfig = SegmenterConfig()
    predictions: PredictionsConfig = PredictionsConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    benchmark: BenchmarkConfig = BenchmarkConfig()
    ray: RayConfig = RayConfig()

    @property
    def in_process(self) -> bool:
        """Whether shards are done in this process, which can then share its models with them."""
        return self.engine == "local" and self.workers == 0

    @model_validator(mode="after")
    def _someone_to_end(self) -> "Config":
        if self.item_seconds and self.in_process:
            raise ValueError("item_seconds: expected workers of 1 or more, or engine ray: a worker is ended")
        return self

    @field_validator("share")
    @classmethod
    def _is_one_of_them(cls, share: tuple[int, int] | None) -> tuple[int, int] | None:
        if share is not None and share[0] >= share[1]:
            raise ValueError(f"counted from 0, the shares of {share[1]} end with {share[1] - 1}")
        return share

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
        inner = _section_of(kind)
        if inner and is_mapping(value):
            anchored[name] = _anchored(value, inner, folder)
        elif inner and isinstance(value, list):
            several = cast("list[Any]", value)
            anchored[name] = [_anchored(one, inner, folder) if is_mapping(one) else one for one in several]
        elif isinstance(value, str) and (_is_path(kind) or _is_weights_file(name, value)):
            anchored[name] = _anchored_path(name, value, folder, _may_be_url(kind))
    return anchored


def _anchored_path(name: str, value: str, folder: Path, url_allowed: bool) -> str:
    """The path from `folder`, or the URL as it is. Raises ConfigError for a URL that is no place, or may not
    be one here.
    """
    expanded = _expanded(name, value)
    try:
        found = place(expanded)
    except PlaceError as error:
        raise ConfigError(f"{name}: {error}") from None
    if isinstance(found, Path):
        return str((folder / found.expanduser()).resolve())
    if not url_allowed:
        raise ConfigError(f"{name}: expected a path on a disk, to a copy of it (got {expanded})")
    return str(found)


def _expanded(name: str, path: str) -> str:
    """The path with $NAME replaced by the environment's. Raises ConfigError for one that is not set."""
    expanded = os.path.expandvars(path)
    if path.startswith("$") and expanded == path:
        variable = path[1:].split("/")[0].strip("{}")
        raise ConfigError(
            f"{name}: {path} names the variable {variable}, which is not set; export it, or name a path"
        )
    return expanded


def _without_files(values: Mapping[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    kinds = {name: field.annotation for name, field in model.model_fields.items()}
    kept: dict[str, Any] = {}
    for name, value in values.items():
        inner = _section_of(kinds[name])
        if inner and isinstance(value, list):
            kept[name] = [_without_files(one, inner) for one in cast("list[dict[str, Any]]", value)]
        elif name != "weights" and not _is_path(kinds[name]):
            kept[name] = value
    return kept


def _section_of(kind: Any) -> type[BaseModel] | None:
    """The section that a field holds, one or several of."""
    found = next(iter(get_args(kind)), kind)
    return found if isinstance(found, type) and issubclass(found, BaseModel) else None


def _is_path(kind: Any) -> bool:
    return kind is Path or any(_is_path(one) for one in get_args(kind))


def _may_be_url(kind: Any) -> bool:
    return kind is Remote or any(_may_be_url(one) for one in get_args(kind))


def _is_weights_file(name: str, value: str) -> bool:
    return name == "weights" and value.endswith(WEIGHTS_SUFFIXES)


def _line(source: str, problem: Mapping[str, Any]) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    reason = "unknown key" if problem["type"] == "extra_forbidden" else problem["msg"]
    return f"{source}: {key}: {reason} (got {problem['input']!r})"
