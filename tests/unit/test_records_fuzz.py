"""Published layouts with anything in place of anything: a row may be refused, or the file; nothing else."""

import copy
import json
from collections.abc import Iterator

import pytest
from fixtures import datasets
from fixtures.pictures import HEIGHT, WIDTH
from hypothesis import HealthCheck, given
from hypothesis import settings as how
from hypothesis import strategies as st

from ppt.config import ConfigError
from ppt.records import pairs
from ppt.records import truth as truths
from ppt.records.pairs import PairsError
from ppt.records.sources import READERS
from ppt.settings import RecordsConfig, SourceConfig

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**40) | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)


def places(value, path=()) -> Iterator[tuple]:
    """Where in a JSON something stands."""
    yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in inside:
        yield from places(inner, (*path, key))


def with_one_replaced(value, path, other):
    if not path:
        return other
    changed = copy.deepcopy(value)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = other
    return changed


def refs(folder):
    own = datasets.refer(folder)
    (own / "refs(unc).p").unlink()
    (own / "refs(unc).json").write_text(json.dumps(datasets.REFS))
    return own


def karpathy(folder):
    (folder / "flickr30k-images").mkdir(parents=True)
    rows = [{"filename": "1.jpg", "split": "train", "sentences": [{"raw": "A red disc.", "sentid": 4}]}]
    (folder / "dataset.json").write_text(json.dumps({"images": rows}))
    return folder / "dataset.json"


LAYOUTS = {
    "refer": (refs, ("refs(unc).json", "instances.json")),
    "cris": (datasets.cris, ("val.json",)),
    "phrasecut": (datasets.phrasecut, ("refer_val.json", "image_data_split3000.json")),
    "coco_captions": (datasets.captions, ("",)),
    "flickr30k": (karpathy, ("",)),
}


@pytest.fixture(
    scope="module", params=[(name, file) for name, (_, files) in LAYOUTS.items() for file in files]
)
def layout(request, tmp_path_factory):
    """(format, its path, the file of it that is changed, what that holds)."""
    name, file = request.param
    path = LAYOUTS[name][0](tmp_path_factory.mktemp(name) / "set")
    changed = path / file if file else path
    return name, path, changed, json.loads(changed.read_text())


@how(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_whatever_stands_anywhere_a_row_is_refused_or_the_file(layout, data):
    name, path, changed, content = layout
    where = data.draw(st.sampled_from(sorted(places(content), key=repr)))
    changed.write_text(json.dumps(with_one_replaced(content, where, data.draw(ANYTHING))))
    source = SourceConfig(format=name, path=path)
    try:
        found = READERS[name](source, RecordsConfig())
    except (PairsError, ConfigError):
        return
    rows = pairs.checked(found.pairs)
    sizes = {row.id: (HEIGHT, WIDTH) for row in rows if row.pair is not None}
    true, refused = truths.checked(found.truth, sizes)
    assert {one.id for one in true} <= sizes.keys()
    assert all(
        one.error in ("bad_mask", "bad_ref", "bad_value", "unknown_id", "duplicate_id") for one in refused
    )
