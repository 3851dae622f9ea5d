import itertools
from dataclasses import replace

import open_clip
import pytest
import torch
import torch.nn.functional as F
from fixtures.towers import RESNET, VIT, pixels, random_clip, sentences, towers_of

from ppt.segmenter.decoders import spread
from ppt.segmenter.losses import region
from ppt.segmenter.model import Design, Segmenter
from ppt.segmenter.necks import Film, Rectified
from ppt.segmenter.prior import Prior, seen_from

WHOLE = Design(
    "bridger", "rca", 2, "add", "query", width=256, adapter_width=64, layers=2, detail=64, prior=True
)
SMALL = replace(WHOLE, width=32, adapter_width=16, layers=1, detail=0, prior=False)


def build(vision=VIT, context=20, **parts) -> Segmenter:
    torch.manual_seed(0)
    return Segmenter(towers_of(random_clip(vision, context)), replace(SMALL, **parts))


def step(model, image=None, tokens=None, clicks=False):
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    seen = model(pixels(2) if image is None else image, sentences(3, 6) if tokens is None else tokens)
    target = F.interpolate((pixels(2)[:, :1] > 0).float(), seen.logits.shape[-2:])
    loss = region.cross_entropy(seen.logits, target, torch.ones_like(target))
    if clicks:
        loss = loss + region.point(spread(seen.drawn.click, torch.ones_like(target)), target).sum()
    loss.backward()
    optimiser.step()
    return seen


ADAPTERS = ("none", "bridger", "dense", "cost")
NECKS = ("film", "rca", "cam", "concat")
FUSIONS = ((0, "add"), (1, "add"), (2, "add"), (2, "value"))
DECODERS = ("dynamic", "query", "point")
COMBINATIONS = [
    pytest.param(
        ADAPTERS[a], NECKS[n], FUSIONS[f], decoder,
        # A quarter of them has every two of adapter, neck and fusion together.
        marks=[pytest.mark.slow] if (a + n + f) % 4 else [],
    )
    for a, n, f, decoder in itertools.product(range(4), range(4), range(4), DECODERS)
]  # fmt: skip


@pytest.mark.parametrize(("adapter", "neck", "fusion", "decoder"), COMBINATIONS)
def test_every_combination_takes_two_steps_and_every_part_of_it_learns(adapter, neck, fusion, decoder):
    rounds, feedback = fusion
    parts = {"adapter": adapter, "neck": neck, "rounds": rounds, "feedback": feedback, "decoder": decoder}
    model = build(**parts, detail=8 if rounds == 2 else 0, prior=rounds == 2)
    moved = {name: torch.zeros(()) for name, _ in model.named_parameters()}
    for _ in range(2):
        model.zero_grad()
        seen = step(model, clicks=decoder == "point")
        for name, value in model.named_parameters():
            if value.grad is not None:
                moved[name] = moved[name] + value.grad.abs().sum()
    fine = 1 if decoder == "point" else 4
    assert seen.logits.shape == (2, 1, 8 * fine, 8 * fine)
    assert (seen.drawn.click is None) == (decoder != "point")
    assert [name for name, gone in moved.items() if gone == 0] == [], "parts that never learn"


@pytest.mark.parametrize("vision", [VIT, RESNET])
@pytest.mark.parametrize("adapter", ["none", "bridger", "dense", "cost"])
def test_the_towers_stay_as_they_are_to_the_bit(vision, adapter):
    model = build(vision, adapter=adapter).train()
    before = {name: value.clone() for name, value in model.towers.state_dict().items()}
    step(model)
    for name, value in model.towers.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not any(value.requires_grad for value in model.towers.parameters())
    assert not model.towers.image.visual.training


@pytest.mark.parametrize("adapter", ["bridger", "dense", "cost"])
def test_an_adapter_begins_silent(adapter):
    spoken, silent = build(adapter=adapter), build(adapter="none")
    for one, other in zip(
        spoken(pixels(2), sentences(3, 6)).taps, silent(pixels(2), sentences(3, 6)).taps, strict=True
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize("feedback", ["add", "value"])
def test_a_second_round_begins_as_the_first_and_then_differs(feedback):
    model = build(rounds=2, feedback=feedback)
    first, second = model(pixels(2), sentences(3, 6)).rounds
    torch.testing.assert_close(first, second, rtol=0, atol=1e-6)
    for _ in range(2):
        step(model)
    first, second = model(pixels(2), sentences(3, 6)).rounds
    assert (first - second).abs().max() > 1e-4


@pytest.mark.parametrize(
    "parts", [{"adapter": "bridger"}, {"adapter": "cost"}, {"adapter": "dense", "neck": "cam"}]
)
def test_padding_has_no_say(parts):
    """Neither its ids nor how much of it there is."""
    model = build(**parts)
    for _ in range(2):
        step(model)
    model.eval()
    short = sentences(3)
    other = short.clone()
    other[0, 5:] = 7
    alone = model(pixels(1), short).logits
    assert torch.equal(alone, model(pixels(1), other).logits)
    beside = model(pixels(1).expand(2, -1, -1, -1), torch.cat([short, sentences(12, seed=1)])).logits[:1]
    torch.testing.assert_close(alone, beside, rtol=0, atol=1e-4)


@pytest.mark.parametrize("adapter", ["bridger", "dense", "cost"])
@pytest.mark.parametrize("words", [3, 10, 75])
def test_sentences_of_any_length_are_read(adapter, words):
    model = build(context=77, adapter=adapter)
    assert model(pixels(1), sentences(words, context=77)).logits.isfinite().all()


def test_the_sentence_weighs_channels_everywhere_alike_and_the_cost_does_not():
    torch.manual_seed(0)
    cells, sentence = torch.rand(1, 16, 5, 5) + 0.5, torch.randn(1, 8)
    by_sentence, _ = Film(8, 16)(cells, cells, cells, sentence)
    by_cost, cost = Rectified(8, 16)(cells, cells, cells, sentence)
    assert (by_sentence / cells).flatten(2).std(-1).max() < 1e-6
    assert (by_cost / cells).flatten(2).std(-1).max() > 1e-2
    assert cost.shape == (1, 1, 5, 5)


def test_the_cost_is_the_likeness_to_what_the_sentence_wants():
    neck = Rectified(1, 2)
    torch.nn.init.constant_(neck.say.bias, 0)
    neck.say.weight.data = torch.tensor([[2.0], [-3.0]])  # rectified: only the first channel is wanted
    cells = torch.tensor([[[[1.0, 4.0]], [[5.0, 6.0]]]])
    _, cost = neck(cells, cells, cells, torch.ones(1, 1))
    torch.testing.assert_close(cost, torch.tensor([[[[2.0, 8.0]]]]) / 2**0.5)


def test_what_is_trained_is_saved_and_nothing_else():
    model, other = build(), build()
    step(model)
    other.load_state_dict(model.state_dict())
    assert not any("tower" in name for name in model.state_dict())
    image, tokens = pixels(1), sentences(4)
    assert torch.equal(model.eval()(image, tokens).logits, other.eval()(image, tokens).logits)


DESIGNS = [
    WHOLE,
    replace(WHOLE, neck="film", rounds=0, decoder="dynamic"),
    replace(WHOLE, adapter="cost", rounds=0, decoder="dynamic"),
    replace(WHOLE, adapter="none", neck="concat"),
    replace(WHOLE, neck="cam", rounds=0),
    replace(WHOLE, decoder="point", things=3),
    replace(WHOLE, adapter="none", rounds=0, decoder="point", things=3),
]


@pytest.mark.parametrize("name", ["ViT-B-16", "RN50"])
@pytest.mark.parametrize("design", DESIGNS, ids=lambda d: f"{d.adapter}-{d.neck}-{d.rounds}-{d.decoder}")
def test_at_full_size_ten_million_parameters_are_trained_at_most(name, design):
    with torch.device("meta"):
        model = Segmenter(towers_of(open_clip.CLIP(**open_clip.get_model_config(name))), design)
    trained = {name: value.numel() for name, value in model.named_parameters() if value.requires_grad}
    parts = {name.split(".")[0] for name in trained}
    assert parts <= {"adapters", "neck", "prior", "fusion", "decoder", "second"}, sorted(trained)
    assert sum(trained.values()) <= 10_000_000


@pytest.mark.parametrize("vision", [VIT, RESNET])
def test_a_prior_says_where_which_word_is_lit(vision):
    towers = towers_of(random_clip(vision))
    tokens = sentences(2, 1)
    alone = towers.text.alone(tokens[:, :4])
    for row, place in ((0, 1), (0, 2), (1, 1)):
        by_hand = tokens[row, [0, place]].tolist()
        one = torch.zeros_like(tokens[:1])
        one[0, :3] = torch.tensor([*by_hand, int(tokens.max())])
        torch.testing.assert_close(alone[row, place], towers.text.read(one).sentence[0])
    prior, words = Prior(24, 20, 16), torch.randn(2, 4, 24)
    torch.nn.init.zeros_(prior.sentence.weight)
    for value in prior.wanted.parameters():
        torch.nn.init.zeros_(value)
    tap, there = torch.randn(2, 20, 3, 3), torch.tensor([[True] * 4, [True] * 3 + [False]])
    found = prior(tap, torch.randn(2, 20), alone, words, there)
    cosines = F.cosine_similarity(tap[1, :, None], alone[1, :3, :].T[..., None, None], dim=0)
    lit = 10 * (cosines - cosines.mean((1, 2), keepdim=True))
    expected = sum(lit[i] * prior.words(words[1, i])[:, None, None] for i in range(3))
    torch.testing.assert_close(found[1], expected + prior.sentence.bias[:, None, None], atol=1e-4, rtol=1e-4)


def test_places_are_seen_from_the_middle_of_what_is_lit():
    lit = torch.full((1, 2, 4), -50.0)
    lit[0, 0, 1] = lit[0, 0, 3] = 0.0  # of four columns the second and the last
    seen = seen_from(lit)[0]
    torch.testing.assert_close(seen[0, 0], torch.tensor([-1.0, -0.5, 0.0, 0.5]))
    torch.testing.assert_close(seen[1, :, 0], torch.tensor([0.0, 1.0]))


def test_what_a_word_of_place_asks_is_linear_in_the_places():
    prior = Prior(24, 20, 16)
    for part in (prior.sentence, prior.words):
        for value in part.parameters():
            torch.nn.init.zeros_(value)
    asked, there = torch.randn(1, 20), torch.ones(1, 3, dtype=torch.bool)
    found = prior(torch.randn(1, 20, 3, 4), asked, torch.randn(1, 3, 20), torch.randn(1, 3, 24), there)
    across, down = found.diff(dim=3), found.diff(dim=2)
    torch.testing.assert_close(across, across[..., :1, :1].expand_as(across), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(down, down[..., :1, :1].expand_as(down), atol=1e-4, rtol=1e-4)
    assert across.abs().max() > 0.01


@pytest.mark.parametrize("decoder", ["dynamic", "query", "point"])
def test_what_is_meant_depends_on_what_else_is_there(decoder):
    """The far side of the image changes what the near one comes to."""
    model = build(adapter="none", neck="film", rounds=0, decoder=decoder)
    image, tokens = pixels(1), sentences(3)
    other = image.clone()
    other[..., 48:] = 0
    looked, changed = model.look(image), model.look(other)
    mixed = [torch.cat([a[..., :4], b[..., 4:]], -1) for a, b in zip(looked.taps, changed.taps, strict=True)]
    seen = model.read(looked, tokens, torch.zeros(1, dtype=torch.long))
    beside = model.read(replace(looked, taps=tuple(mixed)), tokens, torch.zeros(1, dtype=torch.long))
    corner = seen.logits.shape[-1] // 8
    assert (seen.logits - beside.logits)[..., :corner, :corner].abs().max() > 1e-6


@pytest.mark.parametrize("vision", [VIT, RESNET])
@pytest.mark.parametrize("adapter", ["none", "bridger", "dense", "cost"])
def test_sentences_of_one_image_see_what_each_would_see_alone(vision, adapter):
    model = build(vision, adapter=adapter, detail=8, prior=True)
    step(model)  # gates that begin closed open
    model.eval()
    images, tokens, of = pixels(2), sentences(3, 6, 4), torch.tensor([1, 0, 1])
    torch.testing.assert_close(
        model(images, tokens, of).logits, model(images[of], tokens).logits, atol=1e-4, rtol=1e-4
    )


def test_only_a_click_has_several_things_to_choose_from():
    with pytest.raises(ValueError, match=r"decoder point has several things to choose from, not query"):
        replace(WHOLE, things=2)


def test_widths_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="multiple of 16 and its adapters' of 4, got 40 and 64"):
        replace(WHOLE, width=40)


@pytest.mark.slow
def test_eight_scenes_are_learned_by_heart():
    """Two discs an image, one of which is meant; the sentence's first word says whether the left one."""
    model = build()
    image, target, tokens = _discs(8)
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(120):
        logits = model(image, tokens).logits
        wanted = F.adaptive_avg_pool2d(target, logits.shape[-2:])
        there = torch.ones_like(wanted)
        loss = region.cross_entropy(logits, wanted, there) + region.dice(logits, wanted, there).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    found = model.eval()(image, tokens).logits > 0
    true = F.adaptive_avg_pool2d(target, found.shape[-2:]) > 0.5
    iou = (found & true).sum((1, 2, 3)) / (found | true).sum((1, 2, 3))
    assert iou.min() > 0.8, iou


def _discs(count):
    rng = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    image, target = torch.zeros(count, 3, 64, 64), torch.zeros(count, 1, 64, 64)
    tokens = sentences(*([2] * count))
    for i in range(count):
        rows = 16 + 32 * torch.rand(2, generator=rng)
        left = (x - 18) ** 2 + (y - rows[0]) ** 2 < 100
        right = (x - 46) ** 2 + (y - rows[1]) ** 2 < 100
        image[i] = (left | right).float()
        target[i, 0] = left if i % 2 else right
        tokens[i, 1:3] = torch.tensor([5 if i % 2 else 6, 7])
    return image, target, tokens
