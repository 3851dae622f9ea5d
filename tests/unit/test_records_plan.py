"""Which rows share a shard, and what they are called there."""

from hypothesis import given
from hypothesis import strategies as st

from ppt.records import plan
from ppt.records.pairs import Row
from ppt.types import Pair


def row(line, image=None, name="", split=""):
    """A row of a pair, or a refused one where `image` is None."""
    pair = None if image is None else Pair(name or f"p{line}", image, "a cup")
    identity = name or (f"p{line}" if pair else "")
    return Row(f"line {line}", identity, split, "", "", pair, "" if pair else "bad_text")


def test_a_shard_holds_so_many_contents_with_all_their_sentences():
    contents = {"a.png": "A", "b.png": "B", "copy of a.png": "A", "c.png": None, "d.png": None, "e.png": None}
    images = ["a.png", "b.png", "copy of a.png", "c.png", "d.png", "a.png", "e.png"]
    rows = [row(line, image) for line, image in enumerate(images)]
    shards = plan.shards(rows, contents, 2)
    assert {key: [r.where for r in group] for key, group in shards.items()} == {
        "00000": ["line 0", "line 1", "line 2", "line 5"],
        "00001": ["line 3", "line 4"],  # what cannot be read is like nothing else
        "00002": ["line 6"],
    }


def test_a_refused_row_joins_the_rows_before_it():
    rows = [row(0), row(1, "a.png"), row(2), row(3, "b.png"), row(4)]
    shards = plan.shards(rows, {"a.png": "A", "b.png": "B"}, 1)
    assert {key: [r.where for r in group] for key, group in shards.items()} == {
        "00000": ["line 0", "line 1", "line 2"],
        "00001": ["line 3", "line 4"],
    }


def test_a_refused_row_goes_by_its_line_where_no_id_is_its_own():
    rows = [row(1, "a.png", "cup"), row(2, name="cup"), row(3), row(4, name="mug")]
    assert plan.names(rows) == {
        "line 1": "cup",
        "line 2": "line 2",
        "line 3": "line 3",
        "line 4": "mug",
    }


def test_what_was_planned_keeps_its_shard_and_what_is_new_fills_up_the_last():
    contents = {name: name for name in ("a.png", "b.png", "c.png", "new.png", "newer.png", "newest.png")}
    former = plan.shards([row(1, "a.png"), row(2, "b.png"), row(3, "c.png")], contents, 2)
    former = {key: [r.id for r in group] for key, group in former.items()}
    rows = [row(4, "new.png"), row(1, "a.png"), row(5), row(3, "c.png"), row(6, "newer.png"), row(7, "a.png")]
    shards = plan.shards(rows, contents, 2, former)
    assert {key: [r.where for r in group] for key, group in shards.items()} == {
        "00000": ["line 1", "line 7"],
        "00001": ["line 4", "line 5", "line 3"],
        "00002": ["line 6"],
    }
    assert list(plan.shards([row(6, "newest.png")], contents, 2, former)) == ["00001"]


ROWS = st.lists(
    st.tuples(st.sampled_from("pqrstuvw"), st.sampled_from([None, *"abcdef"])), unique_by=lambda r: r[0]
)


@given(ROWS, ROWS, st.integers(1, 3))
def test_planned_again_it_is_the_same_and_what_has_a_shard_stays_there(before, now, size):
    contents = {f"{letter}.png": letter for letter in "abcde"} | {"f.png": "a"}
    planned, former = [], {}
    for rows in (before, now, now):
        own = [row(name, image and f"{image}.png", name) for name, image in rows]
        shards = plan.shards(own, contents, size, former)
        earlier = {name: key for key, names in former.items() for name in names}
        for key, group in shards.items():
            shared = [r for r in group if r.pair and r.id in earlier]
            alone = [
                r
                for r in shared
                if sum(contents[o.pair.image] == contents[r.pair.image] for o in own if o.pair) == 1
            ]
            assert all(earlier[r.id] == key for r in alone)
        former = {key: [plan.names(own)[r.where] for r in group] for key, group in shards.items()}
        assert sorted(name for names in former.values() for name in names) == sorted(plan.names(own).values())
        planned.append(former)
    assert planned[1] == planned[2]


@given(st.lists(st.sampled_from([None, "a.png", "b.png", "c.png", "d.png"])), st.integers(1, 4))
def test_every_row_is_in_one_shard_and_no_content_in_two(images, size):
    rows = [row(line, image) for line, image in enumerate(images)]
    contents = {"a.png": "A", "b.png": "B", "c.png": "A", "d.png": None}
    shards = plan.shards(rows, contents, size)
    assert {r.where for group in shards.values() for r in group} == {r.where for r in rows}
    assert sum(map(len, shards.values())) == len(rows)
    found = [{plan.content(r.pair.image, contents) for r in group if r.pair} for group in shards.values()]
    assert all(len(held) <= size for held in found)
    assert sum(map(len, found)) == len(set().union(*found))
