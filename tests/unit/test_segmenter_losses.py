import math

import pytest
import torch

from ppt.segmenter.decoders import spread
from ppt.segmenter.losses import contrast, pairwise, region
from ppt.segmenter.losses.alignment import Alignment
from ppt.segmenter.losses.contrast import Contrast
from ppt.segmenter.losses.grounding import Grounding, box, hide
from ppt.segmenter.losses.pairwise import Pairwise


def rng():
    return torch.Generator().manual_seed(0)


def square(high=8, wide=8):
    """A mask over the left half."""
    mask = torch.zeros(1, 1, high, wide)
    mask[..., : wide // 2] = 1
    return mask


# --- region


def test_region_losses_of_one_half_by_hand():
    logits, target, there = torch.zeros(1, 1, 1, 2), torch.tensor([[[[1.0, 0.0]]]]), torch.ones(1, 1, 1, 2)
    assert region.cross_entropy(logits, target, there).item() == pytest.approx(math.log(2))
    # 0.25 x 0.5^2 x log 2 where true, 0.75 where not.
    assert region.focal(logits, target, there).item() == pytest.approx(0.125 * math.log(2))
    # share 0.5 + 0.5, both 0.5, mask 1: 1 - (1 + 1) / (1 + 1 + 1) and 1 - (0.5 + 1) / (1 + 1 - 0.5 + 1).
    assert region.dice(logits, target, there).tolist() == pytest.approx([1 / 3])
    assert region.soft_iou(logits, target, there).tolist() == pytest.approx([0.4])


def test_what_pads_an_image_is_not_scored():
    logits, target = torch.randn(2, 1, 4, 4, generator=rng()), torch.zeros(2, 1, 4, 4)
    there = torch.ones(2, 1, 4, 4)
    there[..., 2:] = 0
    wild = logits.clone()
    wild[..., 2:] = 50
    for loss in (region.cross_entropy, region.focal, region.dice, region.soft_iou):
        torch.testing.assert_close(loss(logits, target, there), loss(wild, target, there))
    assert region.cross_entropy(logits, target, 0 * there).item() == 0


def test_a_label_that_is_not_believed_teaches_no_region():
    losses = torch.tensor([0.2, 0.9])
    assert region.weighted(losses, torch.tensor([1.0, 0.0])).item() == pytest.approx(0.2)
    assert region.weighted(losses, torch.zeros(2)).item() == 0


def test_an_undecided_pixel_is_hardly_believed():
    found = region.pixel_confidence(torch.tensor([[[[0.0, 0.5, 0.75, 1.0]]]])).flatten().tolist()
    assert found == pytest.approx([0.94, 0.04, 0.38, 0.94], abs=0.01)


def test_a_click_is_to_fall_into_the_mask_by_hand():
    click = torch.log(torch.tensor([[[[2.0, 3.0, 5.0, 90.0]]]]))
    target = torch.tensor([[[[1.0, 0.5, 0.0, 0.0]]]])
    there = torch.tensor([[[[1.0, 1.0, 1.0, 0.0]]]])
    # Of the image's three cells 0.2 and half of 0.3 lie in the mask; the fourth pads it.
    assert region.point(spread(click, there), target).tolist() == pytest.approx([-math.log(0.35)])
    assert region.point(spread(click, there), 0 * target).tolist() == [0]


def test_a_panorama_that_fills_no_cell_can_be_clicked():
    target = torch.tensor([[[[0.0, 0.2], [0.0, 0.0]]]])
    there = torch.tensor([[[[0.2, 0.2], [0.0, 0.0]]]])
    click = spread(torch.zeros(1, 1, 2, 2), there)
    assert region.point(click, target).tolist() == pytest.approx([-math.log(0.1)])


def test_a_click_is_drawn_from_the_other_thing_to_the_one_that_is_meant():
    click = torch.zeros(1, 1, 4, 4, requires_grad=True)
    target = torch.zeros(1, 1, 4, 4)
    target[..., 0, 0] = 1
    region.point(spread(click, torch.ones_like(target)), target).sum().backward()
    assert click.grad is not None
    assert click.grad[0, 0, 0, 0] < 0
    assert (click.grad.flatten()[1:] > 0).all()


# --- pairwise


def test_pairwise_is_small_where_inside_is_alike_and_outside_is_not():
    loss, mask, there = Pairwise(1, 4, 4), square(), torch.ones(1, 1, 8, 8)
    loss.project[0].weight.data = torch.eye(4)[..., None, None]
    torch.nn.init.zeros_(loss.project[0].bias)
    apart = torch.zeros(1, 4, 8, 8)
    apart[:, :1], apart[:, 1:2] = mask, 1 - mask
    alike = torch.ones(1, 4, 8, 8)
    # Cosines 1 and 0 about a margin of 0.3, over 0.07; all cosines 1.
    expected = (math.log1p(math.exp(-10)) + math.log1p(math.exp(-0.3 / 0.07))) / 2
    assert loss((apart,), mask, there, rng()).item() == pytest.approx(expected, rel=1e-3)
    assert loss((alike,), mask, there, rng()).item() == pytest.approx(5, rel=1e-3)


def test_the_released_pairwise_loss_saturates_and_the_corrected_one_teaches():
    level = torch.randn(2, 512, 10, 10, generator=rng()).relu().requires_grad_()
    sentence = torch.randn(2, 512, generator=rng())
    released = pairwise.released((level,), sentence)
    (gone,) = torch.autograd.grad(released, level)
    assert released.item() > 0.7
    assert gone.norm() < 1e-3
    corrected = Pairwise(1, 512)(
        (level,), square(10, 10).expand(2, -1, -1, -1), torch.ones(2, 1, 10, 10), rng()
    )
    (taught,) = torch.autograd.grad(corrected.mean(), level)
    assert taught.norm() > 1e-2


def test_a_mask_of_nothing_or_everything_says_nothing_of_pairs():
    levels, there = (torch.randn(2, 8, 4, 4, generator=rng()),), torch.ones(2, 1, 4, 4)
    masks = torch.stack([torch.zeros(1, 4, 4), torch.ones(1, 4, 4)])
    assert Pairwise(1, 8)(levels, masks, there, rng()).tolist() == [0, 0]
    pixels, sentence = levels[0], torch.randn(2, 6)
    assert Alignment(8, 6)(pixels, sentence, masks, there, rng()).tolist() == [0, 0]


def test_cells_are_drawn_inside_and_outside_and_never_from_padding():
    covered, there = torch.rand(3, 1, 20, 20, generator=rng()), torch.ones(3, 1, 20, 20)
    there[..., 10:] = 0
    inside, outside = pairwise.drawn(covered, there, rng())
    for i in range(3):
        assert (covered[i].flatten()[inside[i]] > 0.7).all()
        assert (covered[i].flatten()[outside[i]] < 0.3).all()
        assert there[i].flatten()[torch.cat([inside[i], outside[i]])].all()
        assert len(inside[i]) == len(set(inside[i].tolist())) <= pairwise.SAMPLED


# --- contrast


def contrasted(things, said, same, unclear=None):
    """The loss of masks over whole maps whose pixels are `things`, in the space of the sentences."""
    width = things.shape[1]
    loss = Contrast(width, width, width)
    for layer in (loss.pixels, loss.sentence):
        layer.weight.data, layer.bias.data = torch.eye(width), torch.zeros(width)
    pixels = things[..., None, None].expand(-1, -1, 2, 2)
    none = torch.zeros_like(same) if unclear is None else unclear
    return loss(pixels, said, torch.ones(len(things), 1, 2, 2), same, none)


def test_contrast_by_hand():
    eye = torch.eye(2)
    found = contrasted(eye, eye, torch.eye(2, dtype=torch.bool))
    assert found.tolist() == pytest.approx([math.log1p(math.exp(-1 / 0.07))] * 2, abs=1e-6)
    swapped = contrasted(eye, eye.flip(0), torch.eye(2, dtype=torch.bool))
    assert swapped.tolist() == pytest.approx([1 / 0.07] * 2, rel=1e-4)


def test_paraphrases_are_no_negatives_and_what_is_unclear_is_neither():
    things = torch.eye(3)[[0, 0, 1]]
    same = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]]).bool()
    # Two positives share the probability: log 2 each, whatever the third says.
    assert contrasted(things, things, same)[:2].tolist() == pytest.approx([math.log(2)] * 2, abs=1e-4)
    alone = torch.eye(3, dtype=torch.bool)
    assert contrasted(things, things, alone, same & ~alone)[0].item() == pytest.approx(0, abs=1e-4)


def test_contrast_of_a_mask_that_covers_nothing_is_nothing():
    loss = Contrast(4, 4)
    none = torch.zeros(1, 1, 2, 2)
    yes = torch.ones(1, 1, dtype=torch.bool)
    assert loss(torch.rand(1, 4, 2, 2), torch.rand(1, 4), none, yes, ~yes).item() == 0


def test_the_released_contrast_is_a_tenth_of_two_sentences():
    cells = torch.zeros(2, 2, 3, 3)
    cells[:, 0] = 1
    own, other = torch.tensor([[1.0, 0.0]] * 2), torch.tensor([[0.0, 1.0]] * 2)
    found = contrast.released(cells, own, other, torch.tensor([True, False]))
    assert found.item() == pytest.approx(math.log1p(math.exp(-1)) / 10)
    assert contrast.released(cells, own, other, torch.zeros(2, dtype=torch.bool)).item() == 0


# --- alignment


def test_alignment_is_smaller_where_pixels_are_like_their_sentence():
    loss, mask, there = Alignment(4, 4, 4), square(), torch.ones(1, 1, 8, 8)
    loss.pixels.weight.data = torch.eye(4)[..., None, None]
    loss.sentence.weight.data = torch.eye(4)
    for layer in (loss.pixels, loss.sentence):
        torch.nn.init.zeros_(layer.bias)
    pixels = torch.zeros(1, 4, 8, 8)
    pixels[:, :1], pixels[:, 1:2] = mask, 1 - mask
    right, wrong = torch.eye(4)[:1], torch.eye(4)[1:2]
    assert loss(pixels, right, mask, there, rng()) < loss(pixels, wrong, mask, there, rng())
    # Of 32 inside and 32 outside: a pixel against 32 of cosine 0, over 0.1; cosines 1 and 0 to the sentence.
    expected = math.log1p(32 * math.exp(-10)) + (math.log1p(math.exp(-10)) + math.log(2)) / 2
    assert loss(pixels, right, mask, there, rng()).item() == pytest.approx(expected, rel=1e-3)


# --- grounding


def test_a_hidden_word_is_learned_from_the_mask_alone():
    """Nothing but where the mask lies tells the word."""
    torch.manual_seed(0)
    loss, vocabulary = Grounding(6, 16, 5), torch.eye(5)
    words, there = torch.zeros(2, 3, 6), torch.ones(2, 3, dtype=torch.bool)
    hidden = torch.tensor([[False, True, False]]).expand(2, -1)
    tokens = torch.tensor([[0, 3, 4], [0, 2, 4]])
    covered = torch.cat([square(), square().flip(-1)])
    optimiser = torch.optim.AdamW(loss.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        found = loss(words, there, torch.zeros(2, 16, 8, 8), covered, hidden, tokens, vocabulary).mean()
        losses.append(found.item())
        optimiser.zero_grad()
        found.backward()
        optimiser.step()
    assert losses[0] > 1 > 0.1 > losses[-1]
    blind = loss(
        words, there, torch.zeros(2, 16, 8, 8), covered[:1].expand(2, -1, -1, -1), hidden, tokens, vocabulary
    )
    assert blind.mean() > 1


def test_sentences_without_a_hidden_word_cost_nothing():
    loss = Grounding(6, 16, 5)
    hidden = torch.tensor([[False, True], [False, False]])
    found = loss(
        torch.rand(2, 2, 6), torch.ones(2, 2).bool(), torch.rand(2, 16, 8, 8), square().expand(2, -1, -1, -1),
        hidden, torch.zeros(2, 2).long(), torch.eye(5),
    )  # fmt: skip
    assert found[0] > 0
    assert found[1] == 0


def test_words_are_hidden_where_they_may_be_and_one_at_least():
    wanted = torch.zeros(400, 12, dtype=torch.bool)
    wanted[:300, 1:11] = True
    hidden = hide(wanted, rng())
    assert not (hidden & ~wanted).any()
    assert (hidden[:300].sum(1) >= 1).all()
    # One in a row at least: 0.15 of ten, and one more where none was drawn (0.85^10 of the rows).
    assert hidden[:300].float().mean().item() * 12 == pytest.approx(1.5 + 0.85**10, abs=0.15)


def test_a_box_is_centre_and_extent():
    found = box(square(10, 10))[0].tolist()
    spread = (sum((x + 0.5 - 2.5) ** 2 for x in range(5)) / 5) ** 0.5 / 10
    tall = (sum((y + 0.5 - 5) ** 2 for y in range(10)) / 10) ** 0.5 / 10
    assert found == pytest.approx([0.25, 0.5, 2 * spread, 2 * tall], abs=1e-5)
    assert box(torch.zeros(1, 1, 4, 4)).tolist() == [[0, 0, 0, 0]]


def test_every_loss_is_finite_in_half_precision_inputs():
    pixels = torch.randn(2, 8, 6, 6, generator=rng()).to(torch.bfloat16)
    mask, there = square(6, 6).expand(2, -1, -1, -1), torch.ones(2, 1, 6, 6)
    logits = pixels[:, :1] * 40
    for loss in (region.cross_entropy, region.focal, region.dice, region.soft_iou):
        assert loss(logits, mask, there).isfinite().all()
