"""TorchScript archives: the tensors that the module has, and nothing that it does."""

import os
import pickle
import shutil
import struct
import zipfile

import numpy as np
import open_clip
import pytest
import torch

from ppt.backbones import torchscript
from ppt.backbones.clip import load_clip
from ppt.backbones.weights import WeightsError, read_state_dict

# Writing TorchScript is deprecated; OpenAI's files are what they are.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:.torch.jit:{kind}")
    for kind in ("DeprecationWarning", "FutureWarning")
]
KINDS = (torch.float64, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


class Inner(torch.nn.Module):
    """A parameter, buffers of every kind, a tensor that is neither, and attributes that are no tensors."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(3, 2).half())
        for kind in KINDS:
            self.register_buffer(f"of_{str(kind).removeprefix('torch.')}", torch.arange(5).to(kind))
        self.register_buffer("flag", torch.tensor([True, False]))
        self.register_buffer("empty", torch.zeros(0, 4))
        self.register_buffer("turned", torch.arange(6.0).view(2, 3).t())
        self.mask = torch.ones(2)
        self.sizes = [1, 2]
        self.label = "inner"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        print("this must never run")
        torch.save(x, "written")
        return x @ self.weight.float().t() * self.mask.sum() * self.sizes[0]


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.seq = torch.nn.Sequential(Inner(), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 3))
        self.scale = torch.nn.Parameter(torch.tensor(2.0))
        self.tied = self.seq[2]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.seq(x) * self.scale


class Spiteful(torch.nn.Module):
    """Does what TorchScript allows a module to do while it is loaded."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x

    @torch.jit.export
    def __getstate__(self) -> tuple[torch.Tensor, bool]:
        return self.weight, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]) -> None:
        torch.save(state[0], "written")
        self.weight = state[0]
        self.training = state[1]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    torch.manual_seed(0)
    return saved(Net(), tmp_path_factory.mktemp("archive") / "net.pt")


@pytest.fixture
def net(archive, here):
    """A small network's archive, alone in the current folder."""
    return shutil.copy(archive, here / "net.pt")


def saved(net, path):
    torch.jit.save(torch.jit.script(net), path)
    return path


def rewritten(source, path, changes):
    """The archive with some records replaced, None: left out. A pair is (bytes, how they are compressed)."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        added = [end for end in changes if not any(name.endswith(end) for name in old.namelist())]
        for name in [*old.namelist(), *added]:
            matching = [change for ending, change in changes.items() if name.endswith(ending)]
            content = matching[0] if matching else (old.read(name), old.getinfo(name).compress_type)
            if content is not None:
                new.writestr(name, *content)
    return path


def with_pickle(net, data):
    return rewritten(net, net.with_name("evil.pt"), {"/data.pkl": (data, 0)})


def structure(path):
    with zipfile.ZipFile(path) as archive:
        return archive.read(f"{path.stem}/data.pkl")


def test_the_tensors_are_the_modules_own(net, here, capfd):
    found, expected = read_state_dict(net), torch.jit.load(net).state_dict()
    assert found.keys() == expected.keys()
    assert {"scale", "seq.0.weight", "seq.0.flag", "seq.1.num_batches_tracked", "tied.bias"} <= found.keys()
    assert "seq.0.mask" not in found
    for name, value in found.items():
        assert value.dtype == expected[name].dtype
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0)
    assert os.listdir(here) == ["net.pt"]
    assert capfd.readouterr().out == ""


def test_tensors_that_were_one_are_one(net):
    found = read_state_dict(net)
    assert found["tied.weight"].data_ptr() == found["seq.2.weight"].data_ptr()


def test_an_archive_that_declares_nothing_gives_every_tensor(net, here):
    with zipfile.ZipFile(net) as archive:
        code = {name: None for name in archive.namelist() if "/code/" in name}
    assert "seq.0.mask" in read_state_dict(rewritten(net, here / "old.pt", code))


def test_code_that_runs_when_torch_loads_is_not_run_here(here):
    path = saved(Spiteful(), here / "spiteful.pt")
    torch.jit.load(path)
    assert (here / "written").exists(), "this archive harms nobody, so the test shows nothing"
    (here / "written").unlink()
    with pytest.raises(WeightsError, match=r"spiteful\.pt.*attributes of Spiteful are tuple"):
        read_state_dict(path)
    assert not (here / "written").exists()


class Command:
    def __reduce__(self):
        return os.system, ("touch written",)


def test_a_command_in_a_torch_file_is_refused(here):
    torch.save({"weight": Command()}, here / "evil.pt")
    with pytest.raises(WeightsError, match=r"evil\.pt cannot be read as weights.*never run"):
        read_state_dict(here / "evil.pt")
    assert not (here / "written").exists()


def test_a_command_in_an_archive_is_refused(net, here):
    path = with_pickle(net, pickle.dumps(Command(), protocol=2))
    with pytest.raises(WeightsError, match=r"evil\.pt.*asks for (posix|nt)\.system, which is refused"):
        read_state_dict(path)
    assert not (here / "written").exists()


FOREIGN = [
    ("builtins", "eval"),
    ("builtins", "getattr"),
    ("torch", "load"),
    ("torch", "_utils"),
    ("torch._utils", "_rebuild_qtensor"),
    ("torch.jit._pickle", "sys"),
    ("collections", "namedtuple"),
    ("__torch__evil", "Net"),
    ("ppt.backbones.torchscript", "state_dict"),
]


@pytest.mark.parametrize(("module", "name"), FOREIGN)
def test_no_other_name_is_known(net, module, name):
    path = with_pickle(net, f"\x80\x02c{module}\n{name}\n.".encode("latin-1"))
    with pytest.raises(WeightsError, match=f"asks for {module}.{name}"):
        read_state_dict(path)


ITSELF = b"\x80\x02c__torch__\nNet\n)\x81q\x01}X\x04\x00\x00\x00selfh\x01sb."
TWO_OF_EACH = (
    b"\x80\x02c__torch__\nNet\nq\x00)\x81q\x01"
    + b"h\x00)\x81}(X\x01\x00\x00\x00ah\x01X\x01\x00\x00\x00bh\x01ubq\x01" * 100
    + b"."
)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (ITSELF, "without end"),
        (TWO_OF_EACH, "without end"),
        (b"\x80\x02}.", "no module but dict"),
        (b"\x80\x02(X\x01\x00\x00\x00aK\x01K\x02K\x03K\x04tQ.", "no storage"),
        (b"\x80\x02", "ran out of input|truncated"),
        (b"", "ran out of input|truncated"),
    ],
    ids=["itself", "two of each", "dict", "no storage", "cut off", "empty"],
)
def test_structures_that_are_no_module_are_refused(net, data, reason):
    with pytest.raises(WeightsError, match=rf"(?i)evil\.pt.*({reason})"):
        read_state_dict(with_pickle(net, data))


def test_a_view_larger_than_its_record_is_refused(net):
    data = structure(net)
    honest = b"(K\x03K\x02t(K\x02K\x01t"
    assert honest in data
    for lie in (
        b"(J\xff\xff\xff\x7fJ\xff\xff\xff\x7ft(K\x00K\x00t",
        b"(K\x03K\x02t(K\x63K\x01t",
        b"(J\xff\xff\xff\xffJ\xfe\xff\xff\xfft(K\x02K\x01t",
    ):
        with pytest.raises(WeightsError, match=r"evil\.pt cannot be read"):
            read_state_dict(with_pickle(net, data.replace(honest, lie)))


def test_a_structure_that_swells_is_not_unpacked(net, here):
    zeros = bytes(torchscript.MOST_STRUCTURE + 1)
    path = rewritten(net, here / "bomb.pt", {"/data.pkl": (zeros, zipfile.ZIP_DEFLATED)})
    assert path.stat().st_size < 10**6
    with pytest.raises(WeightsError, match=rf"bomb\.pt.*data\.pkl claims {len(zeros)} bytes"):
        read_state_dict(path)


def test_a_tensor_that_swells_is_not_unpacked(net, here):
    path = saved(torch.nn.Linear(1000, 1000), here / "net.pt")
    bomb = rewritten(path, here / "bomb.pt", {"/data/0": (bytes(4 * 10**6), zipfile.ZIP_DEFLATED)})
    with pytest.raises(WeightsError, match=r"bomb\.pt.*data/0 is compressed"):
        read_state_dict(bomb)


def test_records_cannot_claim_more_than_the_file(net):
    content = bytearray(net.read_bytes())
    at = content.rindex(b"net/data/0") - 46
    assert content[at : at + 4] == b"PK\x01\x02"
    content[at + 20 : at + 28] = struct.pack("<II", 2**31, 2**31)
    net.write_bytes(content)
    with pytest.raises(WeightsError, match=r"net\.pt.*larger than the file"):
        read_state_dict(net)


def test_a_record_of_another_length_is_refused(net, here):
    path = rewritten(net, here / "short.pt", {"/data/1": (b"\0\0", 0)})
    with pytest.raises(WeightsError, match=r"short\.pt.*data/1 is compressed or has not the"):
        read_state_dict(path)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"/byteorder": (b"big", 0)}, "byte order"),
        ({"/data/1": None}, "data/1"),
        ({"/data.pkl": None}, "0 data.pkl"),
        ({"second/data.pkl": (b"", 0)}, "2 data.pkl"),
    ],
)
def test_archives_that_are_damaged_are_refused(net, here, changes, reason):
    path = rewritten(net, here / "bad.pt", changes)
    with pytest.raises(WeightsError, match=rf"bad\.pt.*{reason}"):
        read_state_dict(path)


def test_a_bit_that_flipped_is_noticed(net):
    with zipfile.ZipFile(net) as archive:
        record = archive.getinfo("net/data/1")
        position = record.header_offset + 30 + len(record.filename) + len(record.extra)
    content = bytearray(net.read_bytes())
    weight = dict(torch.jit.load(net).named_parameters())["seq.0.weight"]
    at = content.index(weight.detach().numpy().tobytes(), position)
    content[at] ^= 1
    net.write_bytes(content)
    with pytest.raises(WeightsError, match=r"net\.pt.*CRC"):
        read_state_dict(net)


VIT = {"layers": 2, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 64}
TEXT = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}


def test_openais_archive_is_a_clip(here, monkeypatch):
    """As OpenAI saved it: half precision, a size among the buffers, a mask that is no buffer."""
    recipe = {"embed_dim": 24, "vision_cfg": VIT, "text_cfg": TEXT}
    real = open_clip.get_model_config
    monkeypatch.setattr(
        open_clip, "get_model_config", lambda name: {**recipe} if name == "ViT-B-16" else real(name)
    )
    torch.manual_seed(0)
    net = open_clip.CLIP(**recipe, quick_gelu=True).eval()
    mask = net.attn_mask
    del net.attn_mask
    net.attn_mask = mask
    for name, size in (("input_resolution", 64),):
        net.register_buffer(name, torch.tensor(size))
    halves = net.half()
    torch.jit.save(torch.jit.script(halves), here / "ViT-B-16.openai.pt")
    clip = load_clip("ViT-B-16", here / "ViT-B-16.openai.pt", "cpu")
    tokens = open_clip.SimpleTokenizer(context_length=16)(["a dog"])
    net = net.float()
    with torch.inference_mode():
        expected = net.encode_text(tokens, normalize=True).numpy()
    np.testing.assert_allclose(clip.encode_texts(["a dog"])[0], expected, atol=1e-6)
