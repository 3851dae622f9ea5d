"""The report's plots: small inline SVG, drawn with the page's own colours, readable without a script."""

from collections.abc import Mapping, Sequence
from statistics import fmean, median

import numpy as np
from markupsafe import Markup

from ppt.metrics import spearman

_WIDTH, _HEIGHT = 340, 168
_LEFT, _RIGHT, _TOP, _BOTTOM = 34, 8, 10, 24
_MOST_DOTS = 2000
"""A scatter plot of more says no more, and makes the page heavy."""

_BAR = Markup('<rect class="bar" x="{}" y="{}" width="{}" height="{}" rx="1"><title>{}</title></rect>')
_ROW = Markup(
    '<div class="hbar"><dt>{}</dt><dd><span class="track"><span style="width:{}%"></span></span>{}</dd></div>'
)


def histogram(values: Sequence[float], low: float, high: float, what: str, bins: int = 25) -> Markup:
    """Counts of `values` in equal bins over [low, high], values beyond in the outer bins; median marked."""
    inside = np.clip(np.asarray(values, np.float64), low, high)
    counts, edges = np.histogram(inside, bins=bins, range=(low, high))
    most = int(counts.max(initial=1)) or 1
    step = (_WIDTH - _LEFT - _RIGHT) / bins
    parts = [_grid(low, high, most)]
    for index, count in enumerate(counts.tolist()):
        if count:
            tall = max(1.0, _plot_height() * count / most)
            x, y = _LEFT + index * step + 0.75, _HEIGHT - _BOTTOM - tall
            tip = f"{edges[index]:.2f} to {edges[index + 1]:.2f}: {count}"
            parts.append(_BAR.format(_n(x), _n(y), _n(step - 1.5), _n(tall), tip))
    if len(inside):
        parts.append(_marker(_across(float(median(inside.tolist())), low, high)))
    return _svg(parts, f"Histogram of {what}, {len(values)} values")


def scatter(xs: Sequence[float], ys: Sequence[float], x_name: str, y_name: str) -> Markup:
    """Dots over [0, 1] x [0, 1] with the diagonal; an even spread of them where there are very many."""
    parts = [_grid(0.0, 1.0, 1)]
    corner = (_LEFT, _HEIGHT - _BOTTOM, _WIDTH - _RIGHT, _TOP)
    parts.append(Markup('<line class="diagonal" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(*corner))
    shown = np.unique(np.linspace(0, len(xs) - 1, min(len(xs), _MOST_DOTS)).round().astype(int)) if xs else []
    for index in shown:
        y = _HEIGHT - _BOTTOM - _plot_height() * min(max(ys[index], 0.0), 1.0)
        dot = Markup('<circle class="dot" cx="{}" cy="{}" r="2.2"/>')
        parts.append(dot.format(_n(_across(xs[index], 0.0, 1.0)), _n(y)))
    return _svg(parts, f"{y_name} against {x_name}, {len(xs)} items")


def areas(xs: Sequence[float], parts: Mapping[str, Sequence[float]], what: str) -> Markup:
    """Shares that sum to 1 over xs, one on the other, the first at the bottom."""
    body, below = [_grid(xs[0], xs[-1], 1)], np.zeros(len(xs))
    for number, (name, values) in enumerate(parts.items()):
        above = below + np.asarray(values, np.float64)
        outline = [*zip(xs, above.tolist(), strict=True), *reversed([*zip(xs, below.tolist(), strict=True)])]
        corners = " ".join(_corner(x, y, xs, 1.0) for x, y in outline)
        shape = Markup('<polygon class="area area{}" points="{}"><title>{}</title></polygon>')
        body.append(shape.format(number, corners, name))
        below = above
    legend = Markup("").join(
        Markup('<span><i class="area{}"></i>{}</span>').format(number, name)
        for number, name in enumerate(parts)
    )
    return _svg(body, what) + Markup('<p class="parts">{}</p>').format(legend)


def line(xs: Sequence[float], ys: Sequence[float], what: str) -> Markup:
    """One line over xs, from 0 to a little above its highest."""
    top = max(1e-9, 1.05 * max(ys))
    corners = " ".join(_corner(x, y, xs, top) for x, y in zip(xs, ys, strict=True))
    drawn = Markup('<polyline class="line" points="{}"/>').format(corners)
    return _svg([_grid(xs[0], xs[-1], round(top, 3)), drawn], what)


def _corner(x: float, y: float, xs: Sequence[float], top: float) -> str:
    across = _across(x, xs[0], max(xs[-1], xs[0] + 1e-9))
    return f"{_n(across)},{_n(_HEIGHT - _BOTTOM - _plot_height() * min(max(y / top, 0.0), 1.0))}"


def bars(rows: Sequence[tuple[str, int | float, str]], what: str) -> Markup:
    """One horizontal bar per (name, value, the value written out); in the order given."""
    most = max((value for _, value, _ in rows), default=1) or 1
    body = Markup("").join(_ROW.format(name, _n(100 * value / most), said) for name, value, said in rows)
    return Markup('<dl class="hbars" aria-label="{}">{}</dl>').format(what, body)


def summary(values: Sequence[float]) -> str:
    """How many, their mean and median: "n 12 · mean 0.410 · median 0.400"."""
    if not values:
        return "no values"
    return f"n {len(values):,} · mean {fmean(values):.3f} · median {median(values):.3f}"


def correlation(xs: Sequence[float], ys: Sequence[float]) -> float | None:
    """Spearman's rank correlation in [-1, 1]; None below three items, or where a side does not vary."""
    if len(xs) < 3:
        return None
    return spearman(np.asarray(xs, np.float64), np.asarray(ys, np.float64))


def _svg(parts: list[Markup], label: str) -> Markup:
    head = Markup('<svg class="plot" viewBox="0 0 {} {}" role="img" aria-label="{}">')
    return head.format(_WIDTH, _HEIGHT, label) + Markup("").join(parts) + Markup("</svg>")


def _grid(low: float, high: float, top: int | float) -> Markup:
    line = Markup('<line class="rule" x1="{}" x2="{}" y1="{}" y2="{}"/>')
    text = Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>')
    base = _HEIGHT - _BOTTOM
    parts: list[Markup] = []
    for share in (0.0, 0.5, 1.0):
        y = _n(base - share * _plot_height())
        parts.append(line.format(_LEFT, _WIDTH - _RIGHT, y, y))
        if share != 0.5 or top == 1 or top % 2 == 0:
            parts.append(text.format(_LEFT - 6, _n(float(y) + 3.5), "end", _tick(share * top, top)))
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, anchor = _across(share, 0.0, 1.0), {0.0: "start", 1.0: "end"}.get(share, "middle")
        parts.append(text.format(_n(x), base + 15, anchor, _tick(low + share * (high - low), high)))
    return Markup("").join(parts)


def _tick(value: float, largest: int | float) -> str:
    """A number on an axis: whole where the axis is long."""
    return f"{value:.0f}" if largest > 10 else f"{value:.3g}"


def _marker(x: float) -> Markup:
    line = Markup('<line class="median" x1="{}" x2="{}" y1="{}" y2="{}"><title>median</title></line>')
    return line.format(_n(x), _n(x), _TOP - 4, _HEIGHT - _BOTTOM)


def _across(value: float, low: float, high: float) -> float:
    share = min(max((value - low) / (high - low), 0.0), 1.0)
    return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)


def _plot_height() -> int:
    return _HEIGHT - _TOP - _BOTTOM


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
