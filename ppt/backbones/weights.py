"""Named checkpoints: where they come from, what they must hash to, how they are read and checked.

A model never runs on weights nobody chose. A file that is missing, altered, unreadable or made for another
architecture ends in `WeightsError`, which names the file, its sha256 where one is published, and what to do.
Nothing is downloaded here.

Files are looked for in this order: the path given by the user, the folder named by the environment variable
`PPT_WEIGHTS`, the folder `tiny/` shipped with the package. A file found in either folder must have its
published sha256; a file the user names himself may be anything that fits the architecture.
"""

import hashlib
import json
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

SHIPPED = Path(__file__).parent / "tiny"
ENVIRONMENT_FOLDER = "PPT_WEIGHTS"
_LISTED_MISMATCHES = 5
_SAM_URL = "https://dl.fbaipublicfiles.com/segment_anything/"

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

    file: bare file name; also: other names under which it is accepted. sha256: 64 lower-case hex digits, None
    where none is published. size: bytes or None. remedy: how to get the file, a clause that ends the message.
    """

    name: str
    file: str
    remedy: str
    sha256: str | None = None
    size: int | None = None
    also: tuple[str, ...] = ()


def _official_sam(name: str, file: str, size: int, sha256: str) -> Checkpoint:
    remedy = (
        f"fetch it ({size / 1e6:.0f} MB) with `curl -L -o {file} {_SAM_URL}{file}` and name the file in "
        f"sam.weights, or keep it in the folder that {ENVIRONMENT_FOLDER} names"
    )
    return Checkpoint(f"sam {name}", file, remedy, sha256, size)


_OFFICIAL_SAM = {
    "vit_b": _official_sam(
        "vit_b",
        "sam_vit_b_01ec64.pth",
        375042383,
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
    ),
    "vit_l": _official_sam(
        "vit_l",
        "sam_vit_l_0b3195.pth",
        1249524607,
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
    ),
    "vit_h": _official_sam(
        "vit_h",
        "sam_vit_h_4b8939.pth",
        2564550879,
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
    ),
}


def official_sam(model: str) -> Checkpoint:
    """The published checkpoint of SAM "vit_b", "vit_l" or "vit_h". Raises WeightsError for another name."""
    if model not in _OFFICIAL_SAM:
        raise WeightsError(f"unknown SAM model {model!r}: use 'embedded' or one of {sorted(_OFFICIAL_SAM)}")
    return _OFFICIAL_SAM[model]


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
            f"{checkpoint.sha256}, found {size} bytes, sha256 {found}; {checkpoint.remedy}"
        )
    return found


def resolve(checkpoint: Checkpoint, given: Path | str | None = None) -> tuple[Path, str]:
    """Where a checkpoint lies on this machine, and its sha256.

    given: the user's own path; it alone is tried, and its content is the user's choice (not compared with the
    published sha256). Otherwise the `PPT_WEIGHTS` folder, then the shipped one; there the sha256 must match.
    Raises WeightsError naming the files looked for, the sha256 and the remedy.
    """
    if given is not None:
        path = Path(given).expanduser()
        if not path.is_file():
            raise WeightsError(f"{path}: no such weights file ({checkpoint.name}); {_how_to_get(checkpoint)}")
        return path, file_sha256(path)
    folders = [Path(os.environ[ENVIRONMENT_FOLDER])] if os.environ.get(ENVIRONMENT_FOLDER) else []
    names = (checkpoint.file, *checkpoint.also)
    candidates = [folder / name for folder in [*folders, SHIPPED] for name in names]
    for path in candidates:
        if path.is_file():
            return path, verify(path, checkpoint)
    looked = ", ".join(str(path) for path in candidates)
    raise WeightsError(
        f"weights of {checkpoint.name} are missing: {checkpoint.file} (looked for {looked}); "
        f"{_how_to_get(checkpoint)}"
    )


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
    """The tensors of a checkpoint on the CPU, by name: .safetensors, or a torch file (`weights_only`).

    A training checkpoint's {"state_dict": ...} is unwrapped and a `module.` prefix removed. There is no
    fallback to unrestricted unpickling. Raises WeightsError naming the file.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            found = load_file(path, device="cpu")
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsError(
            f"{path} cannot be read as weights ({reason}); expected .safetensors, or a state dict written by "
            "torch.save: code in a checkpoint (pickled objects, TorchScript) is never run, convert it first"
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
