"""The segmenter's parts, losses and measures against noise, side by side on the same labels; judged against
the truth.

    ppt benchmark segmenter CONFIG.yaml --output DIR [--pairs PAIRS --truth TRUTH]

Walks DIR to the labels as a run would, trains a segmenter for each of `benchmark.systems` and each seed
(DIR/benchmark/<system>_<seed>), asks it for the sentences that may not teach, and writes
DIR/benchmark/segmenter.json and segmenter.md. A system is a shipped config of that name, of which the parts,
losses and measures are taken; "unified-dice" is that system without a loss, measure or part, and
"unified+teacher" with one. The ceiling is the unified one taught by true masks in place of labels, which no
run could do.
"""

import json
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from tqdm import tqdm

from pipelines import run as recipe
from pipelines import s5_segmenter, shipped, stage
from pipelines.benchmark.tables import Judged, Row, groups_of, markdown, percent, report
from pipelines.doors import open_reader, open_staged_door
from ppt import metrics, rle
from ppt.activation import NonTarget, non_target
from ppt.config import Config, ConfigError
from ppt.durable import write_atomic
from ppt.manifest import Manifest
from ppt.metrics import Conventions, Sample
from ppt.records import images
from ppt.rle import Rle
from ppt.segmenter.reader import Prediction, Reader
from ppt.settings import NoiseConfig, SegmenterConfig
from ppt.store import Artifact, begin
from ppt.strict_yaml import read
from ppt.types import PseudoLabel, Truth

LABELS, CEILING, TRUE = "pseudo-labels", "unified, taught by the truth", "benchmark/true_labels"
COLUMNS = {
    "miou": "mIoU",
    "oiou": "oIoU",
    "prec@0.5": "Prec@0.5",
    "prec@0.7": "Prec@0.7",
    "prec@0.9": "Prec@0.9",
}
LOSSES = {"pairwise": 0.1, "contrast": 0.1, "grounding": 0.2, "alignment": 0.05}
"""Weights of losses that a system can be given."""
MEASURES = {
    "teacher": 0.5,
    "pixel_confidence": True,
    "correction": 0.5,
    "exclusion": 0.1,
    "sharing": True,
    "truncation": 0.15,
    "hidden_patches": 0.15,
    "hidden_words": 0.15,
}
"""Measures against noise, as strong as a system can be given them."""
WITHOUT: dict[str, dict[str, Any]] = {
    "mosaics": {"mosaics": 0.0},
    "prior": {"prior": False},
    "rounds": {"rounds": 0},
    "neck": {"neck": "concat"},
    "adapter": {"adapter": "none"},
    "choice": {"things": 1},
    "sam": {"decoder": "query"},
}
"""Parts that a system can go without, and what it has in their place."""
WITH: dict[str, dict[str, Any]] = {
    **{name: {"losses": {name: weight}} for name, weight in LOSSES.items()},
    **{name: {"noise": {name: value}} for name, value in MEASURES.items()},
    "rounds": {"rounds": 2},
    "bridger": {"adapter": "bridger"},
}
"""Parts, losses and measures that a system can be given."""
TIMED = 40
"""Images over which the time a sentence takes is the median."""


@dataclass(frozen=True)
class Found:
    """What one system made of the sentences. nta: the non-target activation of its probabilities, of those
    with distractors, by split; wrong_mask there is of its mask. millions: of trained parameters; each:
    milliseconds a sentence.
    """

    judged: list[Judged] = field(default_factory=list)
    nta: dict[str, list[NonTarget]] = field(default_factory=lambda: defaultdict(list))
    millions: float = 0.0
    each: float = 0.0


def segmenter(config: Config, output: Path) -> str:
    """Run the comparison; returns the tables as Markdown."""
    systems = {name: settings(config, name) for name in config.benchmark.systems}
    points = ["points"] if config.points.method == "generator" else []
    for name in ("records", "relevance", *points, "masks", "labels"):
        recipe.STAGES[name](config, output, False)
    truth = {row["id"]: row for row in Artifact.open(output / "truth").rows()}
    held = {id: row for id, row in truth.items() if row["split"] not in config.segmenter.splits} or truth
    groups = groups_of(Artifact.open(output / "records"), held)
    conventions = Conventions(config.evaluate.empty, config.evaluate.at_least)
    found = {(LABELS, 0): _labels(output, held, groups, conventions)}
    clip = open_staged_door(config)
    for name, own in systems.items():
        for seed in range(config.benchmark.seeds):
            home = f"benchmark/{name}_{seed}"
            labels = _taught_by_truth(config, output, truth) if name == "ceiling" else "labels"
            seeded = own.model_copy(update={"seed": seed})
            s5_segmenter.run(
                config.model_copy(update={"segmenter": seeded}), output, name=home, labels=labels
            )
            reader = open_reader(config, Artifact.open(output / home), clip)
            found[titled(name), seed] = _asked(config, output, reader, held, groups, conventions)
    reports = {row: report(one.judged, held, groups, conventions) for row, one in found.items()}
    table = _tables(reports, found)
    kept = {
        f"{name} #{seed}": {
            **reports[name, seed],
            "nta": {split: _nta(measured) for split, measured in sorted(one.nta.items())},
            "trained_millions": one.millions,
            "ms_per_pair": one.each,
        }
        for (name, seed), one in found.items()
    }
    folder = output / "benchmark"
    write_atomic(folder / "segmenter.json", (json.dumps(kept, indent=1, sort_keys=True) + "\n").encode())
    write_atomic(folder / "segmenter.md", table.encode())
    return table


def settings(config: Config, system: str) -> SegmenterConfig:
    """The config's segmenter with the parts, losses and measures of a system.

    Raises ConfigError for one that is not known, or that is another by name only.
    """
    name, sign, part = _signed(system)
    design = "unified" if name == "ceiling" else name
    known = [one.removeprefix("segmenter_") for one in shipped.names() if one.startswith("segmenter_")]
    if design not in known:
        raise ConfigError(
            f"benchmark.systems: expected ceiling, one of {known}, or one of them less or with a loss,"
            f" measure or part, as unified-dice or unified+teacher (got {system!r})"
        )
    own = read(shipped.config_path(f"segmenter_{design}"))["segmenter"]
    whole = SegmenterConfig.model_validate({**config.segmenter.model_dump(), **own})
    merged = whole.model_dump()
    changes = {} if not part else WITH.get(part) if sign == "+" else _without(merged, part)
    if changes is None:
        how = "be given" if sign == "+" else "go without"
        raise ConfigError(f"benchmark.systems: {name} has no loss, measure or part {part!r} to {how}")
    for key, value in changes.items():
        merged[key] = {**merged[key], **value} if isinstance(value, dict) else value
    changed = SegmenterConfig.model_validate(merged)
    if part and changed == whole:
        raise ConfigError(f"benchmark.systems: {system} is what {name} is; leave it out")
    return changed


def _signed(system: str) -> tuple[str, str, str]:
    """The name of a system, "-" or "+" or nothing, and what it is less or with."""
    for sign in "+-":
        name, found, part = system.partition(sign)
        if found:
            return name, sign, part
    return system, "", ""


def _without(settings: Mapping[str, Any], part: str) -> dict[str, Any] | None:
    """What changes where a part, a loss or a measure is left out; None where there is no such one."""
    if part in WITHOUT:
        return WITHOUT[part]
    if settings["losses"].get(part):
        return {"losses": {part: 0.0}}
    if settings["noise"].get(part):
        return {"noise": {part: NoiseConfig().model_dump()[part]}}
    return None


def titled(system: str) -> str:
    """A system's name in the table."""
    name, sign, part = _signed(system)
    if name == "ceiling":
        return CEILING
    return f"… with{'' if sign == '+' else 'out'} {part.replace('_', ' ')}" if part else name


def _taught_by_truth(config: Config, output: Path, truth: Mapping[str, Any]) -> str:
    """Labels made of the true masks of the sentences that may teach; their folder in DIR."""
    labels = Artifact.open(output / "labels")
    manifest = Manifest(
        "benchmark/true_labels",
        schema_version=1,
        config={},
        inputs={"truth": Artifact.open(output / "truth").fingerprint, "labels": labels.fingerprint},
        weights={},
        seed=config.seed,
    )
    rows = [_as_label(row, truth[row["id"]]) for row in labels.rows() if row["id"] in truth]
    with begin(output / TRUE, manifest, {"00000": [row["id"] for row in rows]}) as writer:
        for shard in writer.missing:
            shard.write(rows)
        writer.finish()
    return TRUE


def _as_label(row: dict[str, Any], true: dict[str, Any]) -> dict[str, Any]:
    mask = Truth.from_json(true).rle
    return PseudoLabel(
        row["id"], row["image"], row["text"], mask, {}, 1.0 if rle.area(mask) else 0.0
    ).to_json()


def _labels(
    output: Path, held: Mapping[str, Any], groups: Mapping[str, tuple[str, ...]], conventions: Conventions
) -> Found:
    found = Found()
    for row in Artifact.open(output / "labels").rows():
        if row["id"] in held:
            mask = PseudoLabel.from_json(row).segmentation
            map = None if mask is None else rle.decode(mask).astype(np.float32)
            _note(found, held[row["id"]], mask, map, groups, conventions)
    return found


def _asked(
    config: Config,
    output: Path,
    reader: Reader,
    held: Mapping[str, Any],
    groups: Mapping[str, tuple[str, ...]],
    conventions: Conventions,
) -> Found:
    """What a segmenter makes of the sentences held."""
    found, took = Found(), list[float]()
    root, policy = stage.images_root(config, output), stage.image_policy(config)
    records = Artifact.open(output / "records")
    for key in tqdm(records.keys, desc="benchmark", unit="shard", disable=None, leave=False):
        for sha256, own in stage.by_content(records, key).items():
            asked = [record for record in own if record.pair.id in held]
            if not asked:
                continue
            texts = [record.pair.text for record in asked]
            predictions: list[Prediction | None] = [None] * len(asked)
            maps: list[dict[str, np.ndarray]] = [{}] * len(asked)
            try:
                pixels = images.load(root, asked[0].pair.image, policy, sha256).pixels
            except images.ImageError:  # its sentences count as missing
                pass
            else:
                begun = time.perf_counter()
                predictions = [*reader(pixels, texts)]
                took.append(1000 * (time.perf_counter() - begun) / len(asked))
                if any(held[record.pair.id].get("distractors") for record in asked):
                    maps = reader.activations(pixels, texts)
            for record, prediction, shown in zip(asked, predictions, maps, strict=True):
                mask = prediction and prediction.mask
                _note(found, held[record.pair.id], mask, shown.get("logits"), groups, conventions)
    trained = sum(value.numel() for value in reader.segmenter.parameters())
    return Found(found.judged, found.nta, trained / 1e6, float(np.median(took[:TIMED])) if took else 0.0)


def _note(
    found: Found,
    row: dict[str, Any],
    mask: Rle | None,
    map: np.ndarray | None,
    groups: Mapping[str, tuple[str, ...]],
    conventions: Conventions,
) -> None:
    """Add one sentence."""
    true = Truth.from_json(row)
    sample = Sample(true.id, true.rle, mask, None, row["split"], row["source"], row["kind"])
    found.judged.append(Judged(metrics.score(sample, conventions), groups[true.id]))
    if not true.distractors:
        return
    blank = np.zeros((true.rle.height, true.rle.width), np.float32)
    others = [rle.decode(one) for one in true.distractors]
    lit = non_target(blank if map is None else map, rle.decode(true.rle), others)
    shape = blank if mask is None else rle.decode(mask).astype(np.float32)
    drawn = non_target(shape, rle.decode(true.rle), others)
    if lit is not None and drawn is not None:
        found.nta[row["split"] or "all"].append(replace(lit, wrong_mask=drawn.wrong_mask))


def _tables(reports: Mapping[Row, Mapping[str, Mapping[str, float]]], found: Mapping[Row, Found]) -> str:
    """For each split the metrics and what the parts cost, then mIoU by group."""
    names = list(dict.fromkeys(name for name, _ in found))
    one = next(iter(reports.values()))
    blocks: list[str] = []
    for split in sorted(group for group in one if "/" not in group):
        rows = {
            name: [*_cells(reports, name, [(split, c) for c in COLUMNS]), *_costs(found, name, split)]
            for name in names
        }
        titles = [*COLUMNS.values(), "NTA density", "wrong instance", "M trained", "ms a pair"]
        blocks.append(markdown(f"{split} (n = {one[split]['n']})", titles, rows))
        inner = [group for group in one if group.startswith(f"{split}/")]
        if inner:
            rows = {name: _cells(reports, name, [(g, "miou") for g in inner]) for name in names}
            titles = [f"{g.split('/')[1]} ({one[g]['n']})" for g in inner]
            blocks.append(markdown(f"{split}, mIoU", titles, rows))
    return "\n".join(blocks)


def _cells(
    reports: Mapping[Row, Mapping[str, Mapping[str, float]]], name: str, wanted: Sequence[tuple[str, str]]
) -> list[str]:
    own = [one for (of, _), one in reports.items() if of == name]
    return [percent([one[group][metric] for one in own]) for group, metric in wanted]


def _costs(found: Mapping[Row, Found], name: str, split: str) -> Iterator[str]:
    """Non-target activation; trained parameters; time."""
    own = [one for (of, _), one in found.items() if of == name]
    measured = [_nta(one.nta[split]) for one in own]
    yield percent([one["density"] for one in measured])
    yield percent([one["wrong_mask"] for one in measured])
    yield f"{own[0].millions:.2f}" if own[0].millions else ""
    yield f"{mean(one.each for one in own):.0f}" if own[0].each else ""


def _nta(measured: Sequence[NonTarget]) -> dict[str, float]:
    """How many, and the means of the two measures of the table; 0 where there is none."""
    several = measured or [NonTarget(*[0.0] * len(fields(NonTarget)))]
    means = {name: mean(getattr(one, name) for one in several) for name in ("density", "wrong_mask")}
    return {"n": len(measured), **means}
