"""Stage 6, two runs: what is compared, what is left and printed, and what does not compare."""

import json

import pytest
from fixtures.pictures import read_rows, write_rows
from fixtures.walk import TINY, settings, walk

from pipelines import s6_against, s6_evaluate
from ppt.store import ArtifactError

HERE, THERE = "here", "there"


@pytest.fixture
def runs(models, pictures, tmp_path):
    """Two evaluated runs over the same pictures; in the second the points miss."""
    walk(settings(pictures, truth=True), tmp_path / HERE, "evaluate")
    other = settings(pictures, "masks.choice=predicted_iou", "masks.max_area=0.01", truth=True)
    walk(other, tmp_path / THERE, "evaluate")
    return tmp_path / HERE, tmp_path / THERE


def test_a_run_is_compared_with_another(runs, pictures):
    here, there = runs
    config = settings(pictures, truth=True)
    lines = s6_against.run(config, here, there)
    found = json.loads((here / "evaluate" / "against.json").read_text())
    both = [json.loads((run / "evaluate" / "metrics.json").read_text())["labels"] for run in runs]
    labels = found["labels"]
    assert (labels["n"], labels["images"], labels["only_here"], labels["only_there"]) == (6, 3, 0, 0)
    for name in ("miou", "oiou", "prec@0.5"):
        one = labels[name]
        assert [one["here"], one["there"]] == pytest.approx([both[0][name], both[1][name]], abs=1e-6)
        assert one["difference"] == pytest.approx(one["here"] - one["there"], abs=2e-6)
        assert one["low"] <= one["difference"] <= one["high"]
    assert labels["miou"]["difference"] > 0.5
    assert (found["other"], found["resamples"], "segmenter" in found) == (THERE, 10_000, False)
    assert lines[0] == "labels, here and in there: 6 samples of 3 images in both; 0 only here, 0 only there"
    assert [line.split()[0] for line in lines[1:]] == ["here", "mIoU", "oIoU", "Prec@0.5"]
    assert lines[2].split()[1] == f"{both[0]['miou']:.3f}"
    before = (here / "evaluate" / "against.json").read_bytes()
    s6_against.run(config, here, there)
    assert (here / "evaluate" / "against.json").read_bytes() == before


def test_only_what_both_have_is_compared(runs, pictures):
    here, there = runs
    truth = read_rows(pictures / "truth.jsonl")
    write_rows(pictures / "truth.jsonl", [row for row in truth if row["id"] != "c-right"])
    config = settings(pictures, truth=True)
    walk(config, there, "evaluate", fresh=True)
    lines = s6_against.run(config, here, there)
    assert lines[0].endswith("5 samples of 2 images in both; 1 only here, 0 only there")


def test_the_segmenter_is_compared_where_both_have_one(models, pictures, tmp_path):
    write_rows(
        pictures / "pairs.jsonl",
        [{**row, "split": "train"} for row in read_rows(pictures / "pairs.jsonl")],
    )
    config = settings(pictures, *TINY, truth=True)
    walk(config, tmp_path / HERE, "evaluate")
    walk(settings(pictures, truth=True), tmp_path / THERE, "evaluate")
    assert len(s6_against.run(config, tmp_path / HERE, tmp_path / THERE)) == 5
    walk(settings(pictures, *TINY, "segmenter.seed=1", truth=True), tmp_path / "seed", "evaluate")
    lines = s6_against.run(config, tmp_path / HERE, tmp_path / "seed")
    assert [line.split(",")[0] for line in lines if "here and in" in line] == ["labels", "segmenter"]
    # The labels are the same, and do not differ in any resample.
    assert lines[2].split()[3:] == ["+0.000", "[+0.000,", "+0.000]", "0.0", "%"]


def test_other_conventions_are_refused_by_name(runs, pictures):
    here, there = runs
    strict = settings(pictures, "evaluate.at_least=false", "evaluate.resolution=32", truth=True)
    s6_evaluate.run(strict, here, fresh=True)
    with pytest.raises(ArtifactError, match="other conventions") as caught:
        s6_against.run(strict, here, there)
    assert [line.split(":")[0].strip() for line in str(caught.value).splitlines()[1:]] == [
        "resolution",
        "Prec@X",
    ]
    assert not (here / "evaluate" / "against.json").exists()


def test_one_id_about_two_images_is_refused(runs, models, pictures):
    here, there = runs
    pairs = read_rows(pictures / "pairs.jsonl")
    moved = [{**row, "image": "b.png"} if row["id"] == "c-right" else row for row in pairs]
    write_rows(pictures / "pairs.jsonl", moved)
    config = settings(pictures, "records.drop_leaks=true", truth=True)
    walk(config, there, "evaluate", fresh=True)
    with pytest.raises(ArtifactError, match="'c-right' is about another image there than here"):
        s6_against.run(config, here, there)


def test_nothing_in_common_and_nothing_evaluated_are_refused(runs, models, pictures, tmp_path):
    here, there = runs
    config = settings(pictures, truth=True)
    with pytest.raises(ArtifactError, match="no complete artifact"):
        s6_against.run(config, here, tmp_path / "nowhere")
    pairs, truth = read_rows(pictures / "pairs.jsonl"), read_rows(pictures / "truth.jsonl")
    for name, found in (("pairs", pairs), ("truth", truth)):
        write_rows(pictures / f"{name}.jsonl", [{**row, "id": f"other-{row['id']}"} for row in found])
    walk(config, there, "evaluate", fresh=True)
    with pytest.raises(ArtifactError, match="has no sentence that"):
        s6_against.run(config, here, there)


def test_the_command_prints_every_split_and_the_comparison(command, runs):
    here, there = runs
    said = command("evaluate", "custom", "--output", here, "--against", there)
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[0].startswith("evaluate: 6 samples")
    assert [line.split()[:2] for line in lines[2:4]] == [["train", "labels"], ["val", "labels"]]
    assert lines[4].startswith("labels, here and in there: 6 samples of 3 images")
    assert command("evaluate", "custom", "--output", here, "--against", here.parent).code == 2
