import base64
import io
import re

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ppt import rle
from ppt.report import charts, figures, preview, words
from ppt.types import RelevanceMap


def photo_uri(image):
    return figures.data_uri("jpeg", figures.photo_jpeg(image))


def pixels(uri):
    head, content = uri.split(",", 1)
    assert re.fullmatch(r"data:image/(png|jpeg);base64", head)
    return Image.open(io.BytesIO(base64.b64decode(content)))


def filled(path, height, width):
    """The path rasterised again by the even-odd rule."""
    rings = [ring for ring in path.split("M") if ring]
    polygons = [np.array(re.findall(r"-?[\d.]+", ring), float).reshape(-1, 2) for ring in rings]
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [polygon.round().astype(np.int32) for polygon in polygons], 1)
    return mask > 0


def ring(height, width):
    ys, xs = np.mgrid[:height, :width]
    distance = np.hypot((ys - height / 2) / height, (xs - width / 2) / width)
    return (distance < 0.42) & (distance > 0.2)


@pytest.mark.parametrize(("height", "width"), [(120, 160), (900, 1400), (2000, 700)])
def test_a_traced_mask_is_the_mask_holes_included(height, width):
    mask = ring(height, width)
    path = figures.mask_path(rle.encode(mask))
    again = filled(path, height, width)
    assert rle.iou(rle.encode(mask), rle.encode(again)) > 0.97
    assert not again[height // 2, width // 2]
    assert len(path) < 6000


@settings(max_examples=40)
@given(st.integers(1, 40), st.integers(1, 40), st.randoms(use_true_random=False))
def test_any_mask_can_be_traced_and_stays_in_the_image(height, width, random):
    mask = np.array([[random.random() < 0.4 for _ in range(width)] for _ in range(height)])
    path = figures.mask_path(rle.encode(mask))
    assert bool(path) == bool(mask.any())
    numbers = np.array(re.findall(r"-?[\d.]+", path), float).reshape(-1, 2)
    assert (numbers >= 0).all()
    assert (numbers <= (width - 1, height - 1)).all()


def test_a_speck_on_a_large_image_is_not_lost():
    mask = np.zeros((4000, 6000), bool)
    mask[1234, 4321] = True
    numbers = re.findall(r"[\d.]+", figures.mask_path(rle.encode(mask)))
    assert [float(value) for value in numbers[:2]] == pytest.approx([4321, 1234], abs=12)


def test_a_mask_of_dust_makes_no_page_of_megabytes():
    dust = np.random.default_rng(0).random((800, 800)) < 0.3
    assert len(figures.mask_path(rle.encode(dust))) < 40_000


def test_the_photograph_is_reduced_and_keeps_its_shape():
    image = np.zeros((1000, 2000, 3), np.uint8)
    image[:, 1000:] = (200, 40, 20)
    photo = pixels(figures.data_uri("jpeg", figures.photo_jpeg(image)))
    assert photo.size == (448, 224)
    np.testing.assert_allclose(np.asarray(photo)[100, 400], (200, 40, 20), atol=6)
    assert pixels(photo_uri(image[:10, :20])).size == (20, 10), "a small image is not enlarged"


def test_the_heat_picture_has_the_previews_colours():
    values = np.random.default_rng(1).normal(size=(7, 9)).astype(np.float32)
    relevance = RelevanceMap(values, 70, 90)
    uri = figures.heat_uri(relevance)
    picture = np.asarray(pixels(uri).convert("RGBA"))
    assert picture.shape == (28, 36, 4)
    y, x = np.unravel_index(picture[..., 3].argmax(), (28, 36))
    assert (y // 4, x // 4) == np.unravel_index(values.argmax(), (7, 9))
    assert {tuple(colour) for colour in picture.reshape(-1, 4)} <= {tuple(c) for c in preview.heat_palette()}


def test_a_map_without_evidence_has_no_heat_picture():
    assert figures.heat_uri(RelevanceMap(np.ones((3, 3), np.float32), 9, 9)) is None


def test_a_histogram_counts_every_value_once():
    values = [0.0, 0.01, 0.5, 1.0, 1.0, 7.0, -3.0]
    tips = re.findall(r"<title>[^<]*: (\d+)</title>", charts.histogram(values, 0.0, 1.0, "things"))
    assert sum(map(int, tips)) == len(values)


def test_a_histogram_of_nothing_is_an_empty_frame():
    assert "<rect" not in charts.histogram([], 0.0, 1.0, "things")
    assert charts.summary([]) == "no values"


def test_a_scatter_plot_of_very_many_stays_small():
    many = np.linspace(0, 1, 50_000).tolist()
    assert charts.scatter(many, many, "x", "y").count("<circle") == 2000


def test_bars_escape_their_names_and_write_the_count():
    drawn = charts.bars([("<b>bad</b>", 1234, "1,234"), ("good", 617, "617")], "what & why")
    assert "&lt;b&gt;bad&lt;/b&gt;" in drawn
    assert "1,234" in drawn
    assert "width:50%" in drawn
    assert 'aria-label="what &amp; why"' in drawn


def test_rank_correlation_on_hand_made_ranks():
    assert charts.correlation([1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 30.0, 1000.0]) == pytest.approx(1)
    assert charts.correlation([1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0]) == pytest.approx(-1)
    # Ties share the mean rank: (1.5, 1.5, 3) against (1, 2, 3).
    assert charts.correlation([5.0, 5.0, 9.0], [1.0, 2.0, 3.0]) == pytest.approx(np.sqrt(3) / 2)
    assert charts.correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]) is None
    assert charts.correlation([1.0, 2.0], [1.0, 2.0]) is None


@pytest.mark.parametrize(
    ("reason", "words_"),
    [
        ("chosen:predicted_iou", "Has the highest predicted IoU."),
        ("excluded:stability 0.41 < 0.5", "Left out of training: stability 0.41 < 0.5."),
        ("same_mask_as:7_b", "Has the same mask as 7_b."),
        ("no_candidate:of_a_new_kind", "No mask: of a new kind."),
        ("a_new_reason", "a new reason"),
        ("Already a_sentence.", "Already a_sentence."),
    ],
)
def test_reasons_become_sentences(reason, words_):
    assert words.sentence(reason) == words_


def test_a_reason_is_counted_without_its_values():
    kinds = {words.kind(f"excluded:stability {value} < 0.5") for value in (0.1, 0.2)}
    assert kinds == {"excluded for stability"}
    assert words.kind("no_candidate:background_sized") == "no candidate, background sized"
    assert words.kind("no_evidence") == "no evidence"


def test_areas_lie_on_each_other_and_fill_the_frame():
    drawn = str(charts.areas([0.0, 10.0], {"one": [1.0, 0.25], "two": [0.0, 0.75]}, "shares"))
    first, second = re.findall(r'points="([^"]+)"', drawn)
    corners = [[tuple(map(float, corner.split(","))) for corner in part.split()] for part in (first, second)]
    assert corners[1][2:] == corners[0][1::-1], "the second begins where the first ends"
    assert corners[1][0][1] == corners[1][1][1] == corners[0][0][1], "together they are whole"
    assert drawn.count("<i class=") == 2


def test_a_line_goes_from_its_first_to_its_last_value():
    drawn = str(charts.line([0.0, 100.0], [2.0, 1.0], "loss"))
    [points] = re.findall(r'<polyline class="line" points="([^"]+)"', drawn)
    (x0, y0), (x1, y1) = (map(float, corner.split(",")) for corner in points.split())
    assert x0 < x1
    assert y0 < y1, "down the page"
