"""DINOv2's tower in stages against timm's own pass, and in a segmenter beside CLIP's text."""

from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from fixtures.towers import VIT, random_clip, sentences, towers_of
from safetensors.torch import save_file

from ppt.backbones import dino
from ppt.backbones.clip_towers import STAGES, Towers
from ppt.backbones.dino import DinoTower, DinoWithClip, load_dino
from ppt.backbones.image import Colours
from ppt.backbones.weights import WeightsError
from ppt.segmenter.model import Design, Segmenter


def network(registers=0):
    torch.manual_seed(0)
    sizes = {"img_size": 56, "patch_size": 14, "embed_dim": 32, "depth": 4, "num_heads": 2, "num_classes": 0}
    net = timm.models.vision_transformer.VisionTransformer(
        **sizes, init_values=1e-1, dynamic_img_size=True, reg_tokens=registers
    )
    net.pretrained_cfg = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.2), "interpolation": "bicubic"}
    return net.eval().requires_grad_(False)


class TextOnly:
    """As much of a CLIP as is asked for."""

    weights_sha256, stride = "c" * 64, 8

    def tokens(self, texts):
        return sentences(*(len(text.split()) for text in texts))

    def framed(self, image, side):
        raise AssertionError("CLIP's image tower is not asked")

    def __init__(self):
        self._net = random_clip(VIT)

    def towers(self):
        return towers_of(self._net)


@pytest.mark.parametrize("registers", [0, 3])
@pytest.mark.parametrize("size", [(56, 56), (42, 70)])
def test_the_stages_end_where_timm_does(registers, size):
    net, image = network(registers), torch.randn(2, 3, *size)
    tower = DinoTower(net)
    state = tower.begin(image)
    for stage in range(STAGES):
        state = tower.advance(state, stage)
    expected = net.forward_features(image)[:, net.num_prefix_tokens :]
    grid = size[0] // 14, size[1] // 14
    found = tower.tap(state, STAGES - 1)
    torch.testing.assert_close(found, expected.transpose(1, 2).unflatten(2, grid))
    assert tower.cells(state).shape == (2, 32, *grid)
    more = torch.randn(2, 32, *grid)
    torch.testing.assert_close(tower.cells(tower.add(state, more)), tower.cells(state) + more)


@pytest.mark.parametrize("adapter", ["none", "bridger", "dense", "cost"])
@pytest.mark.parametrize("neck", ["film", "rca", "cam", "concat"])
def test_a_segmenter_stands_between_it_and_clips_text(adapter, neck):
    towers = Towers(DinoTower(network()), towers_of(random_clip(VIT)).text)
    design = Design(adapter, neck, 1, "add", "query", width=32, adapter_width=16, layers=1, detail=8)
    model = Segmenter(towers, design)
    seen = model(torch.randn(2, 3, 56, 56), sentences(3, 5))
    assert seen.logits.shape == (2, 1, 16, 16)
    with pytest.raises(ValueError, match="a prior needs CLIP's own image tower"):
        Segmenter(towers, replace(design, prior=True))
    seen.logits.square().mean().backward()
    assert all(value.grad is not None for value in model.neck.parameters())


def test_it_frames_with_its_own_colours_and_is_known_by_both_weights():
    both = DinoWithClip(network(), TextOnly(), "d" * 64)
    assert both.stride == 14
    white = np.full((28, 56, 3), 255, np.uint8)
    framed = both.framed(white, 56)
    torch.testing.assert_close(framed[:, 0, 0], torch.tensor([2.5, 3.0, 3.5]))
    assert (framed[:, 28:] == 0).all()
    torch.testing.assert_close(framed, Colours((0.5, 0.4, 0.3), (0.2,) * 3).framed(white, 56))
    assert both.weights_sha256 not in (DinoWithClip(network(), TextOnly(), "e" * 64).weights_sha256, "d" * 64)
    assert isinstance(both.towers().image, DinoTower)


def test_weights_come_from_a_file_and_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(dino.timm, "create_model", lambda *_, **__: network())
    name = "vit_small_patch14_dinov2"
    state = {key: value + 1 for key, value in network().state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    loaded = load_dino(name, tmp_path / "model.safetensors", TextOnly(), "cpu")
    torch.testing.assert_close(loaded.towers().image.network.norm.bias, state["norm.bias"])
    with pytest.raises(
        WeightsError, match=r"unknown model 'dinov9'; expected one of .*vit_small_patch14_dinov2"
    ):
        load_dino("dinov9", tmp_path / "model.safetensors", TextOnly(), "cpu")
    with pytest.raises(WeightsError, match=r"name timm's file of it in segmenter\.dino_weights"):
        load_dino(name, tmp_path / "nothing.safetensors", TextOnly(), "cpu")
    with pytest.raises(WeightsError, match=r"name timm's file of it in segmenter\.dino_weights"):
        load_dino(name, None, TextOnly(), "cpu")
    save_file({"norm.bias": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="other"):
        load_dino(name, tmp_path / "other.safetensors", TextOnly(), "cpu")
