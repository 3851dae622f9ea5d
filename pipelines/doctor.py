"""Is this machine fit to run? Versions, devices, the torch / torchvision pair, weights, disk; and how to mend
it.
"""

import importlib
import importlib.metadata as metadata
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from ppt.backbones.published import PUBLISHED
from ppt.backbones.weights import ENVIRONMENT_FOLDER, WeightsError, embedded, folders, locate, resolve
from ppt.places import Place, Remote, RemoteError

PACKAGES = (
    "torch",
    "torchvision",
    "open_clip_torch",
    "segment-anything",
    "numpy",
    "opencv-python",
    "pycocotools",
)
LEAST_FREE = 2 * 10**9


@dataclass(frozen=True)
class Finding:
    """One line of the examination; `remedy` is what to do when it is not well."""

    well: bool
    what: str
    remedy: str = ""


def examine(output: Place) -> Iterator[Finding]:
    """Every finding in turn; nothing is loaded onto a device and nothing is written."""
    python = platform.python_version()
    yield Finding(sys.version_info >= (3, 11), f"python {python}", "install Python 3.11 or newer")
    for package in PACKAGES:
        try:
            yield Finding(True, f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            yield Finding(False, f"{package} is not installed", "pip install -e .")
    yield from _torch()
    for kind in ("clip", "sam"):
        try:
            path, sha256 = resolve(embedded(kind))
            yield Finding(True, f"embedded {kind} weights {path.name}, sha256 {sha256[:12]}")
        except WeightsError as error:
            yield Finding(False, f"embedded {kind} weights", str(error))
    for name, one in PUBLISHED.items():
        found = locate(one.checkpoint)
        if found:
            yield Finding(True, f"weights {name}: {found}")
    looked = f"{', '.join(map(str, folders()))} (${ENVIRONMENT_FOLDER} first) and other programs' caches"
    yield Finding(True, f"weights are looked for in {looked}; `ppt weights list` names them")
    if isinstance(output, Remote):
        yield _reached(output)
        return
    folder = next(p for p in (output.resolve(), *output.resolve().parents) if p.exists())
    free = shutil.disk_usage(folder).free
    remedy = f"free some space, or choose another --output; {LEAST_FREE / 1e9:.0f} GB is a sensible least"
    yield Finding(free >= LEAST_FREE, f"{free / 1e9:.1f} GB free at {folder}", remedy)


def _reached(output: Remote) -> Finding:
    try:
        found = "holds something" if output.exists() else "holds nothing yet"
    except (OSError, RemoteError) as error:
        return Finding(False, f"{output} cannot be looked at", str(error))
    return Finding(True, f"{output} {found}")


def _torch() -> Iterator[Finding]:
    """Whether torch and torchvision belong together, and what they can run on."""
    try:
        torch = importlib.import_module("torch")
    except ImportError as error:
        yield Finding(False, f"torch does not import: {error}", "pip install -e . in a fresh environment")
        return
    try:
        importlib.import_module("torchvision")
        yield Finding(True, "torch and torchvision are a matching pair")
    except (ImportError, RuntimeError) as error:
        remedy = (
            "they are of different builds (a CPU-only torch beside a CUDA torchvision, most often): "
            "pip uninstall torch torchvision, then pip install -e . so that both come from one index"
        )
        yield Finding(False, f"torchvision does not import beside torch {torch.__version__}: {error}", remedy)
    cuda = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    yield Finding(True, f"devices: cpu ({torch.get_num_threads()} threads){', '.join(['', *cuda])}")
