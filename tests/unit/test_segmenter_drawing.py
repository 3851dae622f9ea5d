import numpy as np
import pytest

from ppt import rle
from ppt.segmenter.drawing import CLICKS, Canvas, Thing
from ppt.segmenter.frames import Frame
from ppt.types import MaskCandidates

HEIGHT, WIDTH = 40, 80


class Offers:
    """A SAM that offers what it is given, and remembers what it was asked."""

    fingerprint = "offers"

    def __init__(self, *masks, predicted_iou=None, stability=None):
        self.masks, self.asked = masks, []
        self.predicted_iou = np.array(predicted_iou or [0.9] * len(masks), np.float32)
        self.stability = np.array(stability or [1.0] * len(masks), np.float32)

    def embed(self, image):
        raise AssertionError("the canvas has the embedding")

    def predict(self, embedding, prompts):
        self.asked += [(embedding, points.xy.tolist(), points.labels.tolist()) for points in prompts]
        masks = tuple(rle.encode(mask) for mask in self.masks)
        return [MaskCandidates(masks, self.predicted_iou, self.stability) for _ in prompts]


def columns(first, last):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[:, first:last] = True
    return mask


def lit(grid=4, row=0, column=2):
    click = np.zeros((grid, grid), np.float32)
    click[row, column] = 1
    return click


def things(sam, click, share, most=1):
    return Canvas(sam, "embedding", Frame(64, HEIGHT, WIDTH)).things(click, share, most)


def draw(sam, click, share):
    [thing] = things(sam, click, share)
    np.testing.assert_array_equal(thing.covered, Frame(64, HEIGHT, WIDTH).covered(rle.decode(thing.mask), 4))
    return thing.mask


def test_sam_is_asked_for_the_middle_of_the_best_cell():
    # 80 x 40 pixels fill 64 x 32 of the square: cells of 16 are 20 pixels wide, from 40 to 60 and 0 to 20.
    sam = Offers(columns(40, 60))
    draw(sam, lit(), lit())
    assert sam.asked == [("embedding", [[49.5, 9.5]], [1])]


def test_what_sam_was_asked_it_is_not_asked_again():
    sam = Offers(columns(40, 60), columns(0, 80))
    canvas = Canvas(sam, "embedding", Frame(64, HEIGHT, WIDTH))
    narrow, [wide] = canvas.things(lit(), lit()), canvas.things(lit(), np.ones((4, 4), np.float32))
    assert len(sam.asked) == 1
    assert narrow[0].mask == rle.encode(columns(40, 60))  # what fits is chosen anew
    assert wide.mask == rle.encode(columns(0, 80))
    canvas.things(lit(column=0), lit())
    assert len(sam.asked) == 2


def test_what_pads_the_image_is_never_clicked():
    sam, click = Offers(columns(0, 20)), lit(row=1, column=3)
    click[3, 0] = 9
    draw(sam, click, click)
    assert sam.asked[0][1] == [[69.5, 29.5]]


def test_a_sliver_is_clicked_inside():
    sam = Offers(np.ones((1, 500), bool))
    Canvas(sam, None, Frame(64, 1, 500)).things(lit(column=3), lit())
    ((x, y),) = sam.asked[0][1]
    assert 0 <= x <= 499
    assert y == 0


def test_the_candidate_that_covers_the_cells_is_taken_though_sam_likes_another_more():
    whole, part, other = columns(0, 80), columns(40, 60), columns(0, 20)
    share = np.zeros((4, 4), np.float32)
    share[:2, 2] = 1
    sam = Offers(whole, part, other, predicted_iou=[0.95, 0.8, 0.95])
    assert draw(sam, lit(), share) == rle.encode(part)


def test_of_two_that_fit_alike_sam_says_which():
    one, two = columns(40, 60), columns(41, 60)
    share = np.full((4, 4), 0.0, np.float32)
    share[:2, 2] = 1
    assert draw(Offers(one, two, predicted_iou=[0.5, 0.9]), lit(), share) == rle.encode(two)
    assert draw(Offers(one, two, stability=[0.5, 0.9]), lit(), share) == rle.encode(two)


def test_without_an_offer_there_is_no_mask():
    assert things(Offers(), lit(), lit(), 3) == []


class Columns(Offers):
    """A SAM that offers the twenty columns around the point."""

    def predict(self, embedding, prompts):
        (points,) = prompts
        first = int(points.xy[0, 0] // 20) * 20
        self.masks = (columns(first, first + 20),)
        self.predicted_iou = self.stability = np.ones(1, np.float32)
        return super().predict(embedding, prompts)


def test_the_next_thing_is_looked_for_where_no_mask_lies_yet():
    click = np.zeros((4, 4), np.float32)
    click[0, 1], click[1, 1], click[0, 3] = 5, 4, 3
    sam = Columns()
    found = things(sam, click, click / 5, most=2)
    assert [thing.mask for thing in found] == [rle.encode(columns(20, 40)), rle.encode(columns(60, 80))]
    assert len(things(sam, click, click / 5, most=9)) == 4, "no thing twice, and the image has no more"


def test_a_mask_that_misses_its_cell_is_not_asked_for_again():
    sam = Offers(columns(0, 20))
    assert len(things(sam, lit(), lit(), most=3)) == 1
    assert len(sam.asked) == 3
    assert len({tuple(xy[0]) for _, xy, _ in sam.asked}) == 3


class InTurn(Offers):
    """A SAM that offers one mask after the other."""

    def predict(self, embedding, prompts):
        self.asked += [(embedding, points.xy.tolist(), points.labels.tolist()) for points in prompts]
        one = np.ones(1, np.float32)
        return [MaskCandidates((rle.encode(m),), one, one) for m, _ in zip(self.masks, prompts, strict=True)]


def redrawn(sam, mask, share=None):
    frame = Frame(64, HEIGHT, WIDTH)
    thing = Thing(rle.encode(mask), frame.covered(mask, 4))
    return Canvas(sam, "embedding", frame).redrawn(thing, thing.covered if share is None else share)


def test_a_thing_drawn_again_has_what_most_drawings_have():
    sam = InTurn(columns(41, 60), columns(41, 70))
    assert redrawn(sam, columns(40, 60)) == rle.encode(columns(41, 60))


def test_it_is_drawn_from_one_place_then_from_more_all_well_inside():
    sam, mask = InTurn(*[columns(20, 60)] * CLICKS), columns(20, 60)
    redrawn(sam, mask)
    places = [xy for _, xy, _ in sam.asked]
    assert [len(xy) for xy in places] == [*range(1, CLICKS + 1)]
    assert all(places[-1][: len(xy)] == xy for xy in places), "the same places, and one more each time"
    assert all(labels == [1] * len(labels) for _, _, labels in sam.asked)
    assert all(mask[int(y) - 3 : int(y) + 4, int(x) - 3 : int(x) + 4].all() for x, y in places[-1])


def test_nothing_stays_nothing():
    sam, nothing = Offers(columns(0, 20)), columns(0, 0)
    assert redrawn(sam, nothing) == rle.encode(nothing)
    assert not sam.asked


def test_drawn_again_by_a_sam_without_an_offer_it_stays():
    assert redrawn(Offers(), columns(40, 60)) == rle.encode(columns(40, 60))


@pytest.mark.parametrize(("height", "width"), [(480, 640), (640, 427), (120, 1000)])
def test_the_middle_of_a_cell_lies_under_it(height, width):
    frame = Frame(320, height, width)
    there = frame.there(20)
    full = np.argwhere(there > 0.99)
    assert len(full) >= 20
    for row, column in full:
        x, y = frame.middle(int(row), int(column), 20)
        mask = np.zeros((height, width), bool)
        mask[round(float(y)), round(float(x))] = True
        covered = frame.covered(mask, 20)
        assert covered[row, column] > 0.9 * covered.sum() > 0
