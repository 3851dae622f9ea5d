"""The table of point methods: every method on the same samples, oracle rows above, failures counted."""

import json

import numpy as np
from fixtures.walk import SMALL, settings

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
    truth = [json.loads(line) for line in (tmp_path / "out/truth/truth.jsonl").read_text().splitlines()]
    truth = [row for row in truth if row["split"] not in ("", "train")]  # these may teach
    found = {name.removesuffix(" #0"): report for name, report in found.items()}
    assert set(found) == {*benchmark.METHODS.values(), benchmark.ORACLE, benchmark.CEILING}
    splits = [group for group in found[benchmark.ORACLE] if "/" not in group]
    for report in found.values():
        assert sum(report[split]["n"] for split in splits) == len(truth)
    for split in splits:
        assert found[benchmark.CEILING][split]["miou"] >= found[benchmark.ORACLE][split]["miou"]
        lost = found[benchmark.CEILING][split]["missing"]
        assert found[benchmark.ORACLE][split]["pointm"] == 1.0 - lost / found[benchmark.ORACLE][split]["n"]
    assert f"| {benchmark.CEILING} |" in said.out


def test_trained_rows_come_with_their_seeds_and_groups(models, pictures, tmp_path):
    everything = "generator.splits=['', train, val, test]"
    wanted = (
        everything,
        f"records.truth={pictures / 'truth.jsonl'}",
        "benchmark.variants=[full,no_negatives]",
        "benchmark.seeds=2",
    )
    table = benchmark.points(settings(pictures, *SMALL, *wanted, truth=True), tmp_path / "out")
    found = json.loads((tmp_path / "out/benchmark/points.json").read_text())
    rows = {f"{benchmark.VARIANTS[v][0]} #{seed}" for v in ("full", "no_negatives") for seed in (0, 1)}
    assert rows <= set(found)
    for folder in ("full_0", "full_1", "no_negatives_0", "no_negatives_1"):
        assert (tmp_path / "out/benchmark" / folder / "index.json").exists()
    assert not list((tmp_path / "out/benchmark").glob("*/mosaics")), "made once for all"
    [full] = [line for line in table.splitlines() if line.startswith("| point generator |")][:1]
    assert " ± " in full


def test_a_figure_is_a_mean_with_its_spread():
    assert benchmark._figure([0.5]) == "50.0"
    assert benchmark._figure([0.5, 0.6]) == "55.0 ± 7.1"


def test_what_to_compare_must_be_known(command, tmp_path):
    said = command("benchmark", "speed", "custom", "--output", tmp_path / "out")
    assert said.code == 2
    assert "expected points, got 'speed'" in said.err
