"""Images and pairs that change, come or go between runs: what they touch is made anew, the rest is kept, and
what is left at the end is what a run from nothing gives.
"""

import os
import re
import shutil

import pytest
from fixtures.pictures import disc, picture, read_rows, write_rows
from fixtures.processes import snapshot
from fixtures.walk import SMALL, TINY, rows, settings, walk
from PIL import Image

from ppt import rle
from ppt.store import Artifact, StaleArtifact

JOINED = ("labels/labels.jsonl", "quality/quality.jsonl", "truth/truth.jsonl", "evaluate/metrics.json")


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out" / "run"


@pytest.fixture
def grown(pictures):
    """Changes `b.png`, takes `c.png` away, adds `new.png` before all others, and a sentence after them."""

    def change():
        pairs, truth = read_rows(pictures / "pairs.jsonl"), read_rows(pictures / "truth.jsonl")
        Image.fromarray(picture({"left": "blue", "middle": "red"})).save(pictures / "b.png")
        (pictures / "c.png").unlink()
        Image.fromarray(picture({"right": "red"})).save(pictures / "new.png")
        new = [{"id": "new", "image": "new.png", "text": "the red disc", "split": "train"}]
        more = [{"id": "more", "image": "grey.png", "text": "a disc", "split": "val"}]
        write_rows(pictures / "pairs.jsonl", [*new, *(row for row in pairs if row["id"] != "c-right"), *more])
        drawn = [{"id": "new", "segmentation": rle.encode(disc("right")).to_json()}]
        write_rows(pictures / "truth.jsonl", [*(row for row in truth if row["id"] != "c-right"), *drawn])

    return change


def joined(output):
    return {name: (output / name).read_bytes() for name in JOINED}


def counts(said):
    """Stage -> (shards made, shards kept), as it is told."""
    found = re.findall(r"^(\w+): .*?(\d+) shards made, (\d+) kept", said.printed, re.M)
    return {stage: (int(made), int(kept)) for stage, made, kept in found}


def test_what_changed_is_redone_what_is_new_appended_and_what_is_gone_reported(
    ppt, whole, grown, output, tmp_path
):
    alone = [*whole[:-1], "--set", "shard_size=1", "--output"]
    assert ppt(*alone, output).code == 0
    grown()
    said = ppt(*alone, output)
    assert said.code == 0
    assert (
        "images changed: 1 (b.png); images added: 1 (new.png); images removed: 1 (c.png);"
        " pairs added: 2; pairs removed: 1\n"
    ) in said.printed
    per_image = dict.fromkeys(("records", "relevance", "masks", "labels", "views"), (3, 1))
    assert counts(said) == {**per_image, "quality": (4, 0)}, "a.png alone is as it was; quality is of all"
    records = Artifact.open(output / "records")
    assert {key: records.items(key) for key in records.keys} == {
        "00000": ("a-left", "a-right", "copy"),
        "00001": ("b-left", "b-middle"),
        "00003": ("nothing", "more"),
        "00004": ("new",),
    }
    assert ppt(*alone, tmp_path / "anew").code == 0
    assert joined(output) == joined(tmp_path / "anew")
    assert {made for made, _ in counts(ppt(*alone, output)).values()} == {0}


def test_a_sentence_more_touches_its_shard_alone_and_a_line_less_none(pictures, models, output):
    pairs = read_rows(pictures / "pairs.jsonl")
    write_rows(pictures / "pairs.jsonl", [{"id": "bad", "image": "a.png", "text": ""}, *pairs])
    walk(settings(pictures), output, "labels")
    before = snapshot(output / "masks")
    write_rows(pictures / "pairs.jsonl", [*pairs, {"id": "more", "image": "grey.png", "text": "a disc"}])
    walk(settings(pictures), output, "labels")
    after = snapshot(output / "masks")
    assert {
        name for name in before if name.startswith("shards/00000") and after[name] != before[name]
    } == set()
    assert rows(output, "labels").keys() == {*(pair["id"] for pair in pairs), "more"}


def test_an_image_that_changes_while_nobody_looks_is_seen_by_its_content(
    ppt, whole, pictures, output, tmp_path
):
    """Same size, same time: only the bytes tell."""
    assert ppt(*whole, output).code == 0
    kept = os.stat(pictures / "b.png")
    Image.fromarray(picture({"left": "blue", "middle": "red"})).save(pictures / "b.png")
    os.utime(pictures / "b.png", ns=(kept.st_atime_ns, kept.st_mtime_ns))
    assert ppt(*whole, output).code == 0
    assert ppt(*whole, tmp_path / "anew").code == 0
    assert joined(output) == joined(tmp_path / "anew")


@pytest.mark.parametrize("point", ["while_sweeping", "after_rename:9"])
def test_killed_while_it_takes_them_in_it_ends_the_same(ppt, whole, grown, output, tmp_path, point):
    assert ppt(*whole, output).code == 0
    shutil.copytree(output, tmp_path / "undisturbed" / "run")
    grown()
    assert ppt(*whole, tmp_path / "undisturbed" / "run").code == 0
    name, _, count = point.partition(":")
    child = os.fork()
    if child == 0:
        os.environ["PPT_FAILPOINT"] = f"{name}:{count or 1}"
        ppt(*whole, output)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 137
    assert ppt(*whole, output).code == 0
    assert snapshot(output) == snapshot(tmp_path / "undisturbed" / "run")


def test_other_data_in_a_folder_that_is_in_use_is_refused(ppt, whole, pictures, output):
    assert ppt(*whole, output).code == 0
    before = snapshot(output)
    write_rows(pictures / "pairs.jsonl", [{"id": "other", "image": "c.png", "text": "another disc"}])
    refused = ppt(*whole, output)
    assert refused.code == 2
    assert (
        "records: of the 7 pairs that it was made of, 7 are gone or their images cannot be read"
        in refused.printed
    )
    assert snapshot(output) == before
    assert ppt(*whole, output, "--fresh").code == 3, "the truth is still of the others"


def test_images_out_of_reach_cost_nothing_of_what_was_made_of_them(ppt, whole, pictures, output):
    assert ppt(*whole, output).code == 0
    before = snapshot(output)
    for path in pictures.glob("*.png"):
        path.rename(path.with_suffix(".away"))
    refused = ppt(*whole, output)
    assert refused.code == 2
    assert "6 are gone or their images cannot be read; bring them back" in refused.printed
    assert snapshot(output) == before
    for path in pictures.glob("*.away"):
        path.rename(path.with_suffix(".png"))
    assert ppt(*whole, output).code == 0
    assert snapshot(output) == before


def test_a_review_outlives_images_that_come(pictures, models, output):
    walk(settings(pictures), output, "labels")
    looked_at = rows(output, "labels")
    write_rows(
        output / "review.jsonl",
        [{"id": id, "decision": "drop", "of": looked_at[id]["of"]} for id in ("a-left", "b-left")],
    )
    Image.fromarray(picture({"left": "blue", "middle": "red"})).save(pictures / "b.png")
    Image.fromarray(picture({"right": "red"})).save(pictures / "new.png")
    pairs = read_rows(pictures / "pairs.jsonl")
    write_rows(pictures / "pairs.jsonl", [*pairs, {"id": "new", "image": "new.png", "text": "the red disc"}])
    summary = walk(settings(pictures), output, "labels")
    assert summary.note == "1 reviewed, 1 decisions passed over, 0 of ids that are not here"
    assert rows(output, "labels")["a-left"]["review"]["decision"] == "drop"
    assert "review" not in rows(output, "labels")["b-left"], "it was about masks of another picture"


# --- what was trained


@pytest.mark.parametrize(("stage", "how"), [("points", SMALL), ("segmenter", TINY)])
def test_a_training_is_not_thrown_away_unasked(all_train, models, output, stage, how):
    config = settings(all_train, *how)
    walk(config, output, stage)
    before = snapshot(output / stage / "shards")
    Image.fromarray(picture({"left": "blue", "middle": "red"})).save(all_train / "b.png")
    with pytest.raises(
        StaleArtifact,
        match=f"{stage}: has learned from other inputs; --fresh trains anew, --set keep_trained=true",
    ):
        walk(config, output, stage)
    kept = config.model_copy(update={"keep_trained": True})
    assert walk(kept, output, stage).note == "kept, though it has learned from other inputs"
    walk(kept, output, "evaluate" if stage == "segmenter" else "labels", first=stage)
    assert snapshot(output / stage / "shards") == before
    walk(config, output, stage, first=stage, fresh=True)
    assert snapshot(output / stage / "shards") != before
