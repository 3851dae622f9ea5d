"""Pickles as data: what is read, what is refused, and that nothing in one is ever run."""

import os
import pickle
import pickletools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppt.records import plain_pickle
from ppt.records.plain_pickle import PickleError

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


class Runs:
    """A pickle of this one calls os.system."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def written(tmp_path, content):
    path = tmp_path / "refs(unc).p"
    path.write_bytes(content)
    return path


@given(value=PLAIN, protocol=st.integers(0, 5))
def test_plain_data_come_back_by_every_protocol(value, protocol, tmp_path_factory):
    path = written(tmp_path_factory.mktemp("p"), pickle.dumps(value, protocol))
    assert plain_pickle.load(path) == value


def test_text_of_python_2_is_utf_8(tmp_path):
    two = b"(dp0\nS'sent'\np1\nS'caf\\xc3\\xa9'\np2\ns."  # {'sent': 'caf\xc3\xa9'}, protocol 0
    assert plain_pickle.load(written(tmp_path, two)) == {"sent": "café"}


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_calls_is_refused_and_calls_nothing(tmp_path, protocol):
    content = pickle.dumps([{"ref_id": 1}, Runs(f"touch {tmp_path / 'ran'}")], protocol)
    with pytest.raises(PickleError, match=r"it holds (GLOBAL \w+ system|STACK_GLOBAL);"):
        plain_pickle.load(written(tmp_path, content))
    assert not (tmp_path / "ran").exists()


def test_the_unpickler_itself_admits_no_global(tmp_path, monkeypatch):
    monkeypatch.setattr(plain_pickle, "_look_through", lambda content: None)
    path = written(tmp_path, pickle.dumps(Runs(f"touch {tmp_path / 'ran'}")))
    with pytest.raises(PickleError, match=r"asks for posix\.system"):
        plain_pickle.load(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "no pickle"),
        (b"\x80\x02]q\x00(K\x01", "no pickle"),
        (b"\xffhello", "no pickle"),
        (b"\x80\x02]r" + struct.pack("<I", 2**31) + b".", "stores at place 2147483648"),
        (b"\x80\x02\x8b" + struct.pack("<i", 400) + b"\x7f" * 400 + b".", "a number of 404 bytes"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "STACK_GLOBAL"),
        (b"\x80\x02X" + struct.pack("<I", 2**32 - 1) + b"a.", "no pickle"),
        (b"]pxyz\n.", "stores at place b'xyz', which is none"),
        (b"]p" + b"9" * 5000 + b"\n.", "which is none"),
        (pickle.dumps({1, 2}, 4), "EMPTY_SET"),
        (pickle.dumps({"box": (1, 2)}), "TUPLE2"),
        (b"\x80\x02})" + b"2\x86" * 60 + b"Ns.", "EMPTY_TUPLE"),  # 2^60 tuples to hash, as a key
        (b"\x80\x02}(t" + b"\x85" * 3_000_000 + b"Ns.", "TUPLE"),  # as deep as no stack is
        (pickle.dumps(1 + 2j), "GLOBAL"),
    ],
)
def test_what_is_no_plain_data_is_refused(tmp_path, content, told):
    with pytest.raises(PickleError, match=told):
        plain_pickle.load(written(tmp_path, content))


def test_depth_size_and_values_met_again_are_capped(tmp_path, monkeypatch):
    deep = []
    for _ in range(40):
        deep = [deep]
    with pytest.raises(PickleError, match="nested more than 16 deep"):
        plain_pickle.load(written(tmp_path, pickle.dumps(deep)))
    many = ["ha"]
    for _ in range(8):
        many = [many] * 10  # 10^8 values in a few hundred bytes
    monkeypatch.setattr(plain_pickle, "MAX_VALUES", 10_000)
    with pytest.raises(PickleError, match="more than 10000 values"):
        plain_pickle.load(written(tmp_path, pickle.dumps(many)))
    monkeypatch.setattr(plain_pickle, "MAX_BYTES", 100)
    with pytest.raises(PickleError, match="at most 100 are read"):
        plain_pickle.load(written(tmp_path, pickle.dumps(["x" * 200])))


def test_every_opcode_that_calls_or_reaches_out_is_known():
    calling = {"GLOBAL", "REDUCE", "BUILD", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "STACK_GLOBAL"}
    reaching = {code.name for code in pickletools.opcodes if "EXT" in code.name or "PERSID" in code.name}
    assert calling | reaching - {"EXTEND", "NEXT_BUFFER"} <= plain_pickle._CALLS
