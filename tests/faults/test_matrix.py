"""The table in README.md, held to the tests there are."""

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent
TESTS = HERE.parent
ROOT = TESTS.parent
ROWS = range(1, 55)


def table():
    """Row -> (tests that are named, result)."""
    lines = (HERE / "README.md").read_text(encoding="utf-8").splitlines()
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in lines if re.match(r"\| \d", line)
    ]
    return {int(number): (named(tests), result) for number, _, _, tests, result in cells}


def named(text):
    return re.findall(r"`(test_\w+\.py::test_\w+)`", text)


def known():
    """Every test of the suite as "file.py::name"."""
    for path in TESTS.rglob("test_*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef):
                yield f"{path.name}::{node.name}"


def test_every_row_is_there_once_and_has_tests():
    found = table()
    assert [*found] == [*ROWS]
    assert {result for _, result in found.values()} == {"proven"}
    assert all(tests for tests, _ in found.values())


def test_every_test_that_is_named_exists_and_is_named_once_a_row():
    tests = named((HERE / "README.md").read_text(encoding="utf-8"))
    assert len(tests) > 150
    assert sorted(set(tests) - set(known())) == []
    for number, (own, _) in table().items():
        assert len(set(own)) == len(own), number


def test_no_module_writes_a_table_that_a_spreadsheet_would_compute():
    """`csv` is used to read pairs alone; nothing ends in .csv or .tsv but what is read."""
    writers = set()
    for path in [*ROOT.glob("ppt/**/*.py"), *ROOT.glob("pipelines/**/*.py")]:
        text = path.read_text(encoding="utf-8")
        if re.search(r"csv\.(writer|DictWriter)|to_csv|text/csv|\.tsv", text):
            writers.add(path.name)
    scripts = [path for path in ROOT.glob("ppt/report/templates/*") if "text/csv" in path.read_text()]
    assert (writers, scripts) == (set(), [])
