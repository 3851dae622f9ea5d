"""Two runs side by side: what they share, and what each made of it."""

import json
import re
import shutil

import pytest
from fixtures.report_run import make_run, plain_scenes

from ppt import rle
from ppt.report import ReportError, build_report
from ppt.report.against import beside
from ppt.report.gather import read_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs over the same images, of which the second has one more image, and masks of its own."""
    root = tmp_path_factory.mktemp("against")
    return make_run(root / "ours", plain_scenes(6)), make_run(root / "theirs", plain_scenes(7), seed=3)


def labels(run):
    return {row["id"]: row for row in read_run(run).stages["labels"].rows()}


def test_each_item_knows_what_the_other_run_made_of_it(runs):
    run, table = beside(read_run(runs[0]), runs[1])
    ours, theirs = labels(runs[0]), labels(runs[1])
    assert len(run.items) == 12
    compared = 0
    for item in run.items:
        masks = [rows.get(item.id, {}).get("segmentation") for rows in (ours, theirs)]
        drawn = [rle.from_json(mask) if mask else None for mask in masks]
        assert item.other.mask == drawn[1]
        assert item.other.weight == (theirs[item.id]["weight"] if item.id in theirs else None)
        if all(drawn):
            assert item.other.nearness == rle.iou(*drawn)
            compared += 1
        else:
            assert item.other.nearness == (0.0 if any(drawn) else None)
    assert compared > 3
    assert table["note"].startswith("12 of 12 pairs are in both; their masks agree with IoU 0.")
    assert [row["cells"][0] for row in table["rows"]] == ["12", "12"]


def test_a_run_beside_itself_differs_in_nothing(runs):
    run, _ = beside(read_run(runs[0]), runs[0])
    assert {item.other.nearness for item in run.items} <= {1.0, None}


def test_a_pair_that_the_other_run_lacks_has_nothing_beside_it(runs):
    run, table = beside(read_run(runs[1]), runs[0])
    assert [item.other is None for item in run.items].count(True) == 2
    assert table["note"].startswith("12 of 14 pairs")


def test_the_page_shows_both_and_leaves_the_runs_own_report_alone(runs, tmp_path):
    shutil.copytree(runs[0].parent, tmp_path / "ours")
    output = tmp_path / "ours" / "run"
    own = build_report(output, output.parent / "images").read_bytes()
    path = build_report(output, output.parent / "images", limit=3, against=runs[1])
    assert path == output / "report_against.html"
    assert (output / "report.html").read_bytes() == own
    assert not (output / "report_files").exists()
    html = path.read_text(encoding="utf-8")
    assert '<option value="nearness">' in html
    assert html.count("<b>Other run</b>") == 3
    assert "IoU with this run" in html
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert set(re.findall(r'href="#([^"]+)"', html)) <= set(ids)
    assert "<b>Other run</b>" in json.dumps((output / "report_against_files" / "items_0001.js").read_text())


def test_a_folder_without_a_run_is_refused(runs, tmp_path):
    with pytest.raises(ReportError, match="holds no finished records"):
        build_report(runs[0], against=tmp_path)
