"""Checkpoints: where they lie on this machine, what they must hash to, how they are read and checked.

A model never runs on weights nobody chose. A file that is missing, altered, unreadable or made for another
architecture ends in `WeightsError`, which names the file, its sha256 where one is published, and what to do.
Nothing is downloaded here: `published.py` says what there is, `fetch.py` gets it when asked to.

Files are looked for in this order: the path given by the user; the folder named by the environment variable
`PPT_WEIGHTS`; `ppt/weights` in the user's cache; the folder `tiny/` shipped with the package; what Hugging
Face, torch.hub and OpenAI's clip have kept in caches of their own. A file found in one of our folders must
have its published sha256, one in another program's cache is passed over when it has not; a file the user
names himself may be anything that fits the architecture.
"""

import hashlib
import json
import os
import pickle  # nosec B403  # the name of an error
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ppt.backbones import torchscript

SHIPPED = Path(__file__).parent / "tiny"
ENVIRONMENT_FOLDER = "PPT_WEIGHTS"
_LISTED_MISMATCHES = 5
_ON_THE_HUB = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
"""What open_clip calls its weights in every repository of Hugging Face."""

_UNREADABLE = (
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    KeyError,
    pickle.UnpicklingError,
    SafetensorError,
)

Module = TypeVar("Module", bound=torch.nn.Module)


class WeightsError(ValueError):
    """A checkpoint is missing, altered, unreadable or belongs to another architecture."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint with a name.

    file: bare file name. sha256: 64 lower-case hex digits, None where none is published. size: bytes or None.
    remedy: how to get the file, a clause that ends the message. also: other names, perhaps of other formats,
    under which the weights are accepted; the sha256 is not theirs. url: where it is published, "" for
    nowhere. hub: the repository on Hugging Face whose cached copies are accepted, "" for none.
    """

    name: str
    file: str
    remedy: str
    sha256: str | None = None
    size: int | None = None
    also: tuple[str, ...] = ()
    url: str = ""
    hub: str = ""

    def claimed_by(self, path: Path) -> bool:
        """Whether a file of this name claims to be the published one, to the byte."""
        return self.sha256 is not None and path.name in (self.file, self.url.rpartition("/")[2])


def embedded(kind: str) -> Checkpoint:
    """The shipped checkpoint `kind` ("clip" or "sam"), its sha256 read from `tiny/weights.json`.

    `weights.json` is {"clip": {"file": ..., "sha256": ..., "bytes": ...}, "sam": {...}}.
    Raises WeightsError when that list is missing, is not JSON or lacks the entry.
    """
    listing = SHIPPED / "weights.json"
    try:
        row = json.loads(listing.read_text(encoding="utf-8"))[kind]
        file, sha256, size = str(row["file"]), str(row["sha256"]), int(row["bytes"])
    except FileNotFoundError:
        raise WeightsError(
            f"the embedded {kind} is not installed: {listing} is missing; reinstall ppt with its package data"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{listing}: no usable entry for {kind!r} ({error!r}); reinstall ppt") from error
    return Checkpoint(f"embedded {kind}", file, "reinstall ppt: this file is part of it", sha256, size)


def file_sha256(path: Path | str) -> str:
    """sha256 of a file's bytes as 64 lower-case hex digits, read in pieces. Raises OSError."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def verify(path: Path | str, checkpoint: Checkpoint) -> str:
    """The sha256 of `path`, after checking it against the checkpoint's published one, if there is one.

    Raises WeightsError carrying both digests when they differ.
    """
    found = file_sha256(path)
    if checkpoint.sha256 is not None and found != checkpoint.sha256:
        size = Path(path).stat().st_size
        expected_size = f"{checkpoint.size} bytes, " if checkpoint.size is not None else ""
        raise WeightsError(
            f"{path} is not the published {checkpoint.name} checkpoint: expected {expected_size}sha256 "
            f"{checkpoint.sha256}, found {size} bytes, sha256 {found}; move it away and {checkpoint.remedy}"
        )
    return found


def destination() -> Path:
    """The folder that fetched weights go to: that of `PPT_WEIGHTS`, or `ppt/weights` in the user's cache."""
    own = os.environ.get(ENVIRONMENT_FOLDER)
    return Path(own).expanduser() if own else _user_cache() / "ppt" / "weights"


def folders() -> list[Path]:
    """Our own folders that weights are looked for in, the first one first."""
    return list(dict.fromkeys([destination(), _user_cache() / "ppt" / "weights", SHIPPED]))


def locate(checkpoint: Checkpoint) -> Path | None:
    """The first file on this machine that has the checkpoint's name; its content is not looked at."""
    return next(iter([*_in_folders(checkpoint), *_in_caches(checkpoint)]), None)


def resolve(checkpoint: Checkpoint, given: Path | str | None = None) -> tuple[Path, str]:
    """Where a checkpoint lies on this machine, and its sha256.

    given: the user's own path; it alone is tried, and its content is the user's choice (not compared with the
    published sha256). Otherwise our folders, where the sha256 must match, then other programs' caches.
    Raises WeightsError naming the file and the folders looked in, the sha256 and the remedy.
    """
    if given is not None:
        path = Path(given).expanduser()
        if not path.is_file():
            raise WeightsError(f"{path}: no such weights file ({checkpoint.name}); {_how_to_get(checkpoint)}")
        return path, file_sha256(path)
    found = find(checkpoint)
    if found is None:
        looked = ", ".join(str(folder) for folder in folders())
        raise WeightsError(
            f"weights of {checkpoint.name} are missing: no {checkpoint.file} in {looked} or the caches of "
            f"other programs; {_how_to_get(checkpoint)}"
        )
    return found


def find(checkpoint: Checkpoint) -> tuple[Path, str] | None:
    """Where a checkpoint lies in our folders or another program's cache, and its sha256; None for nowhere.

    Raises WeightsError for a file in our folders that claims to be the published one and is not.
    """
    for path in _in_folders(checkpoint):
        claims = checkpoint.claimed_by(path)
        return path, verify(path, checkpoint) if claims else file_sha256(path)
    for path in _in_caches(checkpoint):
        sha256 = file_sha256(path)
        if sha256 == checkpoint.sha256 or not checkpoint.claimed_by(path):
            return path, sha256
    return None


def _in_folders(checkpoint: Checkpoint) -> Iterator[Path]:
    names = (checkpoint.file, *_name_at_source(checkpoint), *checkpoint.also)
    return (folder / name for folder in folders() for name in names if (folder / name).is_file())


def _in_caches(checkpoint: Checkpoint) -> Iterator[Path]:
    """Copies that other programs have downloaded, under the names those give them."""
    if checkpoint.hub:
        snapshots = _hub_cache() / f"models--{checkpoint.hub.replace('/', '--')}" / "snapshots"
        yield from (path for name in _ON_THE_HUB for path in sorted(snapshots.glob(f"*/{name}")))
    for name in _name_at_source(checkpoint):
        caches = (Path.home() / ".cache" / "clip", Path(torch.hub.get_dir()) / "checkpoints")
        yield from (folder / name for folder in caches if (folder / name).is_file())


def _name_at_source(checkpoint: Checkpoint) -> list[str]:
    """What the file is called where it is published, if that tells it from others."""
    name = checkpoint.url.rpartition("/")[2]
    return [name] if name and name not in _ON_THE_HUB else []


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()


def _hub_cache() -> Path:
    """Where huggingface_hub keeps what it has downloaded."""
    home = os.environ.get("HF_HOME") or _user_cache() / "huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub").expanduser()


def _how_to_get(checkpoint: Checkpoint) -> str:
    published = f"its sha256 is {checkpoint.sha256}" if checkpoint.sha256 else "no sha256 is published for it"
    return f"{published}; {checkpoint.remedy}"


def read_json(path: Path | str) -> dict:
    """An architecture description as a dict. Raises WeightsError naming the file."""
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: cannot read the architecture description: {error}") from error
    if not isinstance(value, dict):
        raise WeightsError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def read_state_dict(path: Path | str) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint on the CPU, by name: .safetensors, a torch file (`weights_only`), or the
    parameters and buffers of a TorchScript archive, whose code is not read.

    A training checkpoint's {"state_dict": ...} is unwrapped and a `module.` prefix removed. There is no
    fallback to unrestricted unpickling. Raises WeightsError naming the file.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            found = load_file(path, device="cpu")
        elif torchscript.is_archive(path):
            found = torchscript.state_dict(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsError(
            f"{path} cannot be read as weights ({reason}); expected .safetensors, or a state dict written by "
            "torch.save or torch.jit.save: code in a checkpoint is never run"
        ) from error
    if isinstance(found, dict) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]
    if not isinstance(found, Mapping) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise WeightsError(f"{path} holds no state dict: expected a mapping from names to tensors")
    if found and all(name.startswith("module.") for name in found):
        return {name.removeprefix("module."): value for name, value in found.items()}
    return dict(found)


def fit(module: Module, state: Mapping[str, torch.Tensor], path: Path | str, device: str) -> Module:
    """`module` with the weights of `state`, frozen: on `device`, float32, eval mode, no gradients.

    Names and shapes must agree exactly, except that a single number may be stored as shape () or (1,).
    Half-precision tensors are widened. Raises WeightsError listing the first mismatches.
    """
    expected = module.state_dict()
    state = dict(state)
    for name, value in state.items():
        if name in expected and expected[name].numel() == value.numel() == 1:
            state[name] = value.reshape(expected[name].shape)
    problems = _mismatches(expected, state)
    if problems:
        more = len(problems) - _LISTED_MISMATCHES
        tail = f"; and {more} more" if more > 0 else ""
        raise WeightsError(
            f"{path} does not fit {type(module).__name__} as configured: "
            f"{'; '.join(problems[:_LISTED_MISMATCHES])}{tail}; "
            "name the architecture these weights were made for"
        )
    module.load_state_dict({name: value.to(expected[name].dtype) for name, value in state.items()})
    return module.eval().requires_grad_(False).to(resolve_device(device))


def _mismatches(expected: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor]) -> list[str]:
    """Human lines for every difference that would make a silent wrong model, missing names first."""
    lines = [f"{name} is missing" for name in expected if name not in found]
    lines += [f"{name} is unexpected" for name in found if name not in expected]
    for name in expected:
        if name not in found:
            continue
        wanted, value = tuple(expected[name].shape), tuple(found[name].shape)
        if wanted != value:
            lines.append(f"{name} has shape {value}, expected {wanted}")
        elif expected[name].is_floating_point() and not found[name].is_floating_point():
            lines.append(f"{name} is of {found[name].dtype}, expected {expected[name].dtype}")
        elif found[name].is_floating_point() and not bool(torch.isfinite(found[name]).all()):
            lines.append(f"{name} holds NaN or infinite values")
    return lines


def resolve_device(device: str) -> torch.device:
    """The torch device for "auto", "cpu", "cuda" or "cuda:N"; "auto" is CUDA where there is one.

    Raises ValueError when CUDA is asked for and is not available.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"unknown device {device!r}: use 'auto', 'cpu', 'cuda' or 'cuda:N'") from error
    if chosen.type not in ("cpu", "cuda"):
        raise ValueError(f"unsupported device {device!r}: use 'auto', 'cpu', 'cuda' or 'cuda:N'")
    count = torch.cuda.device_count()
    if chosen.type == "cuda" and (chosen.index or 0) >= count:
        raise ValueError(
            f"device {device!r} is not available: {count} CUDA device(s) found; use 'cpu' or 'auto'"
        )
    return chosen
