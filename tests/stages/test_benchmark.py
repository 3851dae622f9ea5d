"""The table of point methods: every method on the same samples, oracle rows above, failures counted."""

import json

import numpy as np

from pipelines import benchmark
from ppt import rle


def test_innermost_is_the_pixel_farthest_from_the_border():
    mask = np.zeros((9, 20), bool)
    mask[1:8, 2:9] = True
    mask[4, 9:19] = True
    points = benchmark.innermost(rle.encode(mask))
    np.testing.assert_array_equal(points.xy, [[5, 4]])
    assert points.labels.tolist() == [1]


def test_innermost_of_an_object_at_the_edge_is_inside_it():
    mask = np.zeros((6, 8), bool)
    mask[:, :3] = True
    x, y = benchmark.innermost(rle.encode(mask)).xy[0].astype(int)
    assert mask[y, x]
    assert x == 1


def test_the_table_holds_every_method_over_the_same_samples(command, pictures, tmp_path):
    files = ("--pairs", pictures / "pairs.jsonl", "--truth", pictures / "truth.jsonl")
    said = command("benchmark", "points", "custom", *files, "--output", tmp_path / "out")
    assert said.code == 0, said.err
    found = json.loads((tmp_path / "out/benchmark/points.json").read_text())
    assert set(found) == {*benchmark.METHODS.values(), benchmark.ORACLE, benchmark.CEILING}
    counts = {report["labels"]["n"] for report in found.values()}
    truth = (tmp_path / "out/truth/truth.jsonl").read_text().splitlines()
    assert counts == {len(truth)}
    best = {name: report["labels"]["miou"] for name, report in found.items()}
    assert best[benchmark.CEILING] >= best[benchmark.ORACLE]
    assert found[benchmark.ORACLE]["labels"]["pointm"] == 1.0 - _lost(found) / len(truth)
    assert f"| {benchmark.CEILING} |" in said.out


def _lost(found):
    """Samples that no method could prompt for, as the ceiling row counts them."""
    return sum(report["labels"]["missing"] for name, report in found.items() if name == benchmark.CEILING)


def test_what_to_compare_must_be_known(command, tmp_path):
    said = command("benchmark", "speed", "custom", "--output", tmp_path / "out")
    assert said.code == 2
    assert "expected points, got 'speed'" in said.err
