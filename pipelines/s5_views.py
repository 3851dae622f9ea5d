"""Whether the words still say the same of a label when CLIP looks in another way.

    ppt views CONFIG.yaml --output DIR

Reads DIR/records, DIR/relevance, DIR/labels and the images. Writes DIR/views: rows {id, mirrored, smaller,
reworded}, the label's agreement (as `ppt.prompting.agreement` has it, in [-1, 1]) with the relevance map of
the mirror image, whose left is right in the sentence too; of the image at `views.scale` times CLIP's size;
and of the sentence within `views.words`. `views.ask` says which. A label without a mask has {id} alone. No
truth is read.
"""

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import UInt8

from pipelines import stage
from pipelines.doors import open_clip_door
from ppt.backbones.clip import Clip
from ppt.config import Config
from ppt.manifest import Manifest
from ppt.places import Place
from ppt.prompting import agreement
from ppt.records import images
from ppt.relevance import relevance_maps
from ppt.shard import Failure, Shard
from ppt.store import Artifact
from ppt.types import DenseFeatures, PseudoLabel, Record, RelevanceMap

STAGE = "views"
_SIDES = {"left": "right", "right": "left"}
Look = Callable[[UInt8[np.ndarray, "h w 3"], DenseFeatures, Sequence[str]], list[RelevanceMap]]
"""(image, what CLIP has made of it, sentences) -> a map in the image's own frame for each."""


@dataclass(frozen=True)
class Context:
    """What one process keeps: ways to look by name, what it reads, and where and how images are read."""

    looks: dict[str, Look]
    records: Artifact
    relevance: Artifact
    labels: Artifact
    root: Place
    policy: images.ImagePolicy


def run(config: Config, output: Place, fresh: bool = False) -> stage.Summary:
    """Make DIR/views complete. Raises StaleArtifact, WeightsError and the errors of what it reads."""
    inputs = {name: Artifact.open(output / name) for name in ("records", "relevance", "labels")}
    labels = inputs["labels"]
    clip = open_clip_door(config)
    manifest = Manifest(
        STAGE,
        schema_version=1,
        config=config.sections("clip", "relevance", STAGE),
        inputs={name: artifact.fingerprint for name, artifact in inputs.items()},
        weights={"clip": clip.weights_sha256},
        seed=config.seed,
    )
    plan = {key: [row["id"] for row in labels.rows(key)] for key in labels.keys}
    parts = stage.parts(plan, *inputs.values())
    with stage.begun(config, output / STAGE, manifest, plan, parts, fresh) as writer:
        make = stage.Making(functools.partial(context, config, output), clip)
        artifact, summary = stage.fill(writer, shard_of_views, make, config)
        if artifact is None:
            return summary
        lowest = {row.pop("id"): min(row.values(), default=1.0) for row in artifact.rows()}
        seen = [row for row in labels.rows() if row["id"] in lowest]
        seen.sort(key=lambda row: (lowest[row["id"]], row["id"]))
        shown = [
            (row["image"], row["segmentation"], f"{lowest[row['id']]:.2f} {row['text']}") for row in seen
        ]
        stage.leave_masks(artifact.folder, shown, config, output)
    return summary


def context(config: Config, output: Place, clip: Clip | None = None) -> Context:
    """The context of one process; loads the model unless it is given."""
    ways = _looks(clip or open_clip_door(config), config)
    return Context(
        {name: ways[name] for name in config.views.ask},
        Artifact.open(output / "records"),
        Artifact.open(output / "relevance"),
        Artifact.open(output / "labels"),
        stage.images_root(config, output),
        stage.image_policy(config),
    )


def shard_of_views(context: Context, shard: Shard) -> None:
    """Write one shard: every image looked at in each way, for all its labels with a mask."""
    labels = {row["id"]: PseudoLabel.from_json(row) for row in context.labels.rows(shard.key)}
    features = context.relevance.tensors(shard.key)
    found: dict[str, dict[str, Any]] = {id: {"id": id} for id in labels}
    failures: list[Failure] = []
    groups = stage.by_content(
        context.records, shard.key, lambda r: r.pair.id in labels and bool(labels[r.pair.id].segmentation)
    )
    for sha256, asked in stage.attempted(shard, STAGE, failures, groups):
        try:
            with stage.at_image(asked[0].pair.image):
                seen = _seen(context, features[f"dense/{sha256}"], asked, labels)
            for id, values in seen:
                found[id] |= values
        except images.ImageError as error:
            failures += [Failure(STAGE, r.pair.id, error.error, error.message) for r in asked]
        except MemoryError as error:
            failures += stage.out_of_memory(STAGE, asked, error)
        except ValueError as error:  # features that are not finite
            image = asked[0].pair.image
            failures += [Failure(STAGE, r.pair.id, "bad_features", f"{image}: {error}") for r in asked]
    lost = {failure.id for failure in failures}
    shard.write([row for id, row in found.items() if id not in lost], None, failures)


def _seen(
    context: Context, dense: np.ndarray, records: Sequence[Record], labels: dict[str, PseudoLabel]
) -> list[tuple[str, dict[str, float]]]:
    """The agreements of the labels of one image. Raises ImageError, ValueError."""
    first, texts = records[0], list(dict.fromkeys(record.pair.text for record in records))
    pixels = images.load(context.root, first.pair.image, context.policy, first.sha256).pixels
    known = DenseFeatures(dense.astype(np.float32), first.height, first.width)
    maps = {name: look(pixels, known, texts) for name, look in context.looks.items()}
    seen: list[tuple[str, dict[str, float]]] = []
    for record in records:
        mask, at = labels[record.pair.id].segmentation, texts.index(record.pair.text)
        assert mask is not None  # those without are not asked about
        seen.append((record.pair.id, {name: round(agreement(mask, m[at]), 6) for name, m in maps.items()}))
    return seen


def _looks(clip: Clip, config: Config) -> dict[str, Look]:
    empty = clip.encode_texts([""])[0][0]
    smaller = clip.at(config.views.scale)

    def maps(features: DenseFeatures, texts: Sequence[str]) -> list[RelevanceMap]:
        vectors, _ = clip.encode_texts(list(texts))
        return relevance_maps(features, vectors, empty, config.relevance.redundancy)

    def of_mirror(
        image: UInt8[np.ndarray, "h w 3"], _: DenseFeatures, texts: Sequence[str]
    ) -> list[RelevanceMap]:
        seen = clip.encode_image(np.ascontiguousarray(image[:, ::-1]))
        found = maps(seen, [mirrored(text) for text in texts])
        return [replace(one, values=np.ascontiguousarray(one.values[:, ::-1])) for one in found]

    return {
        "mirrored": of_mirror,
        "smaller": lambda image, _, texts: maps(smaller.encode_image(image), texts),
        "reworded": lambda _, known, texts: maps(known, [config.views.words.format(text) for text in texts]),
    }


def mirrored(text: str) -> str:
    """The sentence about the mirror image: "the leftmost dog" -> "the rightmost dog"."""
    return re.sub(
        r"(?i)\b(left|right)(?=\b|most\b|hand\b)",
        lambda found: _cased(_SIDES[found[0].lower()], found[0]),
        text,
    )


def _cased(word: str, like: str) -> str:
    return word.upper() if like.isupper() else word.capitalize() if like[0].isupper() else word
