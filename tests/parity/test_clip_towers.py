"""The towers in stages against open_clip's own forward passes."""

import pytest
import torch
from fixtures.towers import RESNET, VIT, pixels, random_clip, sentences, towers_of

from ppt.backbones.clip_dense import resnet_cells
from ppt.backbones.clip_towers import STAGES


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=0, atol=5e-6)


def walked(tower, values):
    state, seen = tower.begin(values), []
    for stage in range(STAGES):
        state = tower.advance(state, stage)
        seen.append(state)
    return seen


def test_vit_taps_are_open_clips_intermediates():
    net = random_clip(VIT)
    image, tower = pixels(2), towers_of(net).image
    expected = net.visual.forward_intermediates(image, indices=[0, 1, 2], normalize_intermediates=False)
    states = walked(tower, image)
    for stage in range(STAGES - 1):
        close(tower.tap(states[stage], stage), expected["image_intermediates"][stage])
    last = expected["image_intermediates"][2].permute(0, 2, 3, 1)
    close(tower.tap(states[2], 2), (net.visual.ln_post(last) @ net.visual.proj).permute(0, 3, 1, 2))
    close(net.visual.ln_post(states[2].values[:, 0]) @ net.visual.proj, net.encode_image(image))


def test_vit_on_another_grid_resizes_its_positions():
    net = random_clip(VIT)
    state = towers_of(net).image.begin(pixels(1, 96, 48))
    assert state.grid == (12, 6)
    assert state.values.shape == (1, 73, 32)


def test_resnet_stages_are_open_clips_layers():
    net, image = random_clip(RESNET), pixels(2)
    tower = towers_of(net).image
    states = walked(tower, image)
    visual = net.visual
    second = visual.layer2(visual.layer1(visual.stem(image)))
    close(states[0].values, second)
    close(states[1].values, visual.layer3(second))
    close(states[2].values, resnet_cells(visual, image))
    flat = states[2].values.permute(0, 2, 3, 1)
    close(tower.tap(states[2], 2).permute(0, 2, 3, 1), visual.attnpool.c_proj(visual.attnpool.v_proj(flat)))


@pytest.mark.parametrize("length", [1, 7, 18])
def test_a_sentence_cut_behind_its_end_is_encode_text(length):
    net = random_clip(VIT)
    text, tokens = towers_of(net).text, sentences(length, max(1, length - 3))
    state = walked(text, tokens)[-1]
    words = text.finish(state)
    assert words.tokens.shape[1] == length + 2
    close(words.sentence, net.encode_text(tokens))
    assert words.there.sum(1).tolist() == [length + 2, max(1, length - 3) + 2]


def test_what_is_hidden_is_read_as_the_blank():
    net = random_clip(VIT)
    text, tokens = towers_of(net).text, sentences(3)
    hidden = torch.zeros_like(tokens).bool()
    hidden[0, 1] = True
    word = net.token_embedding.weight[5]
    other = tokens.clone()
    other[0, 1] = 5
    close(text.begin(tokens, hidden, word).tokens, text.begin(other).tokens)
