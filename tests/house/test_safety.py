"""What no module may do: run text, call a shell, read a pickle as Python does, open a connection."""

import ast
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*ROOT.glob("ppt/**/*.py"), *ROOT.glob("pipelines/**/*.py")])
RUN_TEXT = {"eval", "exec", "compile", "__import__"}
SHELLS = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "pty.spawn"}
FETCHES = {"torch.hub.load", "torch.hub.load_state_dict_from_url", "torch.hub.download_url_to_file"}
UNPACKS = {"extract", "extractall", "unpack_archive"}
PICKLES = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
MAY_NAME_PICKLES = {
    "ppt/records/plain_pickle.py",  # reads them as data: nothing in one is called
    "ppt/backbones/torchscript.py",  # knows a few names of torch alone
    "ppt/backbones/weights.py",  # the name of an error
    "ppt/exports/streams.py",  # writes REFER's
}
SPEAKERS = {
    "socket", "socketserver", "http", "urllib.request", "ftplib", "smtplib", "telnetlib", "xmlrpc",
    "requests", "httpx", "aiohttp", "urllib3", "websockets", "huggingface_hub", "wget", "gdown",
    "fsspec", "ray",
}  # fmt: skip
MAY_SPEAK = {
    "ppt/backbones/fetch.py",
    "ppt/report/server.py",
    "ppt/places.py",  # with the store of a URL that was given
    "ppt/ray_actors.py",
    "ppt/ray_training.py",
    "ppt/locks.py",  # the name of this machine
}


def name(path):
    return path.relative_to(ROOT).as_posix()


def dotted(node):
    """ "os.path.join" for what is so called; "" for what is no plain name."""
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr}" if before else ""
    return node.id if isinstance(node, ast.Name) else ""


def imported(tree):
    """Every module that is imported, and what is taken out of one, as "module.name"."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def among(modules, known):
    return {one for one in modules if any(one == other or one.startswith(f"{other}.") for other in known)}


def faults(text):
    """What a module does that none may."""
    tree = ast.parse(text)
    modules = set(imported(tree))
    yield from among(modules, SHELLS | FETCHES)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = dotted(node.func)
        options = {one.arg: one.value for one in node.keywords}
        if called in RUN_TEXT | SHELLS | FETCHES or called.rpartition(".")[2] in UNPACKS:
            yield f"{called}()"
        if "shell" in options and getattr(options["shell"], "value", True) is not False:
            yield f"{called}(shell=...)"
        if called == "torch.load" and getattr(options.get("weights_only"), "value", None) is not True:
            yield "torch.load() without weights_only=True"
        if called in ("yaml.load", "yaml.unsafe_load", "yaml.full_load") and (
            called != "yaml.load" or dotted(node.args[1] if len(node.args) > 1 else node) != "_Loader"
        ):
            yield f"{called}() without the safe loader"


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_nothing_runs_text_calls_a_shell_or_unpacks(path):
    assert [*faults(path.read_text(encoding="utf-8"))] == []


def test_pickles_and_connections_are_where_we_think_they_are():
    modules = {name(path): set(imported(ast.parse(path.read_text(encoding="utf-8")))) for path in SOURCES}
    assert {path for path, found in modules.items() if among(found, PICKLES)} == MAY_NAME_PICKLES
    assert {path for path, found in modules.items() if among(found, SPEAKERS)} == MAY_SPEAK


def test_no_module_hands_batches_to_processes():
    """No DataLoader whose workers may die, and no shared memory that may be full: row 44 of tests/faults."""
    named = {"DataLoader", "shared_memory", "SharedMemory"}
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        words = {one.attr for one in ast.walk(tree) if isinstance(one, ast.Attribute)}
        words |= {one.id for one in ast.walk(tree) if isinstance(one, ast.Name)}
        words |= {word for one in imported(tree) for word in one.split(".")}
        assert not words & named, name(path)


@pytest.mark.parametrize(
    "text",
    [
        "eval(x)", "exec('a')", "import os\nos.system('ls')", "from os import system",
        "import subprocess\nsubprocess.run('ls', shell=True)", "import torch\ntorch.load(p)",
        "import torch\ntorch.load(p, weights_only=False)", "import torch\ntorch.hub.load('a', 'b')",
        "tar.extractall()", "import yaml\nyaml.load(x, yaml.Loader)", "import yaml\nyaml.load(x)",
        "import yaml\nyaml.unsafe_load(x)",
    ],
)  # fmt: skip
def test_what_none_may_do_is_seen(text):
    assert len([*faults(text)]) == 1


def test_what_all_may_do_is_not():
    loads = "import torch, yaml\ntorch.load(p, weights_only=True)\nyaml.load(t, _Loader)"
    assert [*faults(f"{loads}\nmodel.eval()\nre.compile('a')")] == []


def test_the_lock_names_a_version_within_bounds_of_whatever_the_tests_need():
    lines = (ROOT / ".ci" / "constraints.txt").read_text(encoding="utf-8").splitlines()
    locked = dict(line.split("==") for line in lines if not line.startswith("#"))
    locked = {canonicalize_name(package): version for package, version in locked.items()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [Requirement(one) for one in project["dependencies"] + project["optional-dependencies"]["dev"]]
    assert len(asked) > 20
    for one in asked:
        assert one.specifier.contains(locked[canonicalize_name(one.name)]), str(one)
        assert any("<" in bound.operator or "==" in bound.operator for bound in one.specifier), (
            f"{one}: no end"
        )
