"""The table of point methods: every method on the same samples, oracle rows above, failures counted."""

import json

import numpy as np
import pytest
from fixtures.pictures import read_rows
from fixtures.walk import SMALL, TINY, settings

from pipelines.benchmark import points as benchmark
from pipelines.benchmark import segmenter as segmenters
from pipelines.benchmark import tables
from ppt import rle
from ppt.config import Config, ConfigError
from ppt.metrics import Conventions
from ppt.store import Artifact

LEFT = np.zeros((8, 8), bool)
LEFT[:, :4] = True


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
    assert tables.percent([0.5]) == "50.0"
    assert tables.percent([0.5, 0.6]) == "55.0 ± 7.1"


def test_what_to_compare_must_be_known(command, tmp_path):
    said = command("benchmark", "beauty", "custom", "--output", tmp_path / "out")
    assert said.code == 2
    assert "expected points, segmenter, speed, train, networks, engine, got 'beauty'" in said.err


@pytest.mark.slow
def test_segmenters_stand_beside_the_labels_and_below_the_truth(models, pictures, tmp_path):
    wanted = (
        f"records.truth={pictures / 'truth.jsonl'}",
        "segmenter.splits=['', train, val, test]",
        "benchmark.systems=[etris, unified, unified-dice, unified+sharing, unified-mosaics, ceiling]",
        "benchmark.seeds=2",
    )
    table = segmenters.segmenter(settings(pictures, *TINY, *wanted, truth=True), tmp_path / "out")
    found = json.loads((tmp_path / "out/benchmark/segmenter.json").read_text())
    names = [
        "etris",
        "unified",
        "… without dice",
        "… with sharing",
        "… without mosaics",
        segmenters.CEILING,
    ]
    assert set(found) == {"pseudo-labels #0", *(f"{name} #{seed}" for name in names for seed in (0, 1))}
    lines = table.splitlines()
    order = [line.split(" | ")[0].removeprefix("| ") for line in lines[2:]]
    assert order[:7] == ["pseudo-labels", *names]
    assert " ± " in lines[3]
    for name, report in found.items():
        assert sum(report[split]["n"] for split in ("all", "test", "train", "val") if split in report) == 6
        assert (report["trained_millions"] > 0) == (name != "pseudo-labels #0")
    logs = [
        read_rows(tmp_path / f"out/benchmark/{n}_0/training/log.jsonl") for n in ("unified", "unified-dice")
    ]
    assert ["dice" in log[0] for log in logs] == [True, False]
    labels = Artifact.open(tmp_path / "out/benchmark/true_labels")
    truth = {row["id"]: row["segmentation"] for row in read_rows(pictures / "truth.jsonl")}
    assert {row["id"]: row["segmentation"] for row in labels.rows()} == truth


def test_only_distractors_are_measured_for_non_target_activation():
    row = {"id": "1", "split": "val", "source": "", "kind": "", "segmentation": rle.encode(LEFT).to_json()}
    found = segmenters.Found()
    conventions = Conventions("zero", True)
    for distractors in (None, [], [rle.encode(~LEFT).to_json()]):
        own = {**row, **({} if distractors is None else {"distractors": distractors})}
        map = np.where(LEFT, 0.25, 0.75).astype(np.float32)
        segmenters._note(found, own, rle.encode(~LEFT), map, {"1": ("val",)}, conventions)
    assert len(found.judged) == 3
    [only] = found.nta["val"]
    assert (only.density, only.wrong_mask) == (0.75, 1.0)


@pytest.mark.parametrize(
    ("system", "told"),
    [
        ("nobody", "expected ceiling, one of"),
        ("etris-dice", "no loss, measure or part 'dice' to go without"),
        ("unified-rounds", "unified-rounds is what unified is; leave it out"),
        ("etris+dice", "no loss, measure or part 'dice' to be given"),
        ("unified-", ""),
    ],
)
def test_systems_are_known_ones_less_what_they_have(system, told):
    if told:
        with pytest.raises(ConfigError, match=told):
            segmenters.settings(Config(), system)
    else:
        assert segmenters.settings(Config(), system) == segmenters.settings(Config(), "unified")
