"""Shape checks are on in tests alone: jaxtyping's annotations are verified on every call into the library."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from jaxtyping import install_import_hook

if TYPE_CHECKING:
    from fixtures.models import FakeClip, FakeSam

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # two tests at a time, and threads that wait for each other: 10 x
MEMORY, ROOM = Path("/dev/shm"), 4 * 2**30
_hook = install_import_hook("ppt", "beartype.beartype")


def pytest_configure() -> None:
    """Temporary folders lie in memory where there is room: a flush costs nothing there, and no test cuts the
    power for real.
    """
    if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


@dataclass(frozen=True)
class Models:
    """The stand-ins that the stages were given, to be asked how often they were called."""

    clip: "FakeClip"
    sam: "FakeSam"


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> Models:
    """The stages find `fixtures.models` behind the doors instead of CLIP and SAM."""
    from fixtures.models import FakeClip, FakeSam

    from pipelines import doors

    found = Models(FakeClip(), FakeSam())
    monkeypatch.setattr(doors, "load_clip", lambda *_: found.clip)
    monkeypatch.setattr(doors, "load_sam", lambda *_: found.sam)
    return found


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of small pictures with pairs.jsonl and truth.jsonl, as `fixtures.pictures` describes."""
    from fixtures.pictures import make_pictures

    return make_pictures(tmp_path / "pictures")
