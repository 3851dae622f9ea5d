"""The naive loop beside ours: the same work, the same masks, in turns."""

import json

import pytest
from fixtures.models import FakeClip
from fixtures.pictures import read_rows
from fixtures.small_sam import CONFIG, write
from fixtures.walk import settings

from pipelines import doors
from pipelines.benchmark.speed import speed
from ppt.backbones.sam import build_embedded_sam


def test_the_naive_loop_and_ours_draw_the_same_in_turns(pictures, output, tmp_path, monkeypatch):
    clip = FakeClip()
    monkeypatch.setattr(doors, "load_clip", lambda *_: clip)
    config = settings(
        pictures,
        f"sam.weights={write(tmp_path)}",
        "benchmark.images=2",
        "benchmark.sentences=3",
        "benchmark.rounds=2",
    )
    table = speed(config, output)
    kept = json.loads((output / "benchmark" / "speed.json").read_text())
    assert table == (output / "benchmark" / "speed.md").read_text()
    alone, whole = kept["races"]
    assert alone["name"] == "SAM alone, embedded"
    assert {len(seconds) for race in (alone, whole) for seconds in race["seconds"].values()} == {2}
    assert alone["same"]["ours"] == alone["same"]["ours, embeddings kept"] == whole["same"]["ours"] == 1
    assert alone["same"]["ours, encoder in bfloat16"] <= 1
    # Once for the points; then for every sentence in the naive loop, and for every image in ours.
    assert clip.calls["encode_image"] == 2 + 2 * (2 * 3 + 2)
    rows = read_rows(output / "benchmark" / "speed" / "pairs.jsonl")
    assert [row["image"] for row in rows] == ["images/000.png"] * 3 + ["images/001.png"] * 3
    assert len({(row["image"], row["text"]) for row in rows}) == 6
    assert table.count("|\n") == 2 + 4 + 2 + 2 + 3, "the stand-in for CLIP has no clock"
    assert set(kept["operations"]) == {"CLIP, images", "CLIP, sentences", "SAM, images", "SAM, points"}
    assert min(kept["operations"].values()) > 0
    assert min(kept["rates"].values()) > 1e8
    assert (output / "benchmark" / "speed.svg").read_text().startswith("<svg ")
    assert (
        0
        < sum(kept["ours"][name] for name in kept["ours"] if name not in ("all", "coding masks"))
        < kept["ours"]["all"]
    )


@pytest.mark.slow
def test_an_untrained_sam_is_raced_on_one_image(pictures, output, tmp_path, monkeypatch):
    monkeypatch.setattr(doors, "load_clip", lambda *_: FakeClip())
    monkeypatch.setattr("pipelines.benchmark.speed.untrained_sam", lambda name: build_embedded_sam(CONFIG))
    config = settings(
        pictures, f"sam.weights={write(tmp_path)}", "benchmark.images=2", "benchmark.sentences=2",
        "benchmark.rounds=1", "benchmark.untrained=[vit_b]",
    )  # fmt: skip
    speed(config, output)
    races = json.loads((output / "benchmark" / "speed.json").read_text())["races"]
    assert [race["name"] for race in races][1] == "SAM alone, vit_b, random weights"
    assert races[1]["same"]["ours"] == 1
