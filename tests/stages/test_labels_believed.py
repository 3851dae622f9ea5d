"""`ppt labels --believe`: a second round, in which labels teach by their quality."""

import json

import pytest
from fixtures.pictures import read_rows, write_rows
from fixtures.walk import rows, settings, walk

from ppt.quality import QualityError


def test_labels_teach_by_the_quality_of_the_run_before(command, models, pictures, output, tmp_path):
    config = settings(pictures)
    walk(config, output, "quality")
    told, before = rows(output, "quality"), rows(output, "labels")
    told["a-left"] |= {"quality": 0.3, "band": "drop"}
    believe = tmp_path / "quality.jsonl"
    write_rows(believe, told.values())
    files = ("custom", "--pairs", pictures / "pairs.jsonl", "--output", output)
    settled = ("--set", "shard_size=2", "--set", "relevance.redundancy=none")
    said = command("labels", *files, *settled, "--believe", believe)
    assert said.code == 0, said.err
    for id, row in rows(output, "labels").items():
        if row["segmentation"] is None:
            assert row == before[id]
        elif told[id]["band"] == "drop":
            assert (row["weight"], row["reasons"][-1]) == (0, "excluded:quality in the band drop")
        else:
            assert row["weight"] == pytest.approx(told[id]["quality"], abs=1e-6)
            assert row["reasons"][-1] == f"believed:{row['weight']:.2f}"
            assert row["weight"] != before[id]["weight"]
    again = command("labels", *files, *settled, "--believe", believe)
    assert "0 shards made" in again.out
    (output / "believed.jsonl").unlink()
    walk(config, output, "labels", first="labels")
    assert rows(output, "labels") == before, "taken away, it leaves no trace"


def test_a_person_and_an_exclusion_have_the_last_word(models, pictures, output):
    strict = settings(pictures, "labels.min_stability=0.95")
    walk(strict, output, "quality")
    (output / "believed.jsonl").write_bytes((output / "quality" / "quality.jsonl").read_bytes())
    write_rows(output / "review.jsonl", [{"id": "a-left", "decision": "keep"}])
    walk(strict, output, "labels", first="labels")
    found = rows(output, "labels")
    assert found["a-left"]["weight"] == 1
    assert {row["weight"] for id, row in found.items() if id != "a-left"} == {0}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"of": ""}, "line 1: expected a row of quality.jsonl"),
        ({"quality": 1.5}, "line 1: expected a row of quality.jsonl"),
        ({"quality": "high"}, "line 1: expected a row of quality.jsonl"),
        ({"band": "perhaps"}, "line 1: expected a row of quality.jsonl"),
        ({"id": None}, "line 1: expected a row of quality.jsonl"),
    ],
)
def test_what_is_no_quality_of_these_masks_is_refused(
    command, models, pictures, output, tmp_path, change, why
):
    walk(settings(pictures), output, "quality")
    first, *others = read_rows(output / "quality" / "quality.jsonl")
    write_rows(tmp_path / "other.jsonl", [first | change, *others])
    said = command("labels", "custom", "--output", output, "--believe", tmp_path / "other.jsonl")
    assert said.code == 1
    assert why in said.err
    assert not (output / "believed.jsonl").exists()
    (output / "believed.jsonl").write_text("{broken\n")
    with pytest.raises(QualityError, match=r"believed\.jsonl: line 1: expected a row"):
        walk(settings(pictures), output, "labels", first="labels")
    assert json.loads((output / "labels" / "labels.jsonl").read_text().splitlines()[0])["weight"] > 0
