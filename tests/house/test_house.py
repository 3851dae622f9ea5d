"""The rules of the house, held by machine: arrows, doors, the locked room, sizes, names, and the checkers."""

import ast
import json
import re
import shutil
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from fixtures.processes import ENVIRONMENT, Forks, snapshot

from ppt.config import load_config

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*ROOT.glob("ppt/**/*.py"), *ROOT.glob("pipelines/**/*.py")])
CONFIGS = sorted(ROOT.glob("configs/*.yaml"))  # in configs/cluster are files for schedulers
LONGEST = 350
DOORS = ("open_clip", "segment_anything")
BEHIND_THE_DOORS = ("ppt/backbones/", "pipelines/foundation/", "pipelines/benchmark/")
MAY_KNOW_TRUTH = (
    "ppt/types.py",  # the noun
    "ppt/settings.py",  # the key that names the file
    "ppt/records/",  # the reader of the user's file
    "ppt/metrics/",
    "ppt/report/",  # its optional comparison
    "pipelines/s0_records.py",  # locks it away
    "pipelines/s6_activation.py",
    "pipelines/s6_evaluate.py",
    "pipelines/s6_samples.py",
    "pipelines/run.py",
    "pipelines/cli.py",
    "pipelines/options.py",
    "pipelines/data.py",
    "pipelines/plan.py",
    "pipelines/slurm.py",
    "pipelines/benchmark/",
    "pipelines/foundation/data.py",  # makes the demo's
)
TRAINING_STAGES = ("relevance", "masks", "labels")


def name(path):
    return path.relative_to(ROOT).as_posix()


def module(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def run(*command, cwd=ROOT):
    return subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, check=False)


def imported(tree):
    """The top-level package of every import in a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


# --- importing


IMPORTS_QUIETLY = """
import json, logging, os, random, sys, warnings

def state():
    known = logging.root.manager.loggerDict.items()
    loggers = {name: (one.level, len(one.handlers)) for name, one in known if hasattr(one, "level")}
    root = (logging.root.level, len(logging.root.handlers))
    return [loggers, root, list(warnings.filters), dict(os.environ), random.getstate(), os.getcwd()]

before = state()
import ppt
print(json.dumps([state() == before, sorted({"torch", "numpy", "cv2", "open_clip"} & set(sys.modules))]))
"""
KEEPS_TORCH = """
import json, torch

def state():
    b = torch.backends
    flags = [b.cudnn.benchmark, b.cudnn.deterministic, b.cuda.matmul.allow_tf32, b.cudnn.allow_tf32]
    modes = [torch.get_num_threads(), str(torch.get_default_dtype()), torch.is_grad_enabled()]
    modes.append(torch.are_deterministic_algorithms_enabled())
    return [*flags, *modes, torch.initial_seed(), torch.get_rng_state().tolist()]

before = state()
import ppt.backbones.clip, ppt.backbones.sam, pipelines.run
print(json.dumps(state() == before))
"""


def test_importing_ppt_changes_nothing_and_brings_no_heavy_package():
    ended = run(sys.executable, "-W", "error", "-c", IMPORTS_QUIETLY)
    assert ended.stderr == ""
    assert json.loads(ended.stdout) == [True, []]


def test_importing_the_doors_leaves_torch_as_it_was():
    ended = run(sys.executable, "-c", KEEPS_TORCH)
    assert (ended.stdout, ended.stderr) == ("true\n", "")


def test_every_module_can_be_imported_first():
    """None needs, while it is imported, one that needs it: whichever is entered first, there is no circle."""
    known = {module(path): path for path in SOURCES if path.name != "__main__.py"}
    assert len(known) > 40
    needs = {one: {*needed(one, path, known)} for one, path in known.items()}
    assert needs["pipelines.stage"] > {"ppt.store", "ppt.records.images"}
    TopologicalSorter(needs).prepare()  # raises CycleError


def test_a_circle_of_imports_is_seen():
    with pytest.raises(CycleError):
        TopologicalSorter({"a": {"b"}, "b": {"c"}, "c": {"a"}}).prepare()


def needed(own, path, known):
    """The modules that this one imports as it is entered, not within a function; of packages those named."""
    body = [n for n in ast.parse(path.read_text()).body if isinstance(n, (ast.Import, ast.ImportFrom))]
    for node in body:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            below = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in known else node.module for name in below]
        yield from (name for name in names if name in known and name != own)


# --- doors, sizes, names


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_a_file_stays_short_and_keeps_to_its_side_of_the_doors(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGEST
    if not name(path).startswith(BEHIND_THE_DOORS):
        assert not set(DOORS) & set(imported(ast.parse(text)))


def test_the_doors_are_where_we_think_they_are():
    inside = {path for path in SOURCES if set(DOORS) & set(imported(ast.parse(path.read_text())))}
    assert {"ppt/backbones/clip.py", "ppt/backbones/sam.py"} <= {name(path) for path in inside}


def test_two_modules_know_ray_and_only_when_they_are_asked():
    knowing = {path for path in SOURCES if "ray" in imported(ast.parse(path.read_text()))}
    assert {name(path) for path in knowing} == {"ppt/ray_actors.py", "ppt/ray_training.py"}
    for path in knowing:
        top = [node for node in ast.parse(path.read_text()).body if not hasattr(node, "body")]
        assert "ray" not in imported(ast.Module(body=top, type_ignores=[]))


def test_no_module_is_a_drawer_for_odds_and_ends():
    assert not {path.stem for path in SOURCES} & {"utils", "util", "common", "helpers", "misc"}


@pytest.mark.parametrize("path", CONFIGS, ids=name)
def test_every_config_loads(path, monkeypatch):
    monkeypatch.setenv("PPT_DATA", "/data")
    config = load_config(path)
    assert config.records.pairs is None, "a config names no place on someone's machine"
    assert all(source.path.is_relative_to("/data") for source in config.records.sources)


def test_the_configs_of_the_contract_are_there():
    assert {"demo", "cutouts", "custom"} <= {path.stem for path in CONFIGS}


# --- README


def tree_paths(text):
    """The paths of every tree in code blocks that begins with a known folder, by indentation."""
    for block in re.findall(r"```[a-z]*\n(.*?)```", text, re.DOTALL):
        lines = [line for line in block.splitlines() if re.match(r"\s*[\w./-]+(\s{2,}|$)", line)]
        if any(re.match(r"\s*(ppt|pipelines)/(\s|$)", line) for line in lines):
            yield from _walk_tree(lines)


def _walk_tree(lines):
    above = []  # (indent, folder)
    for line in lines:
        indent = len(line) - len(line.lstrip())
        above = [entry for entry in above if entry[0] < indent]
        for word in _leading_names(line):
            path = "/".join([*(folder.rstrip("/") for _, folder in above), word])
            yield path
            if word.endswith("/"):
                above.append((indent, word))


def _leading_names(line):
    """The names that begin a line of a tree: "a.py  b.py  what they are" -> a.py, b.py."""
    for word in line.split():
        if not re.fullmatch(r"[\w.-]+(/[\w.-]+)*/?", word) or not ("/" in word or "." in word.strip(".")):
            return
        if word.endswith("."):
            return
        yield word


def quoted_paths(text):
    """Paths in backticks that begin with one of our folders."""
    for quoted in re.findall(r"`([^`\n]+)`", text):
        for word in quoted.split():
            if re.fullmatch(r"(ppt|pipelines|configs|tests)/[\w./-]*", word):
                yield word


def test_every_path_that_the_readme_names_exists():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    paths = [*tree_paths(text), *quoted_paths(text)]
    missing = [path for path in paths if not (ROOT / path).exists() and not path.startswith("outputs/")]
    assert missing == []


def test_the_reader_of_trees_reads_them():
    text = """
```
README.md      this
ppt/           THE LIBRARY
  -- ground floor
  types.py     nouns
  records/     readers
    pairs.py   e.g. the pairs
  scenes.py  rle.py   two
configs/       one a run.
```
and `ppt/rle.py`, `ppt run configs/demo.yaml --output x`, `DIR/labels/labels.jsonl`.
"""
    inside = ["ppt/types.py", "ppt/records/", "ppt/records/pairs.py", "ppt/scenes.py", "ppt/rle.py"]
    assert [*tree_paths(text)] == ["README.md", "ppt/", *inside, "configs/"]
    assert [*quoted_paths(text)] == ["ppt/rle.py", "configs/demo.yaml"]


# --- the locked room


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_only_a_few_modules_know_of_truth(path):
    if name(path).startswith(MAY_KNOW_TRUTH):
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    names |= {
        alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    names |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    assert not {found for found in names if re.search(r"(^|_)truths?($|_)", found, re.IGNORECASE)}
    assert not [text for text in _strings(tree) if re.search(r"(^|/)truth(/|\.|$)", text)]


def _strings(tree):
    """Every string in a module but its docstrings."""
    owners = ast.Module | ast.ClassDef | ast.FunctionDef
    documented = [node for node in ast.walk(tree) if isinstance(node, owners) and ast.get_docstring(node)]
    docstrings = {id(node.body[0].value) for node in documented}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


def test_training_stages_are_the_same_without_the_truth(pictures, tmp_path):
    pairs = ["--pairs", pictures / "pairs.jsonl"]
    truth = ["--truth", pictures / "truth.jsonl"]
    log = tmp_path / "log"
    with Forks() as forks:
        forks.run(log, "run", "custom", *pairs, *truth, "--output", tmp_path / "open")
        assert forks.run(log, "records", "custom", *pairs, *truth, "--output", tmp_path / "shut").code == 0
        shutil.rmtree(tmp_path / "shut" / "truth")
        (pictures / "truth.jsonl").unlink()
        forks.run(log, "records", "custom", *pairs, "--output", tmp_path / "never")
        for stage in TRAINING_STAGES:
            for folder in ("shut", "never"):
                ended = forks.run(log, stage, "custom", "--output", tmp_path / folder)
                assert ended.code == 0, ended.printed
    for stage in TRAINING_STAGES:
        made = snapshot(tmp_path / "open" / stage)
        assert made == snapshot(tmp_path / "shut" / stage) == snapshot(tmp_path / "never" / stage)
        assert len(made) > 6


# --- the checkers, so that one command covers them


@pytest.mark.parametrize(
    "arguments",
    [
        ("-m", "ruff", "check", "."),
        ("-m", "ruff", "format", "--check", "."),
        ("-m", "pyright", "--pythonpath", sys.executable),
        ("-m", "bandit", "-q", "-c", "pyproject.toml", "-r", "ppt", "pipelines"),
        ("-c", "from importlinter.cli import lint_imports_command as lint; lint()", "--no-cache"),
    ],
    ids=["ruff", "format", "pyright", "bandit", "imports"],
)
def test_the_checkers_find_nothing(arguments):
    ended = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
