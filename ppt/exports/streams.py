"""Files of many rows, written as the rows come: JSON arrays, JSON lines, pickled lists."""

import io
import os
import pickle  # nosec B403  # written, not read
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from ppt.config import canonical_json
from ppt.exports.carrier import Carrier
from ppt.exports.items import Picture, Tally, Wishes
from ppt.exports.names import Numbers


class Rows:
    """For each key a file `path(key)` of rows: `opening`, the rows with `between` among them, `closing(key)`.

    Used in a `with` block, at whose end the files are closed. A key that no row and no `begin` named has no
    file.
    """

    def __init__(
        self,
        path: Callable[[str], Path],
        opening: str = "[",
        between: str = ",\n",
        closing: Callable[[str], str] = lambda _: "]\n",
    ) -> None:
        self._path, self._opening, self._between, self._closing = path, opening, between, closing
        self._files: dict[str, IO[bytes]] = {}
        self._begun: set[str] = set()
        self._stack = ExitStack()

    def __enter__(self) -> "Rows":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        with self._stack:
            for key, file in self._files.items():
                if kind is None:
                    file.write(self._closing(key).encode())
                    file.flush()
                    os.fsync(file.fileno())

    def begin(self, key: str) -> None:
        """The key has a file, if an empty one."""
        if key not in self._files:
            path = self._path(key)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._files[key] = self._stack.enter_context(path.open("wb"))
            self._files[key].write(self._opening.encode())

    def add(self, key: str, row: str | Mapping[str, Any]) -> None:
        """Write a row, canonical JSON unless it is text already, into the key's file."""
        self.begin(key)
        between = self._between if key in self._begun else ""
        self._begun.add(key)
        text = row if isinstance(row, str) else canonical_json(row)
        self._files[key].write((between + text).encode())


def lines(path: Callable[[str], Path]) -> Rows:
    """Rows as JSON lines."""
    return Rows(path, opening="", between="\n", closing=lambda _: "\n")


class PickledList:
    """A list of rows as one pickle of protocol 2, of which no row is kept. Used in a `with` block.

    Without a memo, so that equal rows are equal bytes, whichever of their texts are the same object.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(path, "wb")  # noqa: SIM115 -- closed by __exit__

    def __enter__(self) -> "PickledList":
        self._file.write(pickle.PROTO + b"\x02" + pickle.EMPTY_LIST + pickle.MARK)
        return self

    def __exit__(self, *_: object) -> None:
        with self._file:
            self._file.write(pickle.APPENDS + pickle.STOP)
            self._file.flush()
            os.fsync(self._file.fileno())

    def add(self, row: Mapping[str, Any]) -> None:
        """Write a row: dicts, lists, text and numbers."""
        buffer = io.BytesIO()
        pickler = pickle.Pickler(buffer, 2)
        pickler.fast = True
        pickler.dump(row)
        self._file.write(buffer.getvalue()[2:-1])  # without the protocol's mark and the end


class Job:
    """What a writer has: the folder to write into, what was wished, the images, and the tally to keep."""

    def __init__(self, carrier: Carrier, wishes: Wishes, tally: Tally) -> None:
        self.carrier, self.wishes, self.tally = carrier, wishes, tally
        self.folder = carrier.folder
        self.numbers = Numbers()

    def image_number(self, picture: Picture) -> int:
        """The same in every split and every export."""
        return self.numbers.of("image", picture.image)

    def item_number(self, id: str) -> int:
        """Of a pair, and with that of its mask, its ref and its sentence."""
        return self.numbers.of("item", id)
