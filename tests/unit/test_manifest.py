import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ppt
from ppt.manifest import Manifest, difference

MANIFEST = Manifest(
    "points", 1, {"points": {"method": "peak", "most": 3}}, {"relevance": "aa"}, {"clip": "bb"}, 0
)


def test_a_manifest_survives_json_and_knows_the_code():
    back = Manifest.from_json(json.loads(json.dumps(MANIFEST.to_json())))
    assert back == MANIFEST
    assert back.fingerprint == MANIFEST.fingerprint
    assert back.code_version == ppt.__version__


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"config": {"points": {"method": "read", "most": 3}}}, "points.method: 'peak' -> 'read'"),
        ({"config": {"points": {"method": "peak"}}}, "points.most: 3 -> absent"),
        ({"inputs": {"relevance": "cc"}}, "inputs.relevance: 'aa' -> 'cc'"),
        ({"weights": {"clip": "bb", "sam": "dd"}}, "weights.sam: absent -> 'dd'"),
        ({"stage": "masks"}, "stage: 'points' -> 'masks'"),
        ({"schema_version": 2}, "schema_version: 1 -> 2"),
        ({"seed": 5}, "seed: 0 -> 5"),
        ({"code_version": "9"}, f"code_version: '{ppt.__version__}' -> '9'"),
    ],
)
def test_every_field_counts_and_its_change_is_told(change: dict[str, Any], line: str):
    changed = replace(MANIFEST, **change)
    assert changed.fingerprint != MANIFEST.fingerprint
    assert difference(MANIFEST, changed) == [line]


@given(
    old=st.dictionaries(st.sampled_from("abc"), st.integers(0, 2)),
    new=st.dictionaries(st.sampled_from("abc"), st.integers(0, 2)),
)
def test_no_difference_means_the_same_fingerprint(old: dict[str, int], new: dict[str, int]):
    a, b = (replace(MANIFEST, config={"points": values}) for values in (old, new))
    assert (difference(a, b) == []) == (a.fingerprint == b.fingerprint)
    assert len(difference(a, b)) == len(difference(b, a))
