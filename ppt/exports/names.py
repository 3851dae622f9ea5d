"""Names and numbers made of what users call things: safe on any disk, never twice the same, and the same in
every export.
"""

import hashlib
import re
import unicodedata

MOST = 48
"""Letters of the user's own name that a file's name keeps."""
UNSPLIT = "train"
"""The split of what has none: such pairs teach."""
_SPLIT = re.compile(
    r"(?!test[abc]+$|con$|prn$|aux$|nul$)[a-z][a-z0-9_]{0,39}(?<!com\d)(?<!lpt\d)|test[A-C]{1,2}"
)
_NUMBERS = 2**52


def safe(name: str) -> str:
    """A file's name, without ending, for an id or a path: at most 65 of A-Z a-z 0-9 _ and one hyphen.

    Two names differ wherever their originals do, by more than case: 64 bits of sha256 stand at the end.
    """
    return f"{_plain(name)}-{_digest(name)[:16]}"


def split(name: str) -> str:
    """The name of a split as every format takes it: letters, digits, underscores; `UNSPLIT` for ""."""
    if not name:
        return UNSPLIT
    return name if _SPLIT.fullmatch(name) else f"{_plain(name).lower()}_{_digest(name)[:8]}"


def share(sha256: str) -> float:
    """Where in [0, 1) an image's content falls, alike for all time; by this it is given its split."""
    return int(_digest(f"split\0{sha256}")[:13], 16) / _NUMBERS


class Numbers:
    """Whole numbers for names, 1 to 2**52, which JavaScript and double precision hold exactly.

    A name's number follows from the name alone, so that exports of one run agree on it, whatever was left
    out; were two to meet, which may be expected once in a million runs of 100,000, the later takes another.
    """

    def __init__(self) -> None:
        self._names: dict[int, str] = {}

    def of(self, kind: str, name: str) -> int:
        """The number of a thing, by what kind of thing it is and its name."""
        key = f"{kind}\0{name}"
        number, again = _number(key), 0
        while self._names.setdefault(number, key) != key:
            again += 1
            number = _number(f"{key}\0{again}")
        return number


def _number(key: str) -> int:
    return 1 + int(_digest(key)[:13], 16)


def _plain(name: str) -> str:
    letters = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    stem = re.sub(r"\.[A-Za-z0-9]{2,4}$", "", letters.replace("\\", "/").rsplit("/", 1)[-1])
    return re.sub(r"[^A-Za-z0-9]+", "_", stem).strip("_")[:MOST] or "x"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
