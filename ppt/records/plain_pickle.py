"""Pickles from the web, read as data: lists, dicts, text, numbers, None; nothing in them is ever called.

REFER's `refs(<by>).p` were written by Python 2. A pickle is a program, so this reader admits no global, which
is what a program needs to call anything, and looks through the opcodes before it runs them: a place in the
memo far beyond what was stored, or a number of a million digits, fills the memory without any call. Tuples
and sets, which no refs have, are refused: one within another as a key of a dict takes the hash for ever, or
the stack.
"""

import io
import pickle  # nosec B403  # this module is what makes it safe
import pickletools  # nosec B403
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MAX_BYTES = 2**29
MAX_DEPTH = 16
MAX_VALUES = 50_000_000
_CALLS = {
    "GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "REDUCE", "BUILD",
    "EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID", "NEXT_BUFFER", "READONLY_BUFFER",
}  # fmt: skip
_HASHED = {"EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_SET", "ADDITEMS", "FROZENSET"}
_MEMO = {"PUT", "BINPUT", "LONG_BINPUT"}
_NUMBERS = {"LONG", "LONG1", "LONG4", "INT"}
_LONGEST_NUMBER = 24
"""Bytes, of the text or the binary form: 64 bits in either."""
_OPCODES = {ord(opcode.code): opcode for opcode in pickletools.opcodes}
_LENGTHS = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
"""How many bytes say how long an argument is, by how pickletools marks it."""


class PickleError(ValueError):
    """A pickle that is no plain data, or too much of it; the text says which."""


def load(path: Path) -> Any:
    """The data of a pickle of any protocol: dict, list, str, bytes, int, float, bool and None alone.

    Text of Python 2 is read as UTF-8; bytes that are none become lone surrogates. Raises PickleError, and
    OSError where the file cannot be read.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise PickleError(f"it has {size} bytes; at most {MAX_BYTES} are read")
    content = path.read_bytes()
    _look_through(content)
    try:
        found = _Plain(io.BytesIO(content), encoding="utf-8", errors="surrogateescape").load()
    except PickleError:
        raise
    except Exception as error:  # a broken pickle raises almost anything
        raise PickleError(f"it is no pickle that can be read: {error!r:.200}") from error
    _check_plain(found)
    return found


class _Plain(pickle.Unpickler):
    """Without a global there is nothing to call."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        raise PickleError(f"it asks for {module_name}.{global_name}; nothing in a pickle is run here")

    def persistent_load(self, pid: Any, /) -> Any:
        raise PickleError("it refers to what lies outside of it")


def _look_through(content: bytes) -> None:
    """Every opcode in turn, without making anything of it; `pickletools.genops` itself would decode all text,
    and stops at what Python 2 wrote beyond ASCII.
    """
    place = stored = 0
    while place < len(content):
        opcode = _OPCODES.get(content[place])
        if opcode is None:
            raise PickleError(f"it is no pickle that can be read: byte {place} is no opcode")
        begun, place = place + 1, _behind(content, place + 1, opcode)
        if opcode.name in _CALLS:
            named = content[begun:place].decode("latin-1").split()
            raise PickleError(
                f"it holds {' '.join([opcode.name, *named]):.100}; nothing in a pickle is run here"
            )
        if opcode.name in _HASHED:
            raise PickleError(f"it holds {opcode.name}; lists and dicts are read, tuples and sets are not")
        if opcode.name in _MEMO:
            stored += 1
            number = _place(content[begun:place], written=opcode.name == "PUT")
            if number > stored:
                raise PickleError(f"it stores at place {number}, of {stored} that were stored")
        elif opcode.name in _NUMBERS and place - begun > _LONGEST_NUMBER:
            raise PickleError(f"it holds a number of {place - begun} bytes")
        elif opcode.name == "STOP":
            return
    raise PickleError("it is no pickle that can be read: it does not end")


def _place(argument: bytes, written: bool) -> int:
    """A place in the memo, written in digits or in bytes. Raises PickleError."""
    if not written:
        return int.from_bytes(argument, "little")
    digits = argument.strip()
    if not digits.isdigit() or len(digits) > _LONGEST_NUMBER:
        raise PickleError(f"it stores at place {digits[:_LONGEST_NUMBER]!r}, which is none")
    return int(digits)


def _behind(content: bytes, place: int, opcode: pickletools.OpcodeInfo) -> int:
    """Where the argument ends that an opcode has at `place`. Raises PickleError behind the end."""
    size = 0 if opcode.arg is None else opcode.arg.n
    if size == pickletools.UP_TO_NEWLINE:
        for _ in range(2 if opcode.name in ("GLOBAL", "INST") else 1):
            place = content.find(b"\n", place) + 1 or len(content) + 1
    elif size < 0:
        width = _LENGTHS[size]
        place += width + int.from_bytes(content[place : place + width], "little")
    else:
        place += size
    if place > len(content):
        raise PickleError("it is no pickle that can be read: it ends within a value")
    return place


def _check_plain(value: Any) -> None:
    """Values that are shared count each time they are met, so that they cannot multiply unseen."""
    count, stack = 0, [iter([value])]
    while stack:
        for one in stack[-1]:
            count += 1
            if count > MAX_VALUES:
                raise PickleError(f"it holds more than {MAX_VALUES} values")
            if isinstance(one, dict | list):
                if len(stack) >= MAX_DEPTH:
                    raise PickleError(f"it is nested more than {MAX_DEPTH} deep")
                stack.append(_inside(one))
                break
            if one is not None and not isinstance(one, str | bytes | int | float):
                raise PickleError(f"it holds a {type(one).__name__}; only plain data is read")
        else:
            stack.pop()


def _inside(value: dict[Any, Any] | list[Any]) -> Iterator[Any]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield inner
    else:
        yield from value
