"""The weights of a TorchScript archive (torch.jit.save), read without loading or running its code.

OpenAI publishes CLIP so. The archive is a zip: `data.pkl` pickles the module as a tree of objects of classes
that exist only in `code/`, whose tensors refer to raw records in `data/`. Here the pickle may name nothing
but what rebuilds tensors; the classes become inert holders of attributes, and of `code/` only the names of a
class's parameters and buffers are read, as text. The format is that of torch/csrc/jit/serialization.
"""

import io
import math
import pickle  # nosec B403  # find_class knows a few names of torch alone
import re
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

MOST_STRUCTURE = 64 * 2**20
"""Bytes of `data.pkl`, or of one file of code, at most; CLIP's have a few hundred thousand."""
MOST_MODULES = 10_000
LONGEST_NAME = 1000
_STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_LISTS = ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist", "restore_type_tag")
_CLASS = r"^class {}\(Module\):\n(.*?)(?=^\S|\Z)"
_DECLARED = re.compile(r"^  __(?:parameters|buffers)__ = \[(.*?)\]", re.MULTILINE)


def is_archive(path: Path | str) -> bool:
    """Whether a file is a TorchScript archive: a zip with constants beside its data, as torch.load tells."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except zipfile.BadZipFile:
        return False


def state_dict(path: Path | str) -> dict[str, Tensor]:
    """Parameters and buffers on the CPU by name ("visual.conv1.weight"), as the module's own state dict.

    Nothing of the archive is executed. Raises ValueError for one that is damaged, asks for anything but
    tensors, or claims more than its own bytes hold; OSError where it cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            records = _Records(archive, Path(path).stat().st_size)
            root = _Unpickler(records).load()
            if not isinstance(root, _Inert):
                raise ValueError(f"it holds no module but {type(root).__name__}")
            return dict(_named_tensors(root, records))
    except OSError:
        raise
    except Exception as error:  # a pickle that lies can fail in any way
        raise ValueError(f"a TorchScript archive: {str(error) or type(error).__name__}") from error


class _Records:
    """The records of an archive by their names within its root folder, and never more than it holds."""

    def __init__(self, archive: zipfile.ZipFile, size: int) -> None:
        roots = [name.removesuffix("data.pkl") for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise ValueError(f"it has {len(roots)} data.pkl")
        self._archive, self._root = archive, roots[0]
        stored = [one for one in archive.infolist() if one.compress_type == zipfile.ZIP_STORED]
        if sum(one.file_size for one in stored) > size:
            raise ValueError("its records claim to be larger than the file")
        order = self.structure("byteorder") if "byteorder" in self else sys.byteorder.encode()
        if order != sys.byteorder.encode():
            raise ValueError(f"its byte order is {order!r}")

    def __contains__(self, name: str) -> bool:
        return self._root + name in self._archive.NameToInfo

    def structure(self, name: str) -> bytes:
        """A pickle or a file of code, compressed or not."""
        record = self._archive.getinfo(self._root + name)
        if record.file_size > MOST_STRUCTURE:
            raise ValueError(f"{name} claims {record.file_size} bytes, at most {MOST_STRUCTURE} are read")
        return self._archive.read(record)

    def values(self, name: str, dtype: torch.dtype, count: int) -> Tensor:
        """A record of `data/` as a flat tensor of `count` values; such records are never compressed."""
        record = self._archive.getinfo(f"{self._root}data/{name}")
        if record.compress_type != zipfile.ZIP_STORED or record.file_size != count * dtype.itemsize:
            raise ValueError(
                f"data/{name} is compressed or has not the {count} values of {dtype} it should have"
            )
        data = bytearray(self._archive.read(record))
        return torch.frombuffer(data, dtype=dtype) if count else torch.empty(0, dtype=dtype)


class _Inert:
    """Stands for an object of a class in `code/`: its attributes, and nothing that could be called."""

    module = name = ""
    attributes: Mapping[Any, Any] = MappingProxyType({})

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise pickle.UnpicklingError(f"attributes of {self.name} are {type(state).__name__}, not a dict")
        self.attributes = state


class _Unpickler(pickle.Unpickler):
    """Knows what rebuilds tensors, and no other name. Tensors that share a record share memory."""

    def __init__(self, records: _Records) -> None:
        super().__init__(io.BytesIO(records.structure("data.pkl")))
        self._records = records
        self._storages: dict[tuple[str, torch.dtype, int], Tensor] = {}
        self._classes: dict[tuple[str, str], type[_Inert]] = {}

    def find_class(self, module: str, name: str, /) -> Any:
        """What stands for `module.name`. Raises UnpicklingError for all that is not about tensors."""
        if module == "__torch__" or module.startswith("__torch__."):
            kind = type(name, (_Inert,), {"module": module, "name": name})
            return self._classes.setdefault((module, name), kind)
        match module, name:
            case "torch._utils", "_rebuild_tensor_v2":
                return _tensor
            case "torch._utils", "_rebuild_parameter":
                return _first
            case "torch.jit._pickle", str() if name in _LISTS:
                return _first
            case "collections", "OrderedDict":
                return OrderedDict
            case "torch", str() if name in _STORAGES:
                return _STORAGES[name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is refused")

    def persistent_load(self, pid: Any, /) -> Tensor:
        """The flat tensor of ("storage", dtype, record's name, device, number of values)."""
        kind, dtype, name, _, count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError(f"it refers to something that is no storage: {kind!r}")
        key = name, dtype, count
        if key not in self._storages:
            self._storages[key] = self._records.values(*key)
        return self._storages[key]


def _tensor(storage: Tensor, offset: int, size: tuple, stride: tuple, *_: Any) -> Tensor:
    """torch._utils._rebuild_tensor_v2, for views that have no more values than their storage."""
    if math.prod(size) > storage.numel():
        raise pickle.UnpicklingError(f"a tensor of shape {size} claims more than {storage.numel()} values")
    return storage.as_strided(size, stride, offset)


def _first(value: Any, *_: Any) -> Any:
    return value


def _named_tensors(root: _Inert, records: _Records) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers of a module and all below it, by their paths."""
    waiting, visited = [("", root)], 0
    while waiting:
        prefix, module = waiting.pop()
        visited += 1
        if visited > MOST_MODULES or len(prefix) > LONGEST_NAME:
            raise ValueError(f"its modules go on without end, at {prefix[:60]}...")
        declared = _declared(module, records)
        for name, value in module.attributes.items():
            if isinstance(value, _Inert):
                waiting.append((f"{prefix}{name}.", value))
            elif isinstance(value, Tensor) and (declared is None or name in declared):
                yield f"{prefix}{name}", value


def _declared(module: _Inert, records: _Records) -> set[str] | None:
    """The parameters and buffers that a class's code names; None where it names none, as old archives do.

    A module's other tensors, such as CLIP's attention mask, are no part of its state dict.
    """
    path = f"code/{module.module.replace('.', '/')}.py"
    text = records.structure(path).decode() if path in records else ""
    body = re.search(_CLASS.format(re.escape(module.name)), text, re.MULTILINE | re.DOTALL)
    lists = _DECLARED.findall(body[1]) if body else []
    return {name for one in lists for name in re.findall(r'"(.*?)"', one)} if lists else None
