"""What networks take, side by side: on an embedded CLIP, in milliseconds."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fixtures.walk import settings

from pipelines.benchmark.networks import ENCODER, OURS, grad_cam, networks
from pipelines.benchmark.turns import in_turns, ratio
from ppt.backbones.clip import build_embedded_clip, untrained_clip
from ppt.config import ConfigError

VIT = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 64, "layers": 3, "width": 32, "head_width": 8, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


def test_everyone_is_timed_in_turns(pictures, output):
    config = settings(
        pictures, "benchmark.systems=[etris, unified]", "benchmark.rounds=2", "benchmark.batch=2",
        "segmenter.size=64", "segmenter.width=16", "segmenter.adapter_width=8", "clip.size=64",
    )  # fmt: skip
    table = networks(config, output)
    kept = json.loads((output / "benchmark" / "networks.json").read_text())
    assert table == (output / "benchmark" / "networks.md").read_text()
    for race in ("of_as_many_images", "of_one_image"):
        assert {name: len(own) for name, own in kept[race].items()} == {ENCODER: 2, "etris": 2, "unified": 2}
    assert len(kept["relevance"][OURS]) == 2
    assert table.count("| times ") == 3
    assert "| etris |" in table


def test_a_system_that_is_not_known_is_refused(pictures, output):
    with pytest.raises(ConfigError, match="unet"):
        networks(settings(pictures, "benchmark.systems=[unet]"), output)
    assert not output.exists()


def test_rounds_go_around_and_ratios_are_of_one_round(monkeypatch):
    order, clock = [], iter([0, 4, 10, 11, 20, 22, 30, 31])
    monkeypatch.setattr("pipelines.benchmark.turns.time.perf_counter", lambda: next(clock))
    seconds, given = in_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b") or "B"}, 2)
    assert order == ["a", "b", "a", "b"]
    assert seconds == {"a": [4, 2], "b": [1, 1]}
    assert given["b"] == "B"
    assert ratio(seconds["a"], seconds["b"]) == 3


@pytest.mark.parametrize("model", ["vit", "resnet"])
def test_grad_cam_is_what_the_gradient_of_the_whole_network_says(model):
    """Grad-CAM as published goes back through all of the network; here only to the layer it asks about."""
    torch.manual_seed(1)
    network = (build_embedded_clip(VIT) if model == "vit" else untrained_clip("embedded")).eval()
    side = network.visual.image_size
    side = side if isinstance(side, int) else side[0]
    pixels, tokens = torch.randn(1, 3, side, side), torch.zeros(1, network.context_length, dtype=torch.long)
    tokens[0, :3] = torch.tensor([49406, 320, 49407])
    layer = network.visual.transformer.resblocks[-1].ln_1 if model == "vit" else network.visual.layer4
    seen = []
    hook = layer.register_forward_hook(lambda *arguments: (seen.append(arguments[-1]), None)[1])
    cosine = F.cosine_similarity(network.encode_image(pixels), network.encode_text(tokens))
    hook.remove()
    values, [slope] = seen[0], torch.autograd.grad(cosine.sum(), seen)
    if model == "vit":
        values, slope = values[0, 1:], slope[0, 1:]
        expected = (values * slope.mean(0)).sum(-1).reshape(4, 4).clamp(min=0)
    else:
        expected = (values * slope.mean((2, 3), keepdim=True)).sum(1)[0].clamp(min=0)
    found = grad_cam(network.requires_grad_(False), pixels, tokens)
    assert float(found.max()) > 0
    np.testing.assert_allclose(found.numpy(), expected.detach().numpy(), rtol=1e-3, atol=1e-7)
