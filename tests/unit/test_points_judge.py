"""The judge: what it must not care about, and that words of place can be learned by it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from ppt.points import reading as reading_module
from ppt.points.judge import Judge, Panel
from ppt.points.reading import Reading, packed, read, unpacked
from ppt.points.scene import Example, Scene, collate, names_mixed, words_of
from ppt.types import DenseFeatures, RelevanceMap

DIMENSION, SIDE = 16, 10
VOCABULARY = ["left", "right", "top", "bottom", "disc", "box", "the"]
VECTORS = dict(
    zip(
        VOCABULARY,
        normalize(torch.randn(7, DIMENSION, generator=torch.Generator().manual_seed(3))),
        strict=True,
    )
)


def judge() -> Judge:
    torch.manual_seed(0)
    return Judge(DIMENSION)


def case(text: str, places: list[tuple[int, int]], names: list[str]) -> tuple[Example, np.ndarray]:
    """Things of 3 x 3 cells with the corner (row, column), each looking like its name."""
    values = np.zeros((SIDE, SIDE, DIMENSION), np.float32)
    values[..., 0] = 1
    covers = np.zeros((len(places), SIDE, SIDE), np.float32)
    for cover, (y, x), name in zip(covers, places, names, strict=True):
        cover[y : y + 3, x : x + 3] = 1
        values[y : y + 3, x : x + 3] = VECTORS[name].numpy()
    words = np.stack([VECTORS[word].numpy() for word in words_of(text)])
    relevance = np.max([values @ words[i] for i in range(len(words))], 0)
    found = RelevanceMap(relevance.astype(np.float32), 100, 100)
    return Example(DenseFeatures(values, 100, 100), found, words), covers


def asked(cases) -> tuple[Scene, torch.Tensor, torch.Tensor]:
    most = max(len(covers) for _, covers in cases)
    things = torch.zeros(len(cases), most, SIDE * SIDE)
    there = torch.zeros(len(cases), most, dtype=torch.bool)
    for i, (_, covers) in enumerate(cases):
        things[i, : len(covers)] = torch.from_numpy(covers).flatten(1)
        there[i, : len(covers)] = True
    return collate([example for example, _ in cases]), things, there


TWO = case("the left disc", [(1, 1), (1, 6)], ["disc", "disc"])


def test_the_order_of_things_changes_nothing():
    three = case("the left disc", [(1, 1), (1, 6), (6, 3)], ["disc", "disc", "box"])
    scene, things, there = asked([three])
    network, order = judge(), torch.tensor([2, 0, 1])
    torch.testing.assert_close(
        network(read(scene, things[:, order], there)),
        network(read(scene, things, there))[:, order],
        atol=1e-4,
        rtol=1e-4,
    )


def test_company_changes_nothing():
    """Neither other pairs of the batch, nor the padding they bring."""
    more = case("the box left right top", [(1, 1), (1, 6), (6, 3)], ["disc", "disc", "box"])
    network = judge()
    alone, together = network(read(*asked([TWO]))), network(read(*asked([TWO, more])))
    torch.testing.assert_close(together[:1, :2], alone, atol=1e-4, rtol=1e-4)
    assert together[0, 2] == -1e4


def test_a_thing_found_twice_is_no_rival_of_itself():
    """What is said of the left disc does not depend on how often it was found."""
    network, (scene, things, there) = judge(), asked([TWO])
    again = torch.cat([things, things[:, :1] * 0.9], 1)
    three = _compared_of(scene, again, torch.ones(1, 3, dtype=torch.bool))
    two = _compared_of(scene, things, there)
    torch.testing.assert_close(three[:, 0], two[:, 0])
    assert torch.isfinite(network(read(scene, again, torch.ones(1, 3, dtype=torch.bool)))).all()


def _compared_of(scene, things, there):
    described, q = reading_module._described(scene, things)
    return reading_module._compared(q, described[..., 3], reading_module.others(things, there))


def test_what_a_word_lights_up_stays_when_names_are_mixed():
    examples = [
        case(f"the {side} {name}", [(1, 1)], [name])[0] for side, name in (("left", "disc"), ("top", "box"))
    ]
    words, names = collate(examples).words, [np.array([False, False, True])] * 2
    mixed = names_mixed(words, names, np.random.default_rng(3))
    torch.testing.assert_close(mixed[:, :2], words[:, :2])
    torch.testing.assert_close(mixed[:, 2], words[:, 2].flip(0))


def test_a_reading_comes_back_from_the_store():
    three = case("the box left right top", [(1, 1), (1, 6), (6, 3)], ["disc", "disc", "box"])
    reading = read(*asked([TWO, three]))
    again = unpacked(packed(reading), [TWO[0].words, three[0].words])
    torch.testing.assert_close(judge()(again), judge()(reading))
    assert isinstance(again, Reading)
    assert (again.there == reading.there).all()
    assert (again.has_word == reading.has_word).all()


def test_a_panel_says_the_mean_of_what_its_judges_say():
    torch.manual_seed(0)
    panel, reading = Panel(DIMENSION, judges=2), read(*asked([TWO]))
    one, other = (judge(reading).softmax(-1) for judge in panel.judges)
    assert not torch.equal(one, other)
    torch.testing.assert_close(panel(reading), (one * other).sqrt().log())


def test_what_all_words_have_in_common_says_nothing():
    torch.manual_seed(0)
    panel, reading = Panel(DIMENSION), read(*asked([TWO]))
    before = panel(reading)
    shared = torch.randn(DIMENSION)
    panel.common.add_(shared)
    torch.testing.assert_close(panel(replace(reading, words=reading.words + shared)), before)


def test_one_thing_has_no_rivals():
    scores = judge()(read(*asked([case("the disc", [(2, 2)], ["disc"])])))
    assert torch.isfinite(scores).all()


def test_words_of_place_tell_two_of_one_name_apart():
    """Learned on some places, right at others."""
    rng = np.random.default_rng(0)

    def drawn(word):
        while True:
            places = [tuple(int(v) for v in rng.integers(0, SIDE - 2, 2)) for _ in range(2)]
            axis = 1 if word in ("left", "right") else 0
            gap = places[1][axis] - places[0][axis]
            if abs(gap) >= 3:
                first = (gap > 0) == (word in ("left", "top"))
                return case(f"the {word} disc", places, ["disc", "disc"]), 0 if first else 1

    words = ["left", "right", "top", "bottom"]
    lessons = [drawn(words[i % 4]) for i in range(96)]
    others = [drawn(words[i % 4]) for i in range(40)]
    network = judge()
    optimiser = torch.optim.AdamW(network.parameters(), 3e-3)
    reading = read(*asked([c for c, _ in lessons]))
    meant = torch.tensor([m for _, m in lessons])
    for _ in range(60):
        loss = cross_entropy(network(reading), meant)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    right = network(read(*asked([c for c, _ in others]))).argmax(1) == torch.tensor([m for _, m in others])
    assert right.float().mean() > 0.9


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The red bus, on the left.", ["the", "red", "bus", "on", "the", "left"]),
        ("bus", ["bus"]),
        ("", [""]),
        (" ... ", [""]),
        ("左边的猫", ["左边的猫"]),
    ],
)
def test_words_of_a_sentence(text, words):
    assert words_of(text) == words


def test_three_hundred_words_are_forty():
    assert len(words_of("word " * 300)) == 40
