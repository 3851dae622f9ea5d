"""Scenes of made-up cut-outs: exact and disjoint masks, the same bytes; and the cut-outs themselves."""

import json

import cv2
import numpy as np
import pytest
from fixtures.cutouts import CUTOUTS, cutout, scene_of
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.foundation import data
from ppt.scenes import compose as composing
from ppt.scenes.compose import compose
from ppt.scenes.cutouts import COLOURS, STAMPS, colour_word, load_cutouts, noun_phrase
from ppt.seeding import generator

VISIBLE = 0.55
SEEDS = st.integers(0, 10_000)


# --- composing


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(1, 6), st.booleans())
def test_masks_are_disjoint_and_every_object_stays_visible(seed, objects, twins):
    scene = scene_of(seed, objects, twins)
    assert (scene.image.shape, scene.image.dtype) == ((96, 128, 3), np.uint8)
    assert 1 <= len(scene.instances) <= max(objects, 2 if twins else 1)
    masks = np.stack([instance.mask for instance in scene.instances])
    assert (masks.shape[1:], masks.dtype) == ((96, 128), bool)
    assert masks.sum(0).max() == 1, "no pixel belongs to two"
    for instance in scene.instances:
        assert instance.mask.sum() >= VISIBLE * 0.99 * instance.size**2 * 0.85


def test_the_mask_is_exactly_where_the_object_shows(monkeypatch):
    """On black, without shadow, light, blur or noise, an opaque white object is its own mask."""
    monkeypatch.setattr(composing, "background", lambda rng, h, w: np.zeros((h, w, 3), np.float32))
    monkeypatch.setattr(composing, "_finish", lambda rng, canvas: np.clip(canvas, 0, 255).astype(np.uint8))
    monkeypatch.setattr(composing, "_paste", _without_shadow(composing._paste))
    box = [cutout("slab", "white", "box", 50, 70), cutout("plate", "white", "disc", 60, 60)]
    for seed in range(10):
        scene = compose(generator(seed, "test", "exact"), box, [0, 1], 96, 128)
        shown = scene.image.max(2) > 110  # half of the least light that an object gets
        together = np.any([instance.mask for instance in scene.instances], 0)
        edge = cv2.dilate(together.astype(np.uint8), np.ones((3, 3))) != cv2.erode(
            together.astype(np.uint8), np.ones((3, 3))
        )
        assert not ((shown != together) & ~edge).any()


def _without_shadow(real):
    return lambda canvas, posed, left, top, shadow: real(canvas, posed, left, top, 0.0)


def test_what_lies_in_front_hides_what_is_behind():
    """The last of the instances is whole within the frame; what it covers is missing from the others."""
    met = 0
    for seed in range(40):
        scene = scene_of(seed, objects=5)
        front = scene.instances[-1]
        assert front.mask.sum() >= 0.85 * front.size**2
        for behind in scene.instances[:-1]:
            near = cv2.dilate(front.mask.astype(np.uint8), np.ones((3, 3))) > 0
            met += bool((behind.mask & near).any())
    assert met > 5, "there is occlusion at all"


def test_centre_and_size_are_of_the_full_extent():
    for seed in range(20):
        [instance] = compose(generator(seed, "test", "one"), CUTOUTS, [1], 96, 128).instances
        ys, xs = np.nonzero(instance.mask)
        assert instance.size == pytest.approx(instance.mask.sum() ** 0.5, rel=0.09), "15 % may lie outside"
        assert abs(xs.mean() - instance.centre_xy[0]) < 8
        assert abs(ys.mean() - instance.centre_xy[1]) < 8


def test_a_scene_is_a_function_of_its_seed():
    one, again, other = (scene_of(seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.image, again.image)
    assert [i.name for i in one.instances] == [i.name for i in again.instances]
    for a, b in zip(one.instances, again.instances, strict=True):
        np.testing.assert_array_equal(a.mask, b.mask)
    assert (one.image != other.image).any()


def test_composing_leaves_the_cutouts_as_they_were():
    before = [c.rgba.copy() for c in CUTOUTS]
    for seed in range(5):
        scene_of(seed, 5, twins=True)
    for cut, old in zip(CUTOUTS, before, strict=True):
        np.testing.assert_array_equal(cut.rgba, old)


def test_names_are_distinct_but_for_the_twins():
    doubled = 0
    for seed in range(30):
        names = [i.name for i in scene_of(seed, 4).instances]
        assert len(set(names)) == len(names)
        names = [i.name for i in scene_of(seed, 4, twins=True).instances]
        assert len(names) - len(set(names)) <= 1
        doubled += len(names) - len(set(names))
    assert doubled > 15


# --- cut-outs


@pytest.mark.parametrize(
    ("caption", "name"),
    [
        ("An otter.", "otter"),
        ("A bald eagle! It is large.", "bald eagle"),
        ("The old red truck is broken", "red truck"),
        ("Two cherries", "cherries"),
        ("A pair of scissors, opened", "scissors"),
        ("A head of the lettuce", "lettuce"),
        ("“Granny’s” apple (green)", "grannys apple"),
        ("Bananas are yellow.", "bananas"),
        ("A very small mouse — grey", "mouse"),
        ("bus", "bus"),
    ],
)
def test_noun_phrase_by_hand(caption, name):
    assert noun_phrase(caption) == name


@pytest.mark.parametrize(
    ("rgb", "word"),
    [
        ((10, 10, 10), "black"),
        ((250, 250, 250), "white"),
        ((128, 128, 128), "gray"),
        ((220, 20, 20), "red"),
        ((230, 130, 20), "orange"),
        ((120, 70, 30), "brown"),
        ((240, 220, 40), "yellow"),
        ((40, 160, 40), "green"),
        ((30, 60, 200), "blue"),
        ((140, 40, 200), "purple"),
        ((250, 150, 170), "pink"),
    ],
)
def test_colour_word_by_hand(rgb, word):
    assert word in COLOURS
    assert colour_word(np.full((40, 40, 4), (*rgb, 255), np.uint8)) == word


def test_no_colour_where_none_covers_more_than_half_or_hardly_anything_is_solid():
    rgba = np.full((40, 40, 4), (220, 20, 20, 255), np.uint8)
    rgba[:, 20:, :3] = (30, 60, 200)
    assert colour_word(rgba) is None
    rgba[:, 30:, :3] = (220, 20, 20)
    assert colour_word(rgba) == "red", "three quarters"
    rgba[1:, :, 3] = 0
    assert colour_word(rgba) is None, "one row of forty"


def test_cutouts_are_read_with_names_crops_and_the_held_out_third(tmp_path):
    def stamp(path, caption=None, size=60, alpha=255, mode=4):
        rgba = np.zeros((100, 100, mode), np.uint8)
        rgba[20 : 20 + size, 30 : 30 + size] = (10, 20, 200, alpha)[:mode]  # OpenCV writes BGR
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(tmp_path / path), rgba)
        if caption:
            (tmp_path / path).with_suffix(".txt").write_text(
                caption + "\nfr.utf8=Une loutre.", encoding="utf-8"
            )

    stamp("animals/otter.png", "An otter.")
    stamp("animals/otter_mirror.png", "An otter.")
    stamp("animals/cartoon-cat.png", "A cat.")
    stamp("animals/untold.png")
    stamp("food/corn.png", "Some corn on the cob.")
    stamp("symbols/arrow.png", "An arrow.")
    stamp("things/cup.png", "A cup.")
    stamp("things/dot.png", "A dot.", size=8)
    stamp("things/flat.png", "A flat thing.", mode=3)
    stamp("things/ghost.png", "A glass.", alpha=90)
    stamp("things/saw.png", "A saw.")
    found = load_cutouts(tmp_path)
    assert [(c.key, c.name, c.unseen_by_sam) for c in found] == [
        ("animals/otter.png", "otter", False),
        ("food/corn.png", "corn", False),
        ("things/cup.png", "cup", True),
        ("things/saw.png", "saw", False),
    ]
    assert found[0].rgba.shape == (60, 60, 4)
    assert tuple(found[0].rgba[30, 30]) == (200, 20, 10, 255)


def test_a_missing_package_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="tuxpaint-stamps-default"):
        load_cutouts(tmp_path / "nothing")


@pytest.mark.skipif(not STAMPS.is_dir(), reason="Debian's tuxpaint-stamps-default is not installed")
def test_the_real_package_holds_about_350_photographs():
    found = load_cutouts()
    assert 300 <= len(found) <= 420
    assert all(c.name and c.rgba.shape[2] == 4 and max(c.rgba.shape[:2]) <= 320 for c in found)
    assert len({c.key for c in found}) == len(found)
    assert sum(c.unseen_by_sam for c in found) == len(found) // 3


def test_the_demos_truth_names_the_cut_out_that_each_sentence_means(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "load_cutouts", lambda: CUTOUTS)
    monkeypatch.setattr(data, "SHARES", {"object_centric": len(CUTOUTS), "train": 3})
    data.build(tmp_path)
    rows = [
        [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
        for name in ("pairs", "truth")
    ]
    names = {cutout.key: cutout.name for cutout in CUTOUTS}
    for pair, true in zip(*rows, strict=True):
        assert pair["id"] == true["id"]
        if pair["kind"] == "name":
            assert names[true["cutout"]] in pair["text"]
    alone = [true["cutout"] for true in rows[1] if true["id"].startswith("object_centric")]
    assert set(alone) == set(names)
