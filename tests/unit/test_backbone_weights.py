"""Checkpoints: found in the stated order, refused with the file, the sha256 and the remedy in the message."""

import hashlib
import json

import pytest
import torch
from safetensors.torch import save_file

from ppt.backbones import weights
from ppt.backbones.weights import Checkpoint, WeightsError

CONTENT = b"the published bytes"
DIGEST = hashlib.sha256(CONTENT).hexdigest()
PUBLISHED = Checkpoint(
    "toy",
    "toy.bin",
    "fetch it with `ppt weights fetch toy`",
    sha256=DIGEST,
    size=len(CONTENT),
    url="https://example.org/original.pth",
    hub="somebody/toy-1",
)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty home, with no caches anywhere else."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("PPT_WEIGHTS", "XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE", "TORCH_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def folders(home, tmp_path, monkeypatch):
    """An empty PPT_WEIGHTS folder and an empty shipped folder."""
    own, shipped = tmp_path / "own", tmp_path / "shipped"
    own.mkdir()
    shipped.mkdir()
    monkeypatch.setenv("PPT_WEIGHTS", str(own))
    monkeypatch.setattr(weights, "SHIPPED", shipped)
    return own, shipped


def small_net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))


def test_file_sha256_is_the_standard_digest(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert weights.file_sha256(tmp_path / "f") == expected


def test_missing_names_every_place_the_sha256_and_the_remedy(folders):
    own, shipped = folders
    with pytest.raises(WeightsError) as raised:
        weights.resolve(PUBLISHED)
    message = str(raised.value)
    for part in ("toy.bin", str(own), str(shipped), DIGEST, "`ppt weights fetch toy`"):
        assert part in message


def test_the_users_folder_comes_before_the_shipped_one(folders):
    own, shipped = folders
    (shipped / "toy.bin").write_bytes(CONTENT)
    assert weights.resolve(PUBLISHED) == (shipped / "toy.bin", DIGEST)
    (own / "toy.bin").write_bytes(CONTENT)
    assert weights.resolve(PUBLISHED) == (own / "toy.bin", DIGEST)


def test_an_alternative_name_is_found(folders):
    own, _ = folders
    (own / "toy.pt").write_bytes(CONTENT)
    checkpoint = Checkpoint("toy", "toy.bin", "", also=("toy.pt",))
    assert weights.resolve(checkpoint)[0] == own / "toy.pt"


def test_an_altered_published_file_is_refused_with_both_digests(folders):
    own, _ = folders
    (own / "toy.bin").write_bytes(CONTENT[:-1])
    found = hashlib.sha256(CONTENT[:-1]).hexdigest()
    with pytest.raises(WeightsError, match=f"{DIGEST}.*found {len(CONTENT) - 1} bytes, sha256 {found}"):
        weights.resolve(PUBLISHED)


CACHES = {
    "our own": ".cache/ppt/weights/toy.bin",
    "our own, as it was downloaded": ".cache/ppt/weights/original.pth",
    "OpenAI's": ".cache/clip/original.pth",
    "torch's": ".cache/torch/hub/checkpoints/original.pth",
    "the hub's": ".cache/huggingface/hub/models--somebody--toy-1/snapshots/1/open_clip_pytorch_model.bin",
}


def put(path, content=CONTENT):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("cache", CACHES)
def test_what_was_downloaded_before_is_found(home, cache):
    assert weights.locate(PUBLISHED) is None
    path = put(home / CACHES[cache])
    assert weights.locate(PUBLISHED) == path
    assert weights.resolve(PUBLISHED) == (path, DIGEST)


@pytest.mark.parametrize(
    ("variable", "below"),
    [
        ("XDG_CACHE_HOME", "ppt/weights/toy.bin"),
        ("XDG_CACHE_HOME", "torch/hub/checkpoints/original.pth"),
        ("XDG_CACHE_HOME", "huggingface/hub/models--somebody--toy-1/snapshots/1/open_clip_model.safetensors"),
        ("HF_HOME", "hub/models--somebody--toy-1/snapshots/1/open_clip_model.safetensors"),
        ("HF_HUB_CACHE", "models--somebody--toy-1/snapshots/1/open_clip_model.safetensors"),
        ("TORCH_HOME", "hub/checkpoints/original.pth"),
    ],
)
def test_caches_are_where_the_environment_says(home, monkeypatch, variable, below):
    monkeypatch.setenv(variable, str(home / "elsewhere"))
    path = put(home / "elsewhere" / below)
    assert weights.resolve(PUBLISHED)[0] == path


def test_what_lies_in_anothers_cache_by_our_name_but_is_not_it_is_passed_over(home):
    put(home / CACHES["OpenAI's"], CONTENT[:-1])
    with pytest.raises(WeightsError, match="missing"):
        weights.resolve(PUBLISHED)
    right = put(home / CACHES["torch's"])
    assert weights.resolve(PUBLISHED)[0] == right


def test_the_hubs_other_format_has_a_digest_of_its_own(home):
    path = home / CACHES["the hub's"]
    put(path.with_name("open_clip_model.safetensors"), b"the same weights, otherwise")
    assert weights.resolve(PUBLISHED)[0].suffix == ".safetensors"


def test_our_folders_come_before_anothers_cache(home):
    for cache in ("OpenAI's", "our own"):
        put(home / CACHES[cache])
    assert weights.resolve(PUBLISHED)[0] == home / CACHES["our own"]


def test_weights_are_fetched_to_the_folder_that_is_searched_first(home, monkeypatch):
    assert weights.destination() == weights.folders()[0] == home / ".cache" / "ppt" / "weights"
    monkeypatch.setenv("PPT_WEIGHTS", "~/mine")
    assert weights.destination() == weights.folders()[0] == home / "mine"
    assert home / ".cache" / "ppt" / "weights" in weights.folders()


def test_a_path_given_by_the_user_is_not_compared_but_must_exist(folders, tmp_path):
    (tmp_path / "mine.bin").write_bytes(b"mine")
    assert weights.resolve(PUBLISHED, tmp_path / "mine.bin")[1] == hashlib.sha256(b"mine").hexdigest()
    own, _ = folders
    (own / "toy.bin").write_bytes(CONTENT)
    with pytest.raises(WeightsError, match=rf"absent\.bin.*{DIGEST}"):
        weights.resolve(PUBLISHED, tmp_path / "absent.bin")


def test_embedded_reads_the_committed_list(folders):
    _, shipped = folders
    with pytest.raises(WeightsError, match=r"weights\.json is missing"):
        weights.embedded("clip")
    (shipped / "weights.json").write_text("{")
    with pytest.raises(WeightsError, match=r"weights\.json"):
        weights.embedded("clip")
    row = {"file": "toy.bin", "sha256": DIGEST, "bytes": len(CONTENT)}
    (shipped / "weights.json").write_text(json.dumps({"clip": row}))
    (shipped / "toy.bin").write_bytes(CONTENT)
    assert weights.resolve(weights.embedded("clip")) == (shipped / "toy.bin", DIGEST)
    with pytest.raises(WeightsError, match="'sam'"):
        weights.embedded("sam")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_half_precision_is_widened_and_the_model_frozen(tmp_path, suffix):
    net = small_net()
    halves = {
        key: value.half() if value.is_floating_point() else value for key, value in net.state_dict().items()
    }
    path = tmp_path / f"net{suffix}"
    if suffix == ".safetensors":
        save_file(halves, path)
    else:
        torch.save({"state_dict": {f"module.{key}": value for key, value in halves.items()}}, path)
    fitted = weights.fit(small_net().requires_grad_(True), weights.read_state_dict(path), path, "cpu")
    assert not fitted.training
    assert [name for name, value in fitted.named_parameters() if value.requires_grad] == []
    for name, value in fitted.state_dict().items():
        assert value.dtype == net.state_dict()[name].dtype
        torch.testing.assert_close(value, halves[name].to(value.dtype), rtol=0, atol=0)


def test_a_single_number_may_be_stored_with_one_axis(tmp_path):
    net = torch.nn.Module()
    net.logit_scale = torch.nn.Parameter(torch.zeros(()))
    weights.fit(net, {"logit_scale": torch.tensor([2.5])}, "f", "cpu")
    assert float(net.logit_scale) == 2.5


def test_mismatches_are_listed_and_the_model_left_alone():
    net = small_net()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = {"extra": torch.zeros(1), **net.state_dict(), "0.weight": torch.zeros(3, 4)}
    del state["0.bias"]
    with pytest.raises(WeightsError) as raised:
        weights.fit(net, state, "some.file", "cpu")
    message = str(raised.value)
    for part in (
        "some.file",
        "0.bias is missing",
        "extra is unexpected",
        "0.weight has shape (3, 4), expected (3, 2)",
    ):
        assert part in message
    for name, value in net.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_whole_numbers_in_place_of_weights_are_refused():
    net = small_net()
    state = net.state_dict() | {"0.weight": torch.zeros(3, 2, dtype=torch.int64)}
    with pytest.raises(WeightsError, match=r"0\.weight is of torch\.int64, expected torch\.float32"):
        weights.fit(net, state, "some.file", "cpu")


def test_long_lists_of_mismatches_are_cut_and_counted():
    with pytest.raises(WeightsError, match="and 2 more"):
        weights.fit(small_net(), {}, "f", "cpu")


def test_values_that_are_not_numbers_are_refused():
    state = small_net().state_dict()
    state["0.bias"] = torch.tensor([0.0, float("nan"), 0.0])
    with pytest.raises(WeightsError, match=r"0\.bias holds NaN"):
        weights.fit(small_net(), state, "f", "cpu")


class Dangerous:
    def __reduce__(self):
        return (print, ("this must never run",))


def test_code_in_a_checkpoint_is_never_run(tmp_path, capsys):
    torch.save({"weight": Dangerous()}, tmp_path / "evil.pt")
    with pytest.raises(WeightsError, match=r"evil\.pt cannot be read"):
        weights.read_state_dict(tmp_path / "evil.pt")
    assert "never run" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["net.pt", "net.safetensors"])
@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", bytes(4096)])
def test_broken_files_are_refused_by_name(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=name):
        weights.read_state_dict(tmp_path / name)


def test_a_truncated_checkpoint_is_refused(tmp_path):
    torch.save(small_net().state_dict(), tmp_path / "net.pt")
    content = (tmp_path / "net.pt").read_bytes()
    (tmp_path / "net.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(WeightsError, match=r"net\.pt cannot be read"):
        weights.read_state_dict(tmp_path / "net.pt")


def test_something_else_than_a_state_dict_is_refused(tmp_path):
    torch.save([1, 2, 3], tmp_path / "list.pt")
    with pytest.raises(WeightsError, match="no state dict"):
        weights.read_state_dict(tmp_path / "list.pt")


def test_devices():
    assert weights.resolve_device("cpu").type == "cpu"
    assert weights.resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for wrong in ("gpu", "meta", f"cuda:{torch.cuda.device_count()}"):
        with pytest.raises(ValueError, match=wrong):
            weights.resolve_device(wrong)
