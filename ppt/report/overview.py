"""What the page says about the run as a whole, as plain values for the template."""

from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from markupsafe import Markup

from ppt import times
from ppt.config import fingerprint
from ppt.metrics import groups as metric_groups
from ppt.report import charts, figures, words
from ppt.report.cards import status
from ppt.report.gather import Run

_COLUMNS = {
    "n": "n", "missing": "missing", "miou": "mIoU", "oiou": "oIoU", "pointm": "PointM", "nta": "NTA",
    "giou": "gIoU", "n_acc": "N-acc", "t_acc": "T-acc",
}  # fmt: skip
_PLOTTED = {
    "predicted_iou": "Predicted IoU",
    "stability": "Stability",
    "agreement": "Agreement with the map",
    "contrast": "Contrast, inside less outside",
}
_OUTCOMES = {
    "excluded": "are excluded",
    "no mask": "have no mask",
    "failed": "failed",
    "not labelled": "are not labelled",
}
_SOURCES = {"object_centric": "one thing", "mosaic": "mosaics", "referring": "referring pairs"}
_LOSSES = ("middle", "shape", "distance", "classes", "confidence", "mask")
_MOST_BARS, _MOST_ROWS = 10, 200


def lede(run: Run) -> str:
    """The run in one sentence."""
    text = f"{_count(len(run.items), 'sentence')} about {_count(_images(run), 'image')}"
    if "labels" not in run.stages:
        last = list(run.stages)[-1]
        return f"{text}. The run stands after the stage “{last}”: labels are not made yet."
    kinds = Counter(status(item) for item in run.items)
    parts = [f"{kinds['used']:,} carry a mask to train on"]
    parts += [f"{kinds[kind]:,} {name}" for kind, name in _OUTCOMES.items() if kinds[kind]]
    return f"{text}: {', '.join(parts)}."


def tiles(run: Run) -> list[dict[str, str]]:
    """The numbers at the top of the page."""
    weights = [item.weight for item in run.items if item.weight is not None]
    shown = [_tile("Sentences", f"{len(run.items):,}"), _tile("Images", f"{_images(run):,}")]
    if weights:
        used = sum(weight > 0 for weight in weights)
        shown.append(_tile("Used", f"{used:,}", f"{100 * used / len(run.items):.0f} %"))
        shown.append(_tile("Mean weight", f"{fmean(weights):.3f}"))
    shown.append(_tile("Failures", f"{len(run.failures):,}"))
    labels = run.metrics.get("labels", {})
    shown += [
        _tile(_COLUMNS[key], _value(labels[key])) for key in ("miou", "oiou", "pointm") if key in labels
    ]
    if "segmenter" in run.metrics:
        shown.append(_tile("Segmenter, mIoU", _value(run.metrics["segmenter"]["all"]["miou"])))
    return shown


def metrics(run: Run) -> dict[str, Any]:
    """The table of metrics: all pairs, by labels and segmenter, then the labels of each split, source and so
    on; columns in a settled order.
    """
    groups = [("", {"all": run.metrics["labels"]})] if "labels" in run.metrics else []
    if "segmenter" in run.metrics:
        groups[0][1]["the segmenter"] = run.metrics["segmenter"]["all"]
    groups += [(key[3:], rows) for key, rows in sorted(run.metrics.items()) if key.startswith("by_")]
    keys = _metric_keys([row for _, rows in groups for row in rows.values()])
    table = [
        {
            "group": group,
            "name": words.plain(name) or "none",
            "first": position == 0,
            "cells": [_value(row.get(key)) for key in keys],
        }
        for group, rows in groups
        for position, (name, row) in enumerate(
            sorted(rows.items(), key=lambda row: metric_groups.rank(row[0]))
        )
    ]
    conventions = dict(run.metrics.get("conventions", {}))
    drawn = run.metrics.get("segmenter", {}).get("conventions", {})
    if drawn:
        conventions["binarisation, segmenter"] = drawn["binarisation"]
    columns = [_COLUMNS.get(key, key.replace("prec@", "P@")) for key in keys]
    told = [(words.plain(name), _setting(value)) for name, value in sorted(conventions.items())]
    return {"columns": columns, "rows": table, "conventions": told}


def _of_quality(run: Run) -> Iterator[dict[str, Any]]:
    """The quality of the labels, and what it is worth where there is truth."""
    worth = [item.quality for item in run.items if item.quality is not None]
    if not worth:
        return
    bands = Counter(item.band for item in run.items)
    counted = " · ".join(f"{band} {bands[band]:,}" for band in ("keep", "review", "drop"))
    yield _plot("Quality", counted, charts.histogram(worth, 0.0, 1.0, "qualities"))
    judged = run.metrics.get("quality", {})
    if judged.get("reliability"):
        bins = judged["reliability"]
        xs, ys = [one["quality"] for one in bins], [one["iou"] for one in bins]
        rank = "" if judged["spearman"] is None else f" · Spearman {judged['spearman']:.2f}"
        note = f"{len(bins)} bins, off by {judged['error']:.3f}{rank}"
        yield _plot("IoU with truth, by quality", note, charts.scatter(xs, ys, "quality", "IoU"))


def plots(run: Run) -> list[dict[str, Any]]:
    """The plots that the run has values for."""
    drawn = [*_of_quality(run)]
    weights = [item.weight for item in run.items if item.weight is not None]
    if weights:
        drawn.append(_plot("Weight", charts.summary(weights), charts.histogram(weights, 0.0, 1.0, "weights")))
    both = [(item.weight, item.iou) for item in run.items if item.weight is not None and item.iou is not None]
    if both:
        xs, ys = [weight for weight, _ in both], [iou for _, iou in both]
        rank = charts.correlation(xs, ys)
        note = f"n {len(both):,}" if rank is None else f"n {len(both):,} · Spearman {rank:.2f}"
        drawn.append(_plot("IoU with truth, by weight", note, charts.scatter(xs, ys, "weight", "IoU")))
    for name, title in _PLOTTED.items():
        values = [item.scores[name] for item in run.items if name in item.scores]
        if values:
            low = -1.0 if min(values) < 0 else 0.0
            drawn.append(_plot(title, charts.summary(values), charts.histogram(values, low, 1.0, title)))
    losses = run.losses()
    if losses:
        total = sum(count for _, count in losses)
        title, note = "What was lost, and why", f"{total:,} in {_count(len(losses), 'kind')}"
        rows = [(name, count, f"{count:,}") for name, count in losses[:_MOST_BARS]]
        drawn.append(_plot(title, note, charts.bars(rows, title), wide=True))
    if run.times:
        title, note = "How long the stages took", f"{times.spoken(sum(run.times.values()))} in all"
        rows = [(name, seconds, times.spoken(seconds)) for name, seconds in run.times.items()]
        drawn.append(_plot(title, note, charts.bars(rows, title), wide=True))
    return drawn


def learned(run: Run) -> dict[str, Any]:
    """How the point generator was taught: when each source was open and how many pairs were let in, the
    losses, and sheets of pictures. Empty where none was trained.
    """
    told = run.learned
    if told is None or not told.schedule:
        return {}
    steps = [float(row["step"]) for row in told.schedule]
    names: list[str] = list(told.schedule[-1]["shares"])
    shares = {
        _SOURCES.get(name, name): [row["shares"].get(name, 0.0) for row in told.schedule] for name in names
    }
    drawn = [
        _plot("What a batch is made of", "by step", charts.areas(steps, shares, "Shares of the sources"))
    ]
    admitted = [float(row["admitted"]) for row in told.schedule]
    if any(admitted):
        there = told.schedule[-1]["referring"]
        note = f"{admitted[-1]:,.0f} of {there:,} at the end"
        drawn.append(_plot("Referring pairs let in", note, charts.line(steps, admitted, "Pairs let in")))
    for name in _LOSSES:
        values = [(float(row["step"]), float(row[name])) for row in told.log if name in row]
        if len(values) > 1:
            xs, ys = _thinned(values)
            skipped = sum("skipped" in row for row in told.log)
            note = f"last {ys[-1]:.3f}" + (f" · {skipped} steps skipped" if skipped else "")
            drawn.append(_plot(f"Loss: {name}", note, charts.line(xs, ys, f"Loss {name}")))
    sheets = [{"title": title, "uri": figures.sheet_uri(path)} for title, path in told.sheets]
    return {"plots": drawn, "sheets": sheets}


def _thinned(values: Sequence[tuple[float, float]], most: int = 60) -> tuple[list[float], list[float]]:
    """Means over at most `most` stretches."""
    parts = np.array_split(np.array(values), min(most, len(values)))
    means = np.array([part.mean(0) for part in parts])
    return means[:, 0].tolist(), means[:, 1].tolist()


def stranded(run: Run) -> dict[str, Any]:
    """Failures of rows that have no card."""
    rows = run.stranded
    more = f"; the first {_MOST_ROWS} are shown" if len(rows) > _MOST_ROWS else ""
    return {"rows": rows[:_MOST_ROWS], "note": f"{_count(len(rows), 'row')}{more}."}


def provenance(run: Run) -> dict[str, Any]:
    """What made the run: one line for the head of the page, a table of the stages, and every setting."""
    manifests = {name: stage.manifest for name, stage in run.stages.items()}
    sections = {name: values for manifest in manifests.values() for name, values in manifest.config.items()}
    weights = {name: sha for manifest in manifests.values() for name, sha in manifest.weights.items()}
    codes = sorted({manifest.code_version for manifest in manifests.values()})
    seeds = sorted({str(manifest.seed) for manifest in manifests.values()})
    line = [("code", ", ".join(codes)), ("seed", ", ".join(seeds)), ("config", fingerprint(sections))]
    rows = [
        {
            "stage": stage_name,
            "total": f"{stage.index['items']:,}",
            "failed": f"{stage.index['failed']:,}",
            "code": stage.manifest.code_version,
            "seed": stage.manifest.seed,
            "fingerprint": _short(stage.manifest.fingerprint),
            "weights": [(name, _short(sha)) for name, sha in sorted(stage.manifest.weights.items())],
        }
        for stage_name, stage in run.stages.items()
    ]
    line += [(words.plain(name), sha) for name, sha in sorted(weights.items())]
    facts = [{"name": name, "full": full, "short": _short(full)} for name, full in line]
    return {"line": facts, "rows": rows, "settings": list(_settings(sections))}


def _settings(sections: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in sorted(sections.items()):
        if isinstance(value, dict):
            yield from _settings(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _setting(value)


def _setting(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "–" if value is None or value == [] else str(value)


def _metric_keys(rows: Sequence[dict[str, Any]]) -> list[str]:
    keys = {key for row in rows for key, value in row.items() if isinstance(value, int | float)}
    first = [key for key in ("n", "missing", "miou", "oiou") if key in keys]
    precision = sorted(key for key in keys if key.startswith("prec@"))
    return [*first, *precision, *sorted(keys - set(first) - set(precision))]


def _value(value: Any) -> str:
    if not isinstance(value, int | float):
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


def _images(run: Run) -> int:
    return len({item.record.sha256 for item in run.items})


def _plot(title: str, note: str, body: Markup, wide: bool = False) -> dict[str, Any]:
    return {"title": title, "note": note, "body": body, "wide": wide}


def _tile(name: str, value: str, note: str = "") -> dict[str, str]:
    return {"name": name, "value": value, "note": note}


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _short(text: str) -> str:
    return text[:12] if len(text) == 64 else text
