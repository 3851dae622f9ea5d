"""Folders of classes at their edges: one, ten thousand, and one that nobody can name; splits and groups that
nobody knows.
"""

import resource

from fixtures.pictures import make_pictures, read_rows, write_rows
from fixtures.walk import failures, rows, settings, walk

from ppt.records import pairs
from ppt.records.sources import READERS
from ppt.settings import RecordsConfig, SourceConfig

MANY = 10_000


def read(path, **source):
    found = READERS["classes"](SourceConfig(format="classes", path=path, **source), RecordsConfig())
    return pairs.checked(found.pairs)


def test_one_class_is_a_data_set(tmp_path):
    make_pictures(tmp_path / "own" / "red_mug")
    found = read(tmp_path / "own")
    assert {row.pair.text for row in found} == {"red mug"}
    assert len(found) == 5


def test_ten_thousand_classes_are_read_in_their_order(tmp_path):
    for number in range(MANY):
        folder = tmp_path / "own" / f"thing_{number:05d}_of"
        folder.mkdir(parents=True)
        (folder / "1.png").touch()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = read(tmp_path / "own", per_class=1)
    assert [row.pair.text for row in found[:2]] == ["thing 00000 of", "thing 00001 of"]
    assert len({row.id for row in found}) == MANY
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024


def test_a_class_that_nobody_can_name_costs_its_images(tmp_path):
    make_pictures(tmp_path / "own" / "n12345678")
    make_pictures(tmp_path / "own" / "007")
    errors = {row.where.split("/")[0]: row.error for row in read(tmp_path / "own")}
    assert errors == {"n12345678": "no_name", "007": "empty_text"}


def test_what_only_the_truth_knows_is_told_and_a_kind_that_only_some_have_is_a_group(
    pictures, models, tmp_path
):
    """Unknown ids in the truth cost their own row; a kind of one sentence, and none at all, are scored."""
    given = read_rows(pictures / "pairs.jsonl")
    write_rows(pictures / "pairs.jsonl", [given[0] | {"kind": "of its own"}, *given[1:]])
    true = read_rows(pictures / "truth.jsonl")
    write_rows(pictures / "truth.jsonl", [*true, true[0] | {"id": "nobody"}])
    output = tmp_path / "out"
    found = walk(settings(pictures, truth=True), output, "evaluate")
    assert failures(output, "truth") == {f"line {len(true) + 1}": "unknown_id"}
    assert set(rows(output, "labels")) == {row["id"] for row in given}
    assert found.items > 0
