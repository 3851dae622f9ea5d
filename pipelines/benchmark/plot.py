"""A plot for a README: horizontal bars on a logarithmic axis, as SVG with colours of its own."""

import math
from collections.abc import Sequence
from html import escape

_NAME, _BAR, _ROW, _TOP = 450, 360, 24, 44
_INK, _FILL, _RULE = "#333", "#4a7ab5", "#ddd"


def log_bars(title: str, rows: Sequence[tuple[str, float]]) -> str:
    """One bar for each (name, value > 0), from 1 to the power of ten above the largest; below 1 there is
    none.
    """
    decades = max(1, math.ceil(math.log10(max([10.0, *(value for _, value in rows)]))))
    width, height = _NAME + _BAR + 70, _TOP + _ROW * len(rows) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}"'
        f' height="{height}" font-family="sans-serif" font-size="13" fill="{_INK}">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="10" y="18" font-weight="bold">{escape(title)}</text>',
    ]
    for decade in range(decades + 1):
        x = _NAME + _BAR * decade / decades
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 4}" y2="{height}" stroke="{_RULE}"/>')
        parts.append(
            f'<text x="{x:.1f}" y="{_TOP - 8}" font-size="11" text-anchor="middle">{10**decade}</text>'
        )
    for number, (name, value) in enumerate(rows):
        y, long = _TOP + _ROW * number, max(1.0, _BAR * math.log10(max(value, 1.0)) / decades)
        parts.append(f'<text x="{_NAME - 8}" y="{y + 15}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<rect x="{_NAME}" y="{y + 3}" width="{long:.1f}" height="{_ROW - 8}" fill="{_FILL}"/>')
        parts.append(f'<text x="{_NAME + long + 6:.1f}" y="{y + 15}">{value:.1f}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
