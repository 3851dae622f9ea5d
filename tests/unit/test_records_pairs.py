"""PAIRS: what is read, what is refused by row and with which line, what is refused as a whole."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppt.records import pairs
from ppt.records.jsonlines import RowError
from ppt.records.pairs import PairsError, check_image_path, checked, derived_id, select
from ppt.types import Pair

GOOD = {"image": "a.jpg", "text": "left dog", "id": "1"}


def written(tmp_path, content, name="pairs.jsonl"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path):
    return checked(pairs.read(path))


def lines(*rows):
    return "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)


def test_json_lines_with_all_and_with_few_columns(tmp_path):
    full = {**GOOD, "split": "val", "source": "object_centric", "kind": "name", "box": [1, 2], "note": None}
    rows = read(written(tmp_path, lines(full, "", {"image": "b/c.png", "text": "the sky"})))
    assert [row.pair for row in rows] == [
        Pair("1", "a.jpg", "left dog", "val", "object_centric", "name"),
        Pair(derived_id("b/c.png", "the sky"), "b/c.png", "the sky"),
    ]
    assert [(row.where, row.split, row.kind) for row in rows] == [
        ("line 1", "val", "name"),
        ("line 3", "", ""),
    ]


def test_csv_reads_the_same_pairs_as_json_lines(tmp_path):
    table = 'id,text,image,split\n1,"a ""big"" dog,\nleft",a.jpg,val\n\n,the sky,b.jpg,\n'
    rows = read(written(tmp_path, table, "pairs.csv"))
    assert [row.pair for row in rows] == [
        Pair("1", "a.jpg", 'a "big" dog,\nleft', "val"),
        Pair(derived_id("b.jpg", "the sky"), "b.jpg", "the sky"),
    ]
    assert [row.where for row in rows] == ["line 2", "line 5"]


def test_spreadsheets_byte_order_mark_is_accepted_in_csv_and_crlf_in_both(tmp_path):
    table = b"\xef\xbb\xbfimage,text,id\r\na.jpg,left dog,1\r\n"
    assert read(written(tmp_path, table, "pairs.csv"))[0].pair == Pair(**GOOD)
    assert read(written(tmp_path, json.dumps(GOOD) + "\r\n"))[0].pair == Pair(**GOOD)


@pytest.mark.parametrize("content", [lines(GOOD), "image,text,id\na.jpg,left dog,1\n"])
def test_other_names_are_read_by_their_content(tmp_path, content):
    assert read(written(tmp_path, content, "pairs.txt"))[0].pair == Pair(**GOOD)


def test_ids_may_be_whole_numbers_and_the_sentence_is_kept_as_written(tmp_path):
    rows = read(written(tmp_path, lines({"image": "a.jpg", "text": " Cafe\u0301 \u2028 ", "id": 7})))
    assert rows[0].pair == Pair("7", "a.jpg", " Cafe\u0301 \u2028 ")


@pytest.mark.parametrize(
    ("row", "error", "told"),
    [
        ("{", "bad_json", "not JSON"),
        ("[1]", "bad_json", "got list"),
        ('{"image": "a.jpg", "image": "b.jpg", "text": "x"}', "duplicate_key", "'image'"),
        ('{"image": "a.jpg", "text": "x", "score": NaN}', "bad_json", "NaN"),
        ('{"image": "a.jpg", "text": "x", "score": -Infinity}', "bad_json", "-Infinity"),
        ("[" * 100_000, "bad_json", "nested"),
        ("\ufeff" + json.dumps(GOOD), "byte_order_mark", "plain UTF-8"),
        ({"image": "a.jpg"}, "bad_value", "text is missing"),
        ({**GOOD, "text": 3}, "bad_value", "text must be text, got 3"),
        ({**GOOD, "id": 1.5}, "bad_value", "1.5"),
        ({**GOOD, "id": True}, "bad_value", "True"),
        ({**GOOD, "id": " "}, "bad_value", "blank"),
        ({**GOOD, "source": "web"}, "bad_value", "'web'"),
        ({**GOOD, "split": ["val"]}, "bad_value", "split must be text"),
        ('{"image": "a.jpg", "text": "\\ud800 dog"}', "bad_value", "surrogate"),
        ({**GOOD, "text": ""}, "empty_text", "''"),
        ({**GOOD, "text": " \t\u00a0"}, "empty_text", "no word"),
        ({**GOOD, "text": "?!... --"}, "empty_text", "?!... --"),
        ({**GOOD, "image": "../a.jpg"}, "unsafe_path", "'..'"),
    ],
)
def test_a_bad_row_is_refused_with_its_line_and_the_rest_is_read(tmp_path, row, error, told):
    first, bad, last = read(written(tmp_path, lines({**GOOD, "id": "0"}, row, {**GOOD, "id": "2"})))
    assert first.pair is not None
    assert last.pair is not None
    assert (bad.pair, bad.error) == (None, error)
    assert bad.message.startswith("line 2: ")
    assert told in bad.message


def test_bytes_that_are_not_utf8_cost_one_row(tmp_path):
    content = lines(GOOD).encode() + b'{"image": "b.jpg", "text": "caf\xe9"}\n'
    assert [row.error for row in read(written(tmp_path, content))] == ["", "bad_utf8"]
    table = b"image,text\na.jpg,dog\nb.jpg,caf\xe9\n"
    rows = read(written(tmp_path, table, "pairs.csv"))
    assert [(row.error, row.where) for row in rows] == [("", "line 2"), ("bad_utf8", "line 3")]


@pytest.mark.parametrize("bad", ["a.jpg", "a.jpg,dog,1,2", 'a.jpg,"dog"x,1'])
def test_csv_rows_of_another_width_or_with_broken_quotes_are_refused(tmp_path, bad):
    rows = read(written(tmp_path, f"image,text,id\n{bad}\na.jpg,left dog,1\n", "pairs.csv"))
    assert [(row.error, row.where) for row in rows] == [("bad_csv", "line 2"), ("", "line 3")]


def test_of_two_rows_with_one_id_the_first_is_kept(tmp_path):
    rows = read(written(tmp_path, lines(GOOD, {**GOOD, "image": "b.jpg"}, {"image": "c.jpg", "text": "dog"})))
    assert [row.error for row in rows] == ["", "duplicate_id", ""]
    assert "line 2: id '1' is that of line 1" in rows[1].message


def test_a_refused_row_keeps_what_could_be_read(tmp_path):
    row = {**GOOD, "text": "...", "split": "val", "kind": "name"}
    (refused,) = read(written(tmp_path, lines(row)))
    assert (refused.id, refused.split, refused.source, refused.kind) == ("1", "val", "referring", "name")


@pytest.mark.parametrize(
    ("content", "name", "told"),
    [
        ("", "pairs.jsonl", "is empty"),
        (" \n\n", "pairs.csv", "is empty"),
        ("image,text\n", "pairs.jsonl", "not one line is a JSON object; line 1"),
        ('[{"image": "a.jpg"}]', "pairs.json", "expected a JSON object, got list"),
        ('{"file": "a.jpg", "caption": "x"}', "pairs.jsonl", "['caption', 'file']"),
        ("file,caption\na.jpg,x\n", "pairs.csv", "['file', 'caption']"),
        ("image,text,text\na.jpg,x,y\n", "pairs.csv", "twice"),
    ],
)
def test_a_file_that_cannot_be_pairs_is_an_error_before_work(tmp_path, content, name, told):
    path = written(tmp_path, content, name)
    with pytest.raises(PairsError) as caught:
        read(path)
    assert told in str(caught.value)
    assert str(path) in str(caught.value)


def test_an_absent_file_and_a_folder_are_errors(tmp_path):
    with pytest.raises(PairsError, match=r"absent\.csv cannot be read"):
        read(tmp_path / "absent.csv")
    with pytest.raises(PairsError, match="not a regular file"):
        read(tmp_path)


@pytest.mark.parametrize(
    "image",
    [
        "/etc/passwd",
        "../a.jpg",
        "a/../../b.jpg",
        "~/a.jpg",
        "C:\\a.jpg",
        "C:a.jpg",
        "\\\\host\\a.jpg",
        "a\\..\\b.jpg",
        "a\0.jpg",
        "a\n.jpg",
        "a" * 5000,
    ],
)
def test_paths_that_could_leave_the_folder_are_unsafe(image):
    with pytest.raises(RowError) as caught:
        check_image_path(image)
    assert caught.value.error == "unsafe_path"


@pytest.mark.parametrize("image", ["a.jpg", "a/b c/d.png", "./a.jpg", "..a.jpg", "\u6c34/\U0001f415.png"])
def test_plain_relative_paths_are_safe(image):
    check_image_path(image)


def test_select_by_split_then_limit_keeping_rows_of_unknown_split(tmp_path):
    rows = read(
        written(
            tmp_path,
            lines(
                *({**GOOD, "id": n, "split": s} for n, s in enumerate("tvtvv")), "{", {**GOOD, "id": "last"}
            ),
        )
    )
    assert [row.where for row in select(rows)] == [f"line {n}" for n in range(1, 8)]
    assert [row.where for row in select(rows, ["v"])] == [f"line {n}" for n in (2, 4, 5, 6)]
    assert [row.where for row in select(rows, ["v"], limit=2)] == ["line 2", "line 4"]
    assert select(rows, ["test"], limit=1) == [rows[5]]


def test_limit_counts_pairs_and_not_refused_rows(tmp_path):
    rows = read(written(tmp_path, lines({**GOOD, "text": ""}, GOOD, {**GOOD, "id": "2"})))
    assert [row.where for row in select(rows, limit=1)] == ["line 1", "line 2"]


def test_derived_ids_tell_image_from_text():
    assert derived_id("a", "bc") != derived_id("ab", "c")
    assert derived_id("a.jpg", "dog") == derived_id("a.jpg", "dog")
    assert len(derived_id("a", "b")) == 16


@given(st.text(max_size=200))
def test_any_text_is_a_pair_or_one_refused_row(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    path.write_text(lines(GOOD, {"image": "a.jpg", "text": text, "id": "x"}), encoding="utf-8")
    row = read(path)[1]
    assert (row.pair is None) == (row.error != "")
    assert row.pair is None or row.pair.text == text


@given(st.binary(max_size=200))
def test_any_bytes_give_rows_or_a_pairs_error(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("pairs")
    for name in ("pairs.jsonl", "pairs.csv"):
        (folder / name).write_bytes(
            b'{"image":"a","text":"b"}\n' + content if "j" in name else b"image,text\n" + content
        )
        for row in read(folder / name):
            assert (row.pair is None) == (row.error != "")
