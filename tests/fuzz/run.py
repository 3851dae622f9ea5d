"""One target under atheris (`pip install -e ".[fuzz]"`), guided by what of our code and of its pure Python
libraries an input reaches:

    python tests/fuzz/run.py TARGET [FOLDER] [libFuzzer's options, e.g. -runs=1000000 -max_len=4096]

FOLDER keeps what was found to reach something new; the seeds of tests/fuzz/corpus are read beside it and left
as they are. The targets codec and picture end in native code (pycocotools, Pillow's decoders): a crash there
ends the process, which is a finding; libFuzzer leaves the input as crash-* in the current folder.
"""

import sys
import tempfile
from pathlib import Path

import atheris

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]
import numpy  # noqa: E402, F401 -- native and heavy: imported before anything is instrumented

with atheris.instrument_imports(include=["ppt", "yaml", "tarfile", "csv", "json", "PIL"]):
    from fuzz import targets

if __name__ == "__main__":
    name, *rest = sys.argv[1:]
    own = [word for word in rest if not word.startswith("-")] or [tempfile.mkdtemp(prefix=f"fuzz-{name}-")]
    options = [word for word in rest if word.startswith("-")]
    atheris.Setup([sys.argv[0], *options, *own, str(targets.CORPUS / name)], targets.TARGETS[name])
    atheris.Fuzz()
