"""What the models cost, against counts by hand; and that the stages add it up."""

import pytest

from pipelines import costs
from ppt.backbones.clip import Reading
from ppt.backbones.cost import LENGTH, ClipCost, SamCost, clip_cost, measured_rate, sam_cost
from ppt.config import load_config
from ppt.types import Pair


def by_hand(tokens, width, layers):
    """A transformer: per token and layer two operations for every weight, and attention to every token."""
    weights = 3 * width * width + width * width + 2 * width * 4 * width
    return layers * tokens * (2 * weights + 2 * 2 * tokens * width)


def test_clips_towers_are_what_a_count_by_hand_says():
    cost = clip_cost("ViT-B-16-quickgelu", 224, None, Reading(), 224, 224)
    text = by_hand(LENGTH, 512, 12) + 2 * 512 * 512
    assert cost.sentence == text
    patches = 196 * 2 * 768 * 768  # 16 x 16 x 3 numbers each
    # The value path asks the last block for its values alone: no keys, no queries, no attention.
    whole = patches + by_hand(197, 768, 12) + 196 * 2 * 768 * 512
    assert 0.9 * whole < cost.image < whole
    assert (cost.cells, cost.dimension) == (196, 512)


def test_every_reading_counts_and_the_grid_is_that_of_the_first():
    once = clip_cost("embedded", 320, None, Reading(), 480, 640)
    twice = clip_cost("embedded", 320, None, Reading(mirror=True), 480, 640)
    assert twice.image == 2 * once.image
    assert twice.cells == once.cells


def test_sam_vit_b_is_what_is_published():
    cost = sam_cost("vit_b")
    assert 0.95e12 < cost.embed < 1.0e12  # 486 G multiplications and additions
    assert cost.embedding == 256 * 64 * 64
    assert 0 < cost.prompt < cost.embed / 50


def test_a_machine_does_something_in_a_second():
    assert 1e8 < measured_rate("cpu") < 1e15


@pytest.fixture
def unit_costs(monkeypatch):
    monkeypatch.setattr(costs, "clip_cost", lambda *_: ClipCost(1e3, 1e2, 20, 8))
    monkeypatch.setattr(costs, "sam_cost", lambda *_: SamCost(1e6, 1e4, 64))
    monkeypatch.setattr(costs, "_of_generator", lambda *_: 7.0)
    monkeypatch.setattr(costs, "_of_segmenter", lambda *_: (3.0, 10.0))


def pairs(count, source="referring"):
    return [Pair(f"{source}{i}", f"{source}{i // 2}.png", f"text {i}", "train", source) for i in range(count)]


def test_images_count_once_and_sentences_each(unit_costs):
    found = costs.count(load_config(None), pairs(4))
    seen = {"relevance": 2 * 1e3 + 4 * 1e2, "masks": 2 * 1e6 + 4 * 1e4}
    # Mirrored and smaller read the images again, reworded does not.
    assert found.operations == {**seen, "views": 2 * 2 * 1e3 + 3 * 4 * 1e2}
    assert costs.count(load_config(None, ["views.ask=[]"]), pairs(4)).operations == seen
    assert (found.pictures, found.looks) == (2, 2)
    assert (found.features, found.embedding) == (2 * 20 * 8, 4 * 64)


def test_the_generator_and_the_segmenter_add_what_they_ask(unit_costs):
    config = load_config(
        None,
        [
            "points.method=generator", "points.sets=2", "generator.mosaics=100", "generator.through_sam=0.1",
            "generator.sets=3", "generator.points=4", "generator.steps=5", "generator.batch=6",
            "generator.readings=4", "generator.refreshes=1", "generator.steadiness=true",
            "with_segmenter=true", "segmenter.steps=8", "segmenter.batch=2", "segmenter.things=3",
        ],
    )  # fmt: skip
    found = costs.count(config, [*pairs(4), *pairs(2, "object_centric")])
    seen, asked = 2 * (1 + 2), 2 * (1 + 4 * 3)  # the mirror image, too
    assert found.operations["points"] == (
        (seen + 10) * 1e6 + (asked + 10 * 3 * 4) * 1e4 + 100 * 1e3 + 5 * (6 + 4) * 7
    )
    assert found.operations["masks"] == 3 * 1e6 + 6 * 2 * 1e4
    assert found.operations["segmenter"] == 8 * 2 * 10
    assert found.operations["predictions"] == 6 * 3 + 3 * 1e6 + 6 * (3 + 2) * 1e4
    assert found.pictures == 2 * 3
    assert found.looks == 3 + seen + 3, "masks, points and predictions"


def test_a_step_of_the_parts_is_counted_on_the_real_parts():
    config = load_config(None, ["segmenter.size=64", "segmenter.width=16", "segmenter.adapter_width=8"])
    forward, both = costs._of_segmenter(config)
    assert 0 < forward < both
    assert costs._of_generator(config, 16, 20) > 0
