"""Bars on a logarithmic axis, as SVG."""

import re
from xml.etree import ElementTree

from pipelines.benchmark.plot import log_bars

SVG = "{http://www.w3.org/2000/svg}"


def bars(svg):
    return [float(one.get("width")) for one in ElementTree.fromstring(svg).findall(f"{SVG}rect[@x]")]


def test_ten_times_as_much_is_as_far_again():
    one, ten, hundred, half = bars(log_bars("of 100", [("a", 1), ("b", 10), ("c", 100), ("d", 0.5)]))
    assert one == half == 1, "a bar without length would not be seen"
    assert hundred == 2 * ten > 100


def test_names_stay_text_and_values_are_written_out():
    svg = log_bars("<a & b>", [("<script>", 12.34)])
    texts = [one.text for one in ElementTree.fromstring(svg).iter(f"{SVG}text")]
    assert texts[0] == "<a & b>"
    assert {"<script>", "12.3", "1", "10", "100"} <= set(texts)
    assert not re.search("<script", svg)


def test_without_bars_there_is_an_axis():
    assert bars(log_bars("nothing", [])) == []
