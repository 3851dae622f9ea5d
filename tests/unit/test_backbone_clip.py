"""The CLIP door: shapes, unit length, truncation, caching, what may be loaded and what is refused."""

import json
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from ppt.backbones import clip as door
from ppt.backbones import weights
from ppt.backbones.clip import Reading, build_embedded_clip, load_clip
from ppt.backbones.image import checked_rgb
from ppt.backbones.weights import WeightsError
from ppt.types import DenseFeatures, TextImageModel

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
RESNET = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32}
VIT = {"image_size": 64, "patch_size": 16, "layers": 2, "width": 32, "head_width": 16}
STATISTICS = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3], "resize_mode": "squash"}
GREY = np.full((48, 100, 3), 128, np.uint8)


def config(vision):
    return {"embed_dim": 24, "vision_cfg": vision, "text_cfg": TEXT, "preprocess_cfg": STATISTICS}


def write(folder, recipe, stem="clip", seed=0):
    """A made-up checkpoint of `recipe`, half precision, with its architecture beside it."""
    torch.manual_seed(seed)
    net = build_embedded_clip(recipe)
    halves = {
        key: value.half() if value.is_floating_point() else value for key, value in net.state_dict().items()
    }
    save_file({key: value.contiguous() for key, value in halves.items()}, folder / f"{stem}.safetensors")
    (folder / f"{stem}.json").write_text(json.dumps(recipe))
    return folder / f"{stem}.safetensors"


@pytest.fixture(params=["resnet", "vit"])
def path(request, tmp_path):
    return write(tmp_path, config(RESNET if request.param == "resnet" else VIT))


@pytest.fixture
def clip(path):
    return load_clip("embedded", path, "cpu")


def photo(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_it_is_a_text_image_model(clip):
    assert clip.context_length == 16
    assert len(clip.weights_sha256) == 64
    assert isinstance(clip, TextImageModel)


def test_dense_features_keep_the_aspect_ratio_and_have_unit_length(clip):
    features = clip.encode_image(photo(60, 120))
    assert isinstance(features, DenseFeatures)
    cells = 64 // clip.stride
    assert features.values.shape == (cells, 2 * cells, 24)
    assert features.values.dtype == np.float32
    assert (features.height, features.width) == (60, 120)
    np.testing.assert_allclose(np.linalg.norm(features.values, axis=-1), 1, atol=1e-5)


def test_size_and_long_side_are_obeyed(path):
    clip = load_clip("embedded", path, "cpu", size=96, max_long=128)
    gh, gw, _ = clip.encode_image(photo(30, 600)).values.shape
    assert gw * clip.stride == 128
    assert gh >= 1
    gh, gw, _ = clip.encode_image(photo(50, 50)).values.shape
    assert (gh * clip.stride, gw * clip.stride) == (96, 96)


def test_the_mirror_images_features_are_averaged_in_place(path):
    once, twice = (load_clip("embedded", path, "cpu", reading=Reading(mirror=m)) for m in (False, True))
    image = photo(64, 128)
    there, back = once.encode_image(image).values, once.encode_image(image[:, ::-1].copy()).values[:, ::-1]
    both = there + back
    expected = both / np.linalg.norm(both, axis=-1, keepdims=True)
    found = twice.encode_image(image).values
    np.testing.assert_allclose(found, expected, atol=1e-5)
    mirrored = twice.encode_image(image[:, ::-1].copy()).values
    np.testing.assert_allclose(mirrored[:, ::-1], found, atol=1e-5)


def test_scales_are_averaged_on_the_first_ones_grid(path):
    image = photo(64, 64)
    first, *_, several = (
        load_clip("embedded", path, "cpu", reading=Reading(scales=s)).encode_image(image).values
        for s in ((1.0,), (2.0,), (1.0, 2.0))
    )
    assert several.shape == first.shape
    np.testing.assert_allclose(np.linalg.norm(several, axis=-1), 1, atol=1e-5)
    assert np.abs(several - first).max() > 1e-3
    larger = load_clip("embedded", path, "cpu", reading=Reading(scales=(2.0,))).encode_image(image).values
    assert larger.shape[0] == 2 * first.shape[0]


@pytest.mark.parametrize("method", ["value", "surgery", "gem"])
def test_every_reading_has_its_own_fingerprint_and_gives_finite_features(path, method):
    clip = load_clip("embedded", path, "cpu", reading=Reading(method))
    assert np.isfinite(clip.encode_image(photo(50, 70)).values).all()
    others = {
        load_clip("embedded", path, "cpu", reading=r).fingerprint
        for r in (
            Reading("value"),
            Reading("surgery"),
            Reading("gem"),
            Reading(mirror=True),
            Reading(scales=(1.0, 1.5)),
        )
    }
    assert len(others) == 5
    assert clip.fingerprint in others


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1)])
def test_extreme_images_have_a_grid(clip, shape):
    features = clip.encode_image(photo(*shape))
    assert max(features.values.shape[:2]) * clip.stride <= 4 * 64
    assert np.isfinite(features.values).all()


def test_the_same_image_gives_the_same_bytes(path):
    first, second = (load_clip("embedded", path, "cpu") for _ in range(2))
    image = photo(70, 90)
    np.testing.assert_array_equal(first.encode_image(image).values, second.encode_image(image).values)
    assert first.fingerprint == second.fingerprint


def test_texts_have_unit_length_and_say_whether_they_were_cut(clip):
    fits = " ".join(["dog"] * 14)
    vectors, truncated = clip.encode_texts(["a dog", "", fits, fits + " dog"])
    assert vectors.shape == (4, 24)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=-1), 1, atol=1e-5)
    assert truncated == [False, False, False, True]
    np.testing.assert_array_equal(vectors[2], vectors[3])
    assert np.abs(vectors[0] - vectors[2]).max() > 1e-3


def test_a_text_does_not_depend_on_its_company(path):
    alone, _ = load_clip("embedded", path, "cpu").encode_texts(["the left cup"])
    together, _ = load_clip("embedded", path, "cpu").encode_texts(
        ["a", "the left cup", "a blue bird on a branch"]
    )
    np.testing.assert_array_equal(alone[0], together[1])


def test_a_text_is_encoded_once(clip, monkeypatch):
    calls = []
    read = clip._text_tower.read
    monkeypatch.setattr(clip._text_tower, "read", lambda tokens: (calls.append(1), read(tokens))[1])
    first, _ = clip.encode_texts(["a dog", "a cat", "a dog"])
    second, _ = clip.encode_texts(["a cat"])
    assert len(calls) == 2
    np.testing.assert_array_equal(first[0], first[2])
    np.testing.assert_array_equal(first[1], second[0])


def test_the_text_cache_is_bounded(clip, monkeypatch):
    monkeypatch.setattr(door, "_CACHED_TEXTS", 2)
    vectors, _ = clip.encode_texts(["a", "b", "c"])
    assert list(clip._texts) == ["b", "c"]
    np.testing.assert_array_equal(clip.encode_texts(["a"])[0][0], vectors[0])


def test_no_texts_give_an_empty_table(clip):
    vectors, truncated = clip.encode_texts([])
    assert vectors.shape == (0, 24)
    assert truncated == []


def test_global_vector_is_open_clips_own(clip):
    image = photo(50, 80)
    vector = clip.encode_image_global(image)
    assert vector.shape == (24,)
    assert vector.dtype == np.float32
    squashed = Image.fromarray(image).resize((64, 64), Image.Resampling.BICUBIC)
    mean, std = (np.array(STATISTICS[key]) for key in ("mean", "std"))
    pixels = torch.from_numpy((np.asarray(squashed) / 255 - mean) / std).permute(2, 0, 1)[None].float()
    with torch.inference_mode():
        expected = clip._model.encode_image(pixels, normalize=True)[0].numpy()
    np.testing.assert_allclose(vector, expected, atol=2e-6)


@pytest.mark.parametrize(
    "wrong",
    [GREY[..., 0], GREY.astype(np.float32), GREY[..., :2], GREY[:0], GREY.tolist(), np.dstack([GREY, GREY])],
)
def test_images_are_checked(wrong):
    with pytest.raises(ValueError, match=r"uint8 array of shape \(h, w, 3\), got (list|float32|uint8 \()"):
        checked_rgb(wrong)


def test_nothing_trains(clip):
    assert not any(value.requires_grad for value in clip._model.parameters())
    assert not any(module.training for module in clip._model.modules())
    assert {value.dtype for value in clip._model.parameters()} == {torch.float32}


def test_fingerprint_knows_weights_size_and_statistics(tmp_path):
    base = load_clip("embedded", write(tmp_path, config(VIT)), "cpu")
    prints = {base.fingerprint}
    prints.add(load_clip("embedded", tmp_path / "clip.safetensors", "cpu", size=80).fingerprint)
    prints.add(load_clip("embedded", write(tmp_path, config(VIT), "other", seed=1), "cpu").fingerprint)
    shifted = {**config(VIT), "preprocess_cfg": {**STATISTICS, "mean": [0.5, 0.4, 0.31]}}
    prints.add(load_clip("embedded", write(tmp_path, shifted, "shifted"), "cpu").fingerprint)
    quick = {**config(VIT), "quick_gelu": True}
    prints.add(load_clip("embedded", write(tmp_path, quick, "quick"), "cpu").fingerprint)
    assert len(prints) == 5


def test_loading_leaves_the_global_generator_alone(path):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    load_clip("embedded", path, "cpu")
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)


def test_weights_of_another_architecture_are_refused(tmp_path):
    path = write(tmp_path, config(VIT))
    path.with_suffix(".json").write_text(json.dumps(config({**VIT, "layers": 3})))
    with pytest.raises(
        WeightsError, match=r"clip\.safetensors.*visual\.transformer\.resblocks\.2\.\S+ is missing"
    ):
        load_clip("embedded", path, "cpu")


def test_missing_files_are_errors(tmp_path, monkeypatch):
    with pytest.raises(WeightsError, match=r"absent\.safetensors"):
        load_clip("embedded", tmp_path / "absent.safetensors", "cpu")
    path = write(tmp_path, config(VIT))
    path.with_suffix(".json").unlink()
    with pytest.raises(WeightsError, match=r"clip\.json"):
        load_clip("embedded", path, "cpu")
    monkeypatch.setattr(weights, "SHIPPED", tmp_path)
    with pytest.raises(WeightsError, match=r"weights\.json is missing"):
        load_clip("embedded", None, "cpu")


@pytest.mark.parametrize("statistics", [{}, {"mean": [0, 0, 0]}, {**STATISTICS, "gamma": 2}])
def test_incomplete_or_unknown_preprocessing_is_refused(tmp_path, statistics):
    path = write(tmp_path, config(VIT))
    path.with_suffix(".json").write_text(json.dumps({**config(VIT), "preprocess_cfg": statistics}))
    with pytest.raises(WeightsError, match=r"clip\.json: preprocess_cfg needs mean and std"):
        load_clip("embedded", path, "cpu")


def test_unknown_keys_in_the_architecture_are_refused():
    with pytest.raises(WeightsError, match="colour"):
        build_embedded_clip({**config(VIT), "colour": 1})


@pytest.mark.parametrize("sizes", [{"size": 8}, {"size": 64, "max_long": 32}])
def test_impossible_sizes_are_refused(path, sizes):
    with pytest.raises(ValueError, match=str(sizes["size"])):
        load_clip("embedded", path, "cpu", **sizes)


@pytest.fixture
def small_vit_b_16(monkeypatch):
    """open_clip's ViT-B-16, but small, so that named architectures can be tried."""
    real = open_clip.get_model_config

    def small(name):
        recipe: Any = real(name)
        if name in ("ViT-B-16", "ViT-L-14"):
            recipe = {**recipe, "embed_dim": 24, "vision_cfg": dict(VIT), "text_cfg": dict(TEXT)}
        return recipe

    monkeypatch.setattr(open_clip, "get_model_config", small)


def named_file(folder, name, quick_gelu=False):
    torch.manual_seed(0)
    recipe: Any = {"embed_dim": 24, "vision_cfg": VIT, "text_cfg": TEXT, "quick_gelu": quick_gelu}
    net = open_clip.CLIP(**recipe)
    torch.save(net.state_dict(), folder / name)
    return net.eval(), folder / name


def test_a_named_architecture_takes_a_local_file(small_vit_b_16, tmp_path):
    net, path = named_file(tmp_path, "mine.pt")
    clip = load_clip("ViT-B/16", str(path), "cpu")
    tokens = open_clip.SimpleTokenizer(context_length=16)(["a dog"])
    with torch.inference_mode():
        expected = net.encode_text(tokens, normalize=True).numpy()
    np.testing.assert_allclose(clip.encode_texts(["a dog"])[0], expected, atol=1e-6)
    assert clip._colours.mean == open_clip.get_pretrained_cfg("ViT-B-16", "openai")["mean"]


def test_a_tag_brings_its_activation(small_vit_b_16, tmp_path, monkeypatch):
    net, _ = named_file(tmp_path, "ViT-B-16.openai.bin", quick_gelu=True)
    monkeypatch.setenv("PPT_WEIGHTS", str(tmp_path))
    tokens = open_clip.SimpleTokenizer(context_length=16)(["a dog"])
    with torch.inference_mode():
        expected = net.encode_text(tokens, normalize=True).numpy()
    for choice in ("openai", tmp_path / "ViT-B-16.openai.bin"):
        np.testing.assert_allclose(
            load_clip("ViT-B-16", choice, "cpu").encode_texts(["a dog"])[0], expected, atol=1e-6
        )
    plain = tmp_path / "renamed.pt"
    plain.write_bytes((tmp_path / "ViT-B-16.openai.bin").read_bytes())
    assert np.abs(load_clip("ViT-B-16", plain, "cpu").encode_texts(["a dog"])[0] - expected).max() > 1e-5


def test_a_missing_tag_names_the_file_and_the_command(small_vit_b_16, tmp_path, monkeypatch):
    monkeypatch.setenv("PPT_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError) as raised:
        load_clip("ViT-B-16", "openai", "cpu")
    for part in (str(tmp_path), "ViT-B-16.openai.pt", "`ppt weights fetch ViT-B-16.openai`", "https://"):
        assert part in str(raised.value)


def test_colour_statistics_are_never_guessed(small_vit_b_16, tmp_path):
    _, path = named_file(tmp_path, "mine.pt")
    with pytest.raises(WeightsError, match=r"2 colour statistics.*laion2b_s32b_b82k"):
        load_clip("ViT-L-14", path, "cpu")
    _, path = named_file(tmp_path, "ViT-L-14.laion2b_s32b_b82k.pt")
    assert load_clip("ViT-L-14", path, "cpu")._colours.mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("model", "choice", "message"),
    [
        ("ViT-Q-99", None, "ViT-Q-99"),
        ("hf-hub:someone/something", None, "someone"),
        ("ViT-B-16-SigLIP", "webli", "timm_model_name"),
        ("coca_ViT-B-32", "laion2b_s13b_b90k", "multimodal_cfg"),
        ("ViT-L-14-CLIPA", "datacomp1b", "hf_tokenizer_name"),
        ("ViT-B-16", None, "openai"),
        ("ViT-B-16", "no_such_tag", "no_such_tag.*openai"),
        ("ViT-B-16", "folder/absent.pt", r"absent\.pt"),
    ],
)
def test_what_cannot_be_loaded_is_refused_by_name(model, choice, message):
    with pytest.raises(WeightsError, match=message):
        load_clip(model, choice, "cpu")


@pytest.mark.skipif(
    not (weights.SHIPPED / "weights.json").exists(), reason="no embedded weights in this checkout"
)
def test_the_shipped_clip_loads_and_tells_colours_apart():
    clip = load_clip("embedded", None, "cpu")
    assert clip.weights_sha256 == json.loads((weights.SHIPPED / "weights.json").read_text())["clip"]["sha256"]
    assert clip.encode_image(photo(90, 120)).values.shape[2] == clip.encode_texts(["a dog"])[0].shape[1]
