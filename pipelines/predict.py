"""A trained segmenter asked about images of the user's own: one, a folder of them, or a file of pairs.

    ppt predict --weights DIR --image photo.jpg --text "the red bus" --output OUT

An image or a folder leaves OUT/<name>.png, the mask drawn onto each image, and OUT/predictions.jsonl with
rows {image, text, segmentation, sure}. A file of pairs is walked as a run is: OUT/records, OUT/predictions.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipelines import s0_records, s5_predictions, stage
from pipelines.doors import open_reader
from ppt import rle
from ppt.config import Config, ConfigError, canonical_json, load_config
from ppt.durable import json_lines, write_atomic
from ppt.places import Place
from ppt.records import images
from ppt.report import preview
from ppt.segmenter.reader import Reader
from ppt.store import Artifact

PAIRS = (".jsonl", ".csv")


def segmenter_of(weights: Place) -> Artifact:
    """The segmenter's artifact: `weights` itself, or the folder `segmenter` in that of a run."""
    return Artifact.open(weights / "segmenter" if (weights / "segmenter").is_dir() else weights)


def config_of(segmenter: Artifact, overrides: Sequence[str]) -> Config:
    """The models that the segmenter was trained for, and what the user changes: a weights file has no place
    in an artifact, so that one is named again with clip.weights, sam.weights or segmenter.dino_weights.
    """
    known = segmenter.manifest.config
    sections = [f"{name}={canonical_json(known[name])}" for name in ("clip", "sam") if name in known]
    dino = canonical_json(known["segmenter"]["dino"])
    return load_config(None, [*sections, f"segmenter.dino={dino}", *overrides])


def pairs(segmenter: Artifact, config: Config, output: Place, fresh: bool = False) -> list[stage.Summary]:
    """Every pair of records.pairs: OUT/records and OUT/predictions, complete."""
    made = s0_records.run(config, output, fresh)
    return [made, s5_predictions.run(config, output, fresh, segmenter.folder)]


def pictures(
    segmenter: Artifact, config: Config, image: Path, text: str, output: Place
) -> Iterator[tuple[str, bool]]:
    """One image, or all images right in a folder, asked for `text`; for each as it is done a line, and
    whether there is a row.

    An image that cannot be read gets a line that says why, and has no row. Raises ConfigError where there is
    no image, WeightsError and ArtifactError.
    """
    names = [image.name] if image.is_file() else _images_in(image)
    root = image.parent if image.is_file() else image
    reader = open_reader(config, segmenter)
    output.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for name in names:
        try:
            row = _asked(reader, root, name, text, config, output)
        except images.ImageError as error:
            yield f"{name}: skipped ({error})", False
            continue
        rows.append(row)
        area = rle.area(rle.from_json(row["segmentation"])) if row["segmentation"] else 0
        yield f"{name}: {area} pixels, sure {row['sure']:.2f}; {output / _drawn(name)}", True
    write_atomic(output / "predictions.jsonl", json_lines(rows))


def _asked(reader: Reader, root: Path, name: str, text: str, config: Config, output: Place) -> dict[str, Any]:
    pixels = images.load(root, name, stage.image_policy(config)).pixels
    [found] = reader(pixels, [text])
    write_atomic(output / _drawn(name), preview.encode_png(preview.overlay_mask(pixels, found.mask)))
    return {"image": name, "text": text, **found.to_json()}


def _drawn(name: str) -> str:
    return f"{name}.png"


def _images_in(folder: Path) -> list[str]:
    known = {suffix for suffixes in images.SUFFIXES.values() for suffix in suffixes}
    names = sorted(path.name for path in folder.glob("*") if path.suffix.lower() in known)
    if not names:
        raise ConfigError(f"--image {folder}: neither an image, nor a folder of images, nor a file of pairs")
    return names
