"""The weights of a named CLIP architecture: which file they are, and what they were trained with.

open_clip's table of pretrained tags says what a tag's colours and activation are; `published.py` where the
weights are that we know by name.
"""

from pathlib import Path
from typing import Any

import open_clip

from ppt.backbones import published
from ppt.backbones import weights as checkpoints
from ppt.backbones.weights import WeightsError

_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")


def named_weights(model: str, weights: str | Path | None) -> tuple[Path, str, str | None]:
    """(file, sha256, tag or None) for a named architecture.

    weights: a file, or one of the architecture's tags. A file has the tag of the published one with its
    sha256, or the one in its name `<model>.<tag>.*`. Raises WeightsError where there is neither.
    """
    tags = open_clip.list_pretrained_tags_by_model(model)
    if weights is None:
        raise WeightsError(f"clip.weights is empty: {model!r} needs a weights file or one of its tags {tags}")
    if Path(weights).suffix in _SUFFIXES or Path(weights).name != str(weights):
        remedy = f"name an existing file, or one of the tags {tags}, in clip.weights"
        own = checkpoints.Checkpoint(f"clip {model}", Path(weights).name, remedy)
        path, sha256 = checkpoints.resolve(own, weights)
        known = published.by_sha256(sha256)
        declared = known.tag if known else path.stem.removeprefix(f"{model}.")
        return path, sha256, declared if declared in tags else None
    tag = str(weights)
    if tag not in tags:
        raise WeightsError(
            f"{tag!r} is neither a weights file nor a pretrained tag of {model!r}: its tags are {tags}"
        )
    return *checkpoints.resolve(_tagged(model, tag)), tag


def _tagged(model: str, tag: str) -> checkpoints.Checkpoint:
    """The checkpoint of a tag: the one we list, or by open_clip's table."""
    listed = published.official_clip(model, tag)
    if listed:
        return listed
    settings = open_clip.get_pretrained_cfg(model, tag)
    names = [f"{model}.{tag}{suffix}" for suffix in _SUFFIXES]
    repository = settings.get("hf_hub", "").rpartition("/")[0]
    source = f"{published.HUB}/{repository}" if repository else settings.get("url", "")
    remedy = (
        f"get it from {source}, and name the file in clip.weights or keep it as {model}.{tag} with its own "
        f"suffix in the folder that {checkpoints.ENVIRONMENT_FOLDER} names"
    )
    return checkpoints.Checkpoint(
        f"clip {model} {tag}", names[0], remedy, also=tuple(names[1:]), hub=repository
    )


def tag_settings(model: str, tag: str | None, path: Path) -> dict[str, Any]:
    """Preprocessing (and, for a tag, activation) that the weights were trained with.

    A file without a tag gets what all tags of the architecture share. Raises WeightsError where they differ.
    """
    if tag is not None:
        return dict(open_clip.get_pretrained_cfg(model, tag))
    tags = open_clip.list_pretrained_tags_by_model(model)
    known = [open_clip.get_pretrained_cfg(model, name) for name in tags]
    statistics = {(tuple(row.get("mean", ())), tuple(row.get("std", ()))) for row in known}
    if len(statistics) > 1:
        raise WeightsError(
            f"{path}: weights of {model!r} come with {len(statistics)} colour statistics; rename the file to "
            f"{model}.<tag>{path.suffix} with one of the tags {tags}"
        )
    return {key: value for key, value in known[0].items() if key in ("mean", "std")} if known else {}
