"""Another run's labels of the same pairs, to look at side by side."""

from dataclasses import replace
from statistics import fmean
from typing import Any

from ppt import rle
from ppt.places import Place
from ppt.report.gather import Item, Other, Run, read_run
from ppt.rle import Rle

_COLUMNS = ("pairs", "with a mask", "used", "mean weight", "mean quality", "IoU")


def beside(run: Run, folder: Place) -> tuple[Run, dict[str, Any]]:
    """`run`, of whose items each knows what the run in `folder` made of the same sentence in the same image;
    and a table of both over the pairs that they share: {"columns", "rows", "note"}.

    Raises ReportError where `folder` holds no run, ArtifactError where one of them is damaged.
    """
    other = read_run(folder)
    theirs = {item.id: item for item in other.items}
    shared = {item.id for item in run.items if item.id in theirs and _same(item, theirs[item.id])}
    masks, own = _masks(other), _masks(run)
    items = [
        replace(item, other=_other(theirs[item.id], masks, own)) if item.id in shared else item
        for item in run.items
    ]
    pairs = [(run.folder.name, run.items), (other.folder.name, other.items)]
    rows = [_row(name, [item for item in some if item.id in shared]) for name, some in pairs]
    near = [item.other.nearness for item in items if item.other and item.other.nearness is not None]
    note = f"{len(shared):,} of {len(run.items):,} pairs are in both"
    note += f"; their masks agree with IoU {fmean(near):.3f} on the mean." if near else "."
    table = {"name": other.folder.name, "columns": _COLUMNS, "rows": rows, "note": note}
    return replace(run, items=tuple(items)), table


def _same(item: Item, other: Item) -> bool:
    ours, theirs = item.record, other.record
    return (ours.sha256, ours.pair.text, ours.height, ours.width) == (
        theirs.sha256, theirs.pair.text, theirs.height, theirs.width,
    )  # fmt: skip


def _masks(run: Run) -> dict[str, Rle]:
    """The masks of the labels, by id."""
    rows = run.stages["labels"].rows() if "labels" in run.stages else ()
    return {row["id"]: rle.from_json(row["segmentation"]) for row in rows if row["segmentation"]}


def _other(item: Item, masks: dict[str, Rle], own: dict[str, Rle]) -> Other:
    mask, ours = masks.get(item.id), own.get(item.id)
    nearness = rle.iou(mask, ours) if mask and ours else (0.0 if mask or ours else None)
    return Other(item.weight, item.quality, item.iou, mask, nearness)


def _row(name: str, items: list[Item]) -> dict[str, Any]:
    weights = [item.weight for item in items if item.weight is not None]
    qualities = [item.quality for item in items if item.quality is not None]
    ious = [item.iou for item in items if item.iou is not None]
    counts = len(items), sum(item.labelled for item in items), sum(weight > 0 for weight in weights)
    means = [f"{fmean(values):.3f}" if values else "–" for values in (weights, qualities, ious)]
    return {"name": name, "cells": [*(f"{count:,}" for count in counts), *means]}
