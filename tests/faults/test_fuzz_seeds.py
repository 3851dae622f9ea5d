"""What the fuzzers begin with, what they have found, and what hypothesis makes of it: a quick look by every
target. `tests/fuzz/run.py` looks longer.
"""

import pytest
from fuzz.targets import TARGETS, seeds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

LOOKS = {"picture": 100, "config": 60}


@pytest.mark.parametrize("name", TARGETS)
def test_no_seed_is_a_finding(name):
    found = seeds(name)
    assert len(found) >= 4
    for path in found:
        TARGETS[name](path.read_bytes())


@st.composite
def mutated(draw, name):
    """A seed with some of its bytes taken out, put in or changed, or cut short."""
    data = bytearray(draw(st.sampled_from(seeds(name))).read_bytes())
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(("out", "in", "changed", "cut", "again"))):
            case "out":
                del data[at : at + draw(st.integers(1, 9))]
            case "in":
                data[at:at] = draw(st.binary(max_size=9))
            case "changed" if at < len(data):
                data[at] = draw(st.integers(0, 255))
            case "cut" if at > len(data) // 2:
                del data[at:]
            case "again":
                data[at:at] = data[at : at + draw(st.integers(1, 99))]
    return bytes(data)


@pytest.mark.parametrize("name", TARGETS)
def test_what_becomes_of_a_seed_is_read_or_refused(name):
    @settings(max_examples=LOOKS.get(name, 150), deadline=None, suppress_health_check=list(HealthCheck))
    @given(data=mutated(name))
    def looked(data):
        TARGETS[name](data)

    looked()
