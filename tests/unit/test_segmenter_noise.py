"""Measures against wrong labels: values by hand, and what each does to a learner."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from fixtures.towers import END, START, VIT, pixels, random_clip, sentences, towers_of

from ppt.segmenter import learner as module
from ppt.segmenter import noise
from ppt.segmenter.learner import Learner, Lessons, Weights
from ppt.segmenter.model import Design, Segmenter
from ppt.segmenter.noise import EarlyLearning, Measures, Teacher

PLAIN = Weights(1.0, 0.0, 1.0, *[0.0] * 7)
LEFT = torch.zeros(32, 32)
LEFT[:, :16] = 1


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def segmenter(seed=0) -> Segmenter:
    torch.manual_seed(seed)
    design = Design("bridger", "rca", 1, "add", "query", width=32, adapter_width=16, layers=1)
    return Segmenter(towers_of(random_clip(VIT)), design)


def learner(steps=40, **measures) -> Learner:
    return Learner(segmenter(), PLAIN, Measures(**measures), steps)


def lessons(*covered, image=(0, 0), believed=(1.0, 1.0)) -> Lessons:
    masks = torch.stack(covered)[:, None]
    tokens = sentences(*range(4, 4 + len(covered)))
    there = torch.ones_like(masks)
    things, own = masks[:, 0].expand(len(masks), -1, -1, -1), torch.arange(len(masks))
    return Lessons(
        pixels(len(masks)),
        tokens,
        masks,
        there,
        torch.tensor(believed),
        torch.tensor(image),
        things,
        own,
        torch.arange(len(masks)),
    )


def test_a_teacher_is_the_mean_of_what_the_student_was():
    student = segmenter()
    teacher, name = Teacher(student), "decoder.bias"
    was = student.state_dict()[name].clone()
    with torch.no_grad():
        student.state_dict()[name].add_(1)
    teacher.follow(student)  # keeps one tenth at its first step, two elevenths at its second
    torch.testing.assert_close(teacher.segmenter.state_dict()[name], was + 0.9)
    teacher.follow(student)
    torch.testing.assert_close(teacher.segmenter.state_dict()[name], was + 1 - 0.1 * 2 / 11)
    assert not any(p.requires_grad for p in teacher.parameters())
    share = teacher.share(student.look(pixels(2)), sentences(4, 5), torch.arange(2))
    assert share.shape == (2, 1, 32, 32)
    assert not share.requires_grad


def test_early_learning_is_over_when_agreement_has_lost_its_slope():
    fast = 0.8 * (1 - np.exp(-np.arange(1, 11) / 2))
    assert noise.lost_slope(fast) == pytest.approx(1 - np.exp(-9 / 2), abs=0.01)
    assert noise.lost_slope(np.linspace(0.05, 0.1, 6)) < 0.9
    early = EarlyLearning(steps=100, lost=0.9)
    over = [early.over(step, float(0.8 * (1 - np.exp(-(step // 5 + 1) / 2)))) for step in range(100)]
    # exp(-(n - 1) / 2) < 0.1 from n = 6 moments of five steps.
    assert over.index(True) == 30
    assert all(over[30:])
    late = EarlyLearning(steps=100, lost=0.9)
    late.load_state_dict(early.state_dict())
    assert late.over(99, 0.0), "what was over stays over after a restart"
    assert not EarlyLearning(steps=3, lost=0.9).over(2, 0.5)


def test_a_sure_teacher_overrules_a_label_and_a_doubting_one_does_not():
    covered = torch.tensor([1.0, 1.0, 0.0, 0.3]).view(1, 1, 2, 2)
    share = torch.tensor([0.1, 0.3, 0.9, 0.7]).view(1, 1, 2, 2)
    torch.testing.assert_close(noise.corrected(covered, share).flatten(), torch.tensor([0.0, 1.0, 1.0, 0.3]))


def test_paraphrases_share_their_label_by_belief():
    covered = torch.tensor([1.0, 0.0, 0.5]).view(3, 1, 1, 1)
    alike = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]]).bool()
    shared = noise.shared(covered, torch.tensor([0.9, 0.3, 1.0]), alike)
    torch.testing.assert_close(shared.flatten(), torch.tensor([0.75, 0.75, 0.5]))
    untouched = noise.shared(covered, torch.zeros(3), alike)
    torch.testing.assert_close(untouched, covered)


def test_rivals_are_asked_not_to_claim_the_same_pixels():
    sure = 20 * (2 * LEFT - 1)
    half = sure.clone()
    half[16:] = -20  # the upper half of it
    logits = torch.stack([sure, half, -sure])[:, None]
    rivals = ~torch.eye(3, dtype=torch.bool)
    claimed = noise.exclusion(logits, torch.ones_like(logits), rivals)
    torch.testing.assert_close(claimed, torch.tensor([0.5, 0.5, 0.0]), atol=1e-4, rtol=0)
    assert noise.exclusion(logits, torch.ones_like(logits), rivals & False).sum() == 0


def test_the_worst_are_left_out_and_of_equals_the_first():
    assert noise.kept(torch.tensor([0.1, 0.9, 0.5, 0.9]), 0.5).tolist() == [True, False, True, False]
    assert noise.kept(torch.tensor([0.9, 0.9]), 0.5).tolist() == [False, True]
    assert noise.kept(torch.tensor([0.9, 0.9]), 0.49).all()


def test_whole_patches_are_hidden():
    shown = noise.without_patches(torch.ones(40, 3, 64, 80), 0.25, rng())
    patches = shown[:, :, ::32, ::32]
    assert torch.equal(shown, patches.repeat_interleave(32, 2).repeat_interleave(32, 3)[..., :64, :80])
    assert (patches == patches[:, :1]).all()
    assert patches.mean().item() == pytest.approx(0.75, abs=0.06)


def test_words_are_left_out_but_one_and_the_rest_move_up():
    tokens = torch.tensor([[START, 5, 6, 7, END, 0, 0], [START, 8, END, 0, 0, 0, 0]])
    wanted = torch.tensor([[0, 1, 0, 1, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0]]).bool()
    said = noise.without_words(tokens, wanted, 1.0, rng())
    assert said[0, :4].tolist() in ([START, 5, 6, END], [START, 6, 7, END])
    assert said[0, 4:].sum() == 0
    assert torch.equal(said[1], tokens[1]), "its only word stays"
    assert torch.equal(noise.without_words(tokens, wanted, 0.0, rng()), tokens)


def test_a_teacher_draws_the_student_and_weighs_pixels():
    given = lessons(LEFT, 1 - LEFT)
    losses = learner(teacher=2.0)(given, 0, rng())
    assert losses["teacher"].item() == pytest.approx(0, abs=1e-9), "at first they are one"
    model = learner(teacher=2.0)
    model(given, 0, rng())
    with torch.no_grad():
        model.segmenter.decoder.bias.add_(3)
    assert model(given, 1, rng())["teacher"].item() > 0
    without, doubted = learner()(given, 0, rng()), learner(pixel_confidence=True)(given, 0, rng())
    assert doubted["cross_entropy"].item() != pytest.approx(without["cross_entropy"].item())
    assert doubted["dice"].item() == pytest.approx(without["dice"].item())


def test_after_early_learning_the_teacher_corrects(monkeypatch):
    model = learner(correction=0.9)
    given = lessons(LEFT, LEFT)
    monkeypatch.setattr(Teacher, "share", lambda *_: (1 - LEFT).expand(2, 1, 32, 32))
    before = model(given, 0, rng())["dice"].item()
    model.early.ended.fill_(True)
    corrected = learner()(lessons(1 - LEFT, 1 - LEFT), 0, rng())["dice"].item()
    assert model(given, 1, rng())["dice"].item() == pytest.approx(corrected) != pytest.approx(before)


def test_what_says_the_same_shares_and_what_does_not_excludes(monkeypatch):
    given = lessons(LEFT, 1 - LEFT)
    monkeypatch.setattr(module, "PARAPHRASE", -1.1)  # all say the same
    mean = torch.full((32, 32), 0.5)
    shared = learner(sharing=True)(given, 0, rng())["cross_entropy"].item()
    assert shared == pytest.approx(learner()(lessons(mean, mean), 0, rng())["cross_entropy"].item())
    assert learner(exclusion=1.0)(given, 0, rng())["exclusion"] == 0
    monkeypatch.setattr(module, "PARAPHRASE", 1.1)  # none does
    assert learner(exclusion=1.0)(given, 0, rng())["exclusion"] > 0.1
    apart = replace(given, image=torch.tensor([0, 1]))
    assert learner(exclusion=1.0)(apart, 0, rng())["exclusion"] == 0


def test_the_worst_teach_less_as_training_goes_on():
    given = lessons(LEFT, 1 - LEFT)
    model = learner(steps=2, truncation=1.0)
    both = model(given, 0, rng())["dice"].item()
    better = model(given, 1, rng())["dice"].item()  # half of two
    each = [model(replace(given, believed=torch.tensor(b)), 0, rng())["dice"] for b in ((1.0, 0), (0, 1.0))]
    assert better == pytest.approx(min(each).item())
    assert both == pytest.approx(torch.stack(each).mean().item())


def test_what_is_hidden_from_the_student_the_teacher_sees(monkeypatch):
    model, asked = learner(teacher=1.0, hidden_patches=0.5, hidden_words=0.5), {}
    given = lessons(LEFT, 1 - LEFT)
    real = model.segmenter.read
    monkeypatch.setattr(model.segmenter, "read", lambda *a: asked.setdefault("student", a) and real(*a))
    share = Teacher.share
    monkeypatch.setattr(Teacher, "share", lambda *a: asked.setdefault("teacher", a[1:]) and share(*a))
    model(given, 0, rng())
    assert torch.equal(asked["teacher"][0].pixels, given.pixels)
    assert torch.equal(asked["teacher"][1], given.tokens)
    assert (asked["student"][0].pixels == 0).float().mean() > 0.2
    assert (asked["student"][1] != given.tokens).any()
