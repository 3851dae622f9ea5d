from dataclasses import fields, replace

import pytest
import torch
import torch.nn.functional as F
from fixtures.towers import VIT, pixels, random_clip, sentences, towers_of

from ppt.segmenter import learner as module
from ppt.segmenter.learner import Learner, Lessons, Weights, meant_alike
from ppt.segmenter.losses import pairwise
from ppt.segmenter.model import Design, Segmenter
from ppt.segmenter.noise import Measures

LOSSES = [field.name for field in fields(Weights) if field.name != "released"]
NONE = Weights(**dict.fromkeys(LOSSES, 0.0))
NO_MEASURES = Measures()
ALL = Weights(**dict.fromkeys(LOSSES, 1.0))


def lessons(believed=(1.0, 1.0, 1.0), image=(0, 0, 1)) -> Lessons:
    """Left half, right half and left half again, of two images."""
    covered = torch.zeros(3, 1, 32, 32)
    covered[0, ..., :16] = covered[1, ..., 16:] = covered[2, ..., :16] = 1
    tokens = sentences(3, 6, 4)
    halves = torch.stack([covered[:2, 0], covered[:2, 0], covered[:2, 0]])
    return Lessons(
        pixels(3),
        tokens,
        covered,
        torch.ones_like(covered),
        torch.tensor(believed),
        torch.tensor(image),
        halves,
        torch.tensor([0, 1, 0]),
        torch.arange(3),
    )


def learner(weights, measures=NO_MEASURES, decoder="query") -> Learner:
    torch.manual_seed(0)
    several = 3 if decoder == "point" else 1
    design = Design("bridger", "rca", 2, "add", decoder, 32, 16, layers=1, things=several)
    return Learner(Segmenter(towers_of(random_clip(VIT)), design), weights, measures, 40, frozenset({0}))


def rng():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("decoder", ["query", "point"])
def test_every_loss_is_there_finite_and_moves_the_segmenter(monkeypatch, decoder):
    monkeypatch.setattr(module, "PARAPHRASE", 1.1)  # to a random CLIP all sentences are alike
    model = learner(ALL, decoder=decoder)
    for name in LOSSES:
        if name in ("point", "choice") and decoder != "point":
            continue
        found = learner(replace(NONE, **{name: 2.0}), decoder=decoder)
        found.load_state_dict(model.state_dict(), strict=False)
        losses = found(lessons(), 0, rng())
        assert list(losses) == [name]
        losses[name].backward()
        assert losses[name].isfinite()
        assert found.segmenter.neck.project[0][0].weight.grad.abs().sum() > 0, name


def test_a_rival_is_what_shares_little_with_ones_own():
    things = torch.zeros(3, 4, 32, 32)
    things[0, 0, :16], things[0, 1, 16:], things[0, 2, 8:24] = 1, 1, 1  # the third shares half with both
    given = replace(lessons(image=(0, 0, 0)), things=things, meant=torch.tensor([0, 1, 2]))
    assert given.rivals.tolist() == [[False, True, False, False], [True] + [False] * 3, [False] * 4]


def test_without_rivals_there_is_nothing_to_choose():
    given, model = lessons(), learner(replace(NONE, choice=1.0), decoder="point")
    assert model(given, 0, rng())["choice"] > 0
    alone = replace(given, things=given.things[:, :1], meant=torch.zeros(3).long())
    assert model(alone, 0, rng())["choice"] == 0


def test_talents_losses_as_released_stand_in_for_the_corrected(monkeypatch):
    monkeypatch.setattr(module, "PARAPHRASE", 1.1)
    both = learner(replace(NONE, pairwise=1.0, contrast=1.0, released=True))
    assert set(both.heads) == {"said"}
    losses = both(lessons(), 0, rng())
    assert set(losses) == {"pairwise", "contrast"}
    given = lessons()
    seen = both.segmenter(given.pixels, given.tokens, given.image)
    expected = pairwise.released(seen.levels, both.heads["said"](seen.words.sentence))
    torch.testing.assert_close(losses["pairwise"], expected)
    assert 0 < losses["contrast"] < 0.2, "a tenth"
    losses["contrast"].backward()
    assert both.segmenter.neck.project[0][0].weight.grad.abs().sum() > 0
    # The third sentence is alone with its image: it has no negative, and teaches nothing.
    alone = both(lessons(image=(0, 1, 2)), 0, rng())
    assert alone["contrast"] == 0
    assert set(learner(replace(NONE, dice=1.0, released=True)).heads) == set()


def test_a_weight_is_a_factor_and_zero_leaves_the_loss_and_its_head_out():
    one, three = learner(replace(NONE, dice=1.0)), learner(replace(NONE, dice=3.0))
    assert three(lessons(), 0, rng())["dice"].item() == pytest.approx(
        3 * one(lessons(), 0, rng())["dice"].item()
    )
    assert not one.heads
    assert set(learner(ALL).heads) == {"pairwise", "contrast", "grounding", "alignment"}


def test_what_is_not_believed_teaches_pixels_alone():
    model = learner(ALL)
    losses = model(lessons(believed=(0.0, 0.0, 0.0)), 0, rng())
    assert {name for name, loss in losses.items() if loss != 0} == {"cross_entropy", "focal"}


def test_alike_are_paraphrases_with_one_mask_and_what_is_half_so_is_unclear():
    unit = F.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [1.0, 0.05]]), dim=-1)
    covered = torch.zeros(4, 1, 4, 4)
    covered[:3, ..., :2] = 1
    covered[3, ..., 2:] = 1
    base = Lessons(
        pixels(4),
        sentences(1, 1, 1, 1),
        covered,
        torch.ones_like(covered),
        torch.ones(4),
        torch.zeros(4).long(),
        covered[:, 0].expand(4, -1, -1, -1),
        torch.arange(4),
        torch.arange(4),
    )
    same, unclear = meant_alike(unit, base)
    # 0 and 1 say the same of one mask; 2 says something else of it; 3 says the same of another.
    assert same.tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    assert unclear.tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0]]
    # Of different images only what is said counts, and is never known to mean one thing.
    apart, unclear = meant_alike(unit, replace(base, image=torch.arange(4)))
    assert torch.equal(apart, torch.eye(4, dtype=torch.bool))
    assert unclear.tolist() == [[0, 1, 0, 1], [1, 0, 0, 1], [0, 0, 0, 0], [1, 1, 0, 0]]


def test_neither_start_nor_end_nor_what_is_plain_is_hidden(monkeypatch):
    asked = {}
    monkeypatch.setattr(module, "hide", lambda wanted, _: asked.setdefault("wanted", wanted))
    given = lessons()
    given.tokens[0, 1:4] = torch.tensor([0, 7, 8])  # the first word is plain
    learner(replace(NONE, grounding=1.0))(given, 0, rng())
    wanted = asked["wanted"]
    assert wanted[0].nonzero()[:, 0].tolist() == [2, 3]
    assert wanted[2].nonzero()[:, 0].tolist() == [p for p in (1, 2, 3, 4) if given.tokens[2, p] != 0]
