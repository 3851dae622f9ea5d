"""The table of named checkpoints against the tables of the libraries that publish or load them."""

import re
from dataclasses import replace

import open_clip
import pytest
import torch
from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME
from segment_anything import sam_model_registry

from ppt.backbones import clip, published, weights
from ppt.backbones.clip_weights import named_weights
from ppt.backbones.published import PUBLISHED, by_sha256, named, official_clip, official_sam
from ppt.backbones.weights import WeightsError
from ppt.settings import SamConfig

CLIPS = [name for name, one in PUBLISHED.items() if one.tag]
SAMS = [name for name, one in PUBLISHED.items() if not one.tag]


def test_what_was_promised_is_there():
    openai = {f"{m}.openai" for m in ("RN50", "RN101", "ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-L-14-336")}
    tags = {"ViT-B-16": "laion2b_s34b_b88k", "ViT-L-14": "laion2b_s32b_b82k"}
    laion = {f"{model}.{tag}" for model, tag in tags.items()}
    datacomp = {f"{model}.datacomp_xl_s13b_b90k" for model in tags}
    assert set(CLIPS) == openai | laion | datacomp
    assert set(SAMS) == {"vit_b", "vit_l", "vit_h", "mobile_sam"}


@pytest.mark.parametrize("name", CLIPS)
def test_a_clip_is_as_open_clip_has_it(name):
    one = PUBLISHED[name]
    theirs = open_clip.get_pretrained_cfg(one.architecture, one.tag)
    architecture = open_clip.get_model_config(one.architecture)
    assert one.side == architecture["vision_cfg"]["image_size"]
    assert (one.mean, one.deviation) == (theirs["mean"], theirs["std"])
    assert bool(architecture.get("quick_gelu")) == bool(theirs.get("quick_gelu"))
    assert one.checkpoint.hub == theirs["hf_hub"].rstrip("/")
    assert one.checkpoint.url == theirs["url"] or one.checkpoint.url.startswith(
        f"https://huggingface.co/{one.checkpoint.hub}/resolve/"
    )


@pytest.mark.parametrize("name", [name for name in CLIPS if name.endswith(".openai")])
def test_openais_addresses_name_the_sha256(name):
    checkpoint = PUBLISHED[name].checkpoint
    assert checkpoint.url.split("/")[-2] == checkpoint.sha256


@pytest.mark.parametrize("name", SAMS)
def test_a_sam_can_be_configured_by_its_name(name):
    assert SamConfig(model=name).model == name
    checkpoint = official_sam(name)
    assert checkpoint.url.startswith("https://")
    assert checkpoint.url.endswith(f"/{checkpoint.file}")
    assert len(checkpoint.sha256) == 64


def test_sams_colours_are_its_own():
    with torch.device("meta"):
        sam = sam_model_registry["vit_b"]()
    one = PUBLISHED["vit_b"]
    assert (one.mean, one.deviation) == (
        tuple(pytest.approx(float(value)) for value in torch.tensor([123.675, 116.28, 103.53])),
        tuple(pytest.approx(float(value)) for value in torch.tensor([58.395, 57.12, 57.375])),
    )
    assert one.side == sam.image_encoder.img_size


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_entry_is_complete(name):
    one = PUBLISHED[name]
    checkpoint = one.checkpoint
    assert checkpoint.file.startswith(f"{name}.") or not one.tag
    assert checkpoint.sha256 is None or re.fullmatch("[0-9a-f]{64}", checkpoint.sha256)
    assert checkpoint.sha256 is None or checkpoint.size > 10**7
    assert one.licence in ("MIT", "Apache-2.0")
    assert f"`ppt weights fetch {name}`" in checkpoint.remedy
    assert checkpoint.url in checkpoint.remedy
    assert checkpoint.file not in checkpoint.also


def test_no_two_share_a_file_or_a_digest():
    for values in (
        [one.checkpoint.file for one in PUBLISHED.values()],
        [one.checkpoint.sha256 for one in PUBLISHED.values() if one.checkpoint.sha256],
        [one.checkpoint.url for one in PUBLISHED.values()],
    ):
        assert len(values) == len(set(values))


def test_names_may_be_written_as_open_clip_writes_them():
    assert named("ViT-B-16-quickgelu.openai") is named("ViT-B/16.openai") is PUBLISHED["ViT-B-16.openai"]
    assert official_clip("ViT-B-16-quickgelu", "openai") is official_clip("ViT-B-16", "openai")
    assert official_clip("ViT-B-32", "laion2b_s34b_b79k") is None
    with pytest.raises(WeightsError, match=r"'ViT-B-16\.nobody'.*RN50\.openai.*mobile_sam"):
        named("ViT-B-16.nobody")


def test_unknown_sam_is_refused():
    with pytest.raises(WeightsError, match=r"vit_xxl.*mobile_sam"):
        official_sam("vit_xxl")


def test_a_file_is_known_by_its_digest():
    assert by_sha256(PUBLISHED["vit_l"].checkpoint.sha256) is PUBLISHED["vit_l"]
    assert by_sha256("0" * 64) is None


def test_the_hubs_files_are_called_as_open_clip_calls_them():
    assert weights._ON_THE_HUB == (HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME)


def test_a_tag_that_is_not_listed_says_where_it_is_to_be_had(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for tag, source in (
        ("laion2b_s34b_b79k", f"{published.HUB}/laion/CLIP-ViT-B-32-laion2B-s34B-b79K"),
        ("commonpool_s_s13m_b4k", published.HUB),
    ):
        with pytest.raises(WeightsError) as raised:
            clip.load_clip("ViT-B-32", tag, "cpu")
        assert source in str(raised.value)
        assert f"ViT-B-32.{tag}" in str(raised.value)
        assert "weights fetch" not in str(raised.value)


def test_a_published_file_is_known_whatever_it_is_called(tmp_path, monkeypatch):
    path = tmp_path / "renamed.pt"
    path.write_bytes(b"as published")
    assert named_weights("ViT-B-16", path)[2] is None
    digest = weights.file_sha256(path)
    entry = PUBLISHED["ViT-B-16.openai"]
    changed = replace(entry, checkpoint=replace(entry.checkpoint, sha256=digest))
    monkeypatch.setitem(PUBLISHED, "ViT-B-16.openai", changed)
    assert named_weights("ViT-B-16", path) == (path, digest, "openai")
