"""`ppt` as the tests of the command line call it: in this process, with the stand-in models; and what
stages read and leave.
"""

from dataclasses import dataclass

import pytest
from fixtures.pictures import read_rows, write_rows
from fixtures.processes import called


@dataclass(frozen=True)
class Said:
    """What a command printed and the code it left with."""

    code: int
    out: str
    err: str


@pytest.fixture
def command(models, monkeypatch, capsys, tmp_path):
    """`ppt` with the stand-in models, in this process, from a folder of its own."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def call(*arguments):
        return Said(called(monkeypatch, arguments), *capsys.readouterr())

    return call


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    """A dry run measures no longer than it must."""
    monkeypatch.setattr("ppt.backbones.cost.MEASURED", 0.0)


@pytest.fixture
def whole(pictures, tmp_path):
    """The arguments of a run over all pictures, with truth."""
    files = ("--pairs", pictures / "pairs.jsonl", "--truth", pictures / "truth.jsonl")
    return ("run", "custom", *files, "--output", tmp_path / "out")


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def all_train(pictures):
    """Every pair may teach."""
    pairs = read_rows(pictures / "pairs.jsonl")
    write_rows(pictures / "pairs.jsonl", [{**row, "split": "train"} for row in pairs])
    return pictures
