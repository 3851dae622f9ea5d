"""`ppt` as a person calls it, in this process, with the stand-in models."""

from collections.abc import Callable
from pathlib import Path

import pytest
from fixtures.pictures import read_rows, write_rows
from fixtures.processes import Ended, called


@pytest.fixture
def ppt(models, monkeypatch, capsys, tmp_path) -> Callable[..., Ended]:
    """Call with the arguments of a command: its exit code, and all that it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PPT_TRACEBACK", raising=False)

    def call(*arguments: object) -> Ended:
        return Ended(called(monkeypatch, arguments), "".join(capsys.readouterr()))

    return call


@pytest.fixture
def whole(pictures) -> list[object]:
    """The arguments of a run over all pictures, two a shard, but for the name of the output folder."""
    files = ["--pairs", pictures / "pairs.jsonl", "--truth", pictures / "truth.jsonl"]
    small = ["--set", "shard_size=2", "--set", "relevance.redundancy=none"]
    return ["run", "custom", *files, *small, "--output"]


@pytest.fixture
def all_train(pictures) -> Path:
    """Every pair may teach."""
    pairs = read_rows(pictures / "pairs.jsonl")
    write_rows(pictures / "pairs.jsonl", [{**row, "split": "train"} for row in pairs])
    return pictures
