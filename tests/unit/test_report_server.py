"""The desk and its server: what is let in, what is written, and what SAM answers."""

import contextlib
import http.client
import json
import shutil
import threading
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from fixtures.models import FakeSam
from fixtures.report_run import make_run, plain_scenes

from ppt import rle
from ppt.report import ReportError
from ppt.report.desk import Desk, Refused
from ppt.report.gather import read_run
from ppt.report.journal import Journal
from ppt.report.server import LARGEST, Server

PLAIN = {"candidate": None, "segmentation": None, "points": None, "note": "", "who": "Ada"}


class Asked:
    """SAM and the pictures, in memory; counts what it is asked."""

    def __init__(self, scenes):
        self.images = {scene.name: scene.image for scene in scenes}
        self.sam, self.points = FakeSam(), []

    def __call__(self, record, points):
        self.points.append(points)
        if record.pair.image not in self.images:
            raise ValueError(f"{record.pair.image} does not exist")
        [found] = self.sam.predict(self.images[record.pair.image], [points])
        return found


@pytest.fixture(scope="module")
def scenes():
    return plain_scenes(3)


@pytest.fixture(scope="module")
def made(scenes, tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("made"), scenes)


@pytest.fixture
def output(made, tmp_path):
    shutil.copytree(made.parent, tmp_path / "copy")
    return tmp_path / "copy" / "run"


@pytest.fixture
def sam(scenes):
    return Asked(scenes)


@pytest.fixture
def journal(output):
    with Journal(output, read_run(output).of) as journal:
        yield journal


@pytest.fixture
def desk(output, journal, sam):
    return Desk(read_run(output), output.parent / "images", journal, sam)


@contextlib.contextmanager
def serving(desk, limit=400):
    with Server(desk, desk.page("Ada", limit)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def server(desk):
    with serving(desk) as server:
        yield server


@pytest.fixture(scope="module")
def quiet(scenes, tmp_path_factory):
    """A server to whom nobody says anything that makes sense."""
    output = make_run(tmp_path_factory.mktemp("quiet"), scenes)
    run = read_run(output)
    with Journal(output, run.of) as journal:
        with serving(Desk(run, output.parent / "images", journal, Asked(scenes))) as server:
            yield server
        assert not (output / "review.jsonl").exists(), "what was refused is not written"


def ask(server, method, path, value=None, **changed):
    """(status, headers, content) of a request as the page itself makes it, but for what is changed."""
    headers = {"Host": server.place, "Sec-Fetch-Site": "same-origin"}
    if method == "POST":
        headers |= {"Origin": f"http://{server.place}", "Content-Type": "application/json"}
    headers |= {name.replace("_", "-"): value for name, value in changed.items()}
    connection = http.client.HTTPConnection(*server.server_address, timeout=10)
    body = None if value is None else value if isinstance(value, bytes) else json.dumps(value).encode()
    connection.putrequest(method, path, skip_host=True)
    for name, told in ({"Content-Length": str(len(body))} if body is not None else {} | {}).items():
        headers.setdefault(name, told)
    for name, told in headers.items():
        if told is not None:
            connection.putheader(name, told)
    connection.endheaders(body)
    answer = connection.getresponse()
    found = answer.status, dict(answer.getheaders()), answer.read()
    connection.close()
    return found


def rows(output):
    return [json.loads(line) for line in (output / "review.jsonl").read_text().splitlines()]


# --- decisions


def test_a_decision_is_written_with_the_time_and_what_it_is_about(desk, output):
    desk.decide(PLAIN | {"id": "0001-0", "decision": "keep"})
    desk.decide(PLAIN | {"id": "0001-1", "decision": "candidate", "candidate": 2, "note": "“sharper”"})
    first, second = rows(output)
    assert first.pop("when").endswith("Z")
    assert first == PLAIN | {"id": "0001-0", "decision": "keep", "of": read_run(output).of["0001-0"]}
    assert (second["candidate"], second["note"]) == (2, "“sharper”")
    told = datetime.strptime(second["when"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert abs(datetime.now(UTC) - told) < timedelta(minutes=1)


def test_the_last_decision_on_an_item_is_the_one_that_is_told(desk, output):
    for decision in ("keep", "drop", "none"):
        desk.decide(PLAIN | {"id": "0001-0", "decision": decision})
    assert [row["decision"] for row in rows(output)] == ["keep", "drop", "none"]
    assert [json.loads(line)["decision"] for line in desk.decisions().splitlines()] == ["none"]


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"id": "nobody"}, "'nobody' is not an item"),
        ({"id": 3}, "3 is not an item"),
        ({"decision": "explode"}, "got 'explode'"),
        ({"decision": "candidate"}, "expected 0 to 2, got None"),
        ({"decision": "candidate", "candidate": 3}, "expected 0 to 2, got 3"),
        ({"decision": "candidate", "candidate": True}, "got True"),
        ({"decision": "mask"}, "segmentation"),
        (
            {"decision": "mask", "segmentation": {"size": [2, 2], "counts": "4"}},
            "2x2 but its image is 128x128",
        ),
        ({"note": "n" * 2001}, "at most 2000"),
        ({"who": 7}, "who: expected text"),
    ],
)
def test_what_makes_no_sense_is_refused_and_not_written(desk, output, changed, why):
    with pytest.raises(Refused, match=why):
        desk.decide(PLAIN | {"id": "0001-0", "decision": "keep"} | changed)
    with pytest.raises(Refused):
        desk.decide([])
    assert not (output / "review.jsonl").exists()


def test_a_new_mask_is_written_as_it_was_accepted(desk, output, scenes):
    mask = rle.encode(scenes[1].sentences[0][1]).to_json()
    points = [[30.25, 60.5, 1], [90, 60, 0]]
    desk.decide(PLAIN | {"id": "0001-0", "decision": "mask", "segmentation": mask, "points": points})
    assert (rows(output)[0]["segmentation"], rows(output)[0]["points"]) == (mask, points)


# --- masks


def test_sams_mask_is_that_of_the_place_that_was_clicked(desk, scenes):
    wanted = scenes[1].sentences[1][1]
    ys, xs = np.nonzero(wanted)
    point = [float(xs.mean()), float(ys.mean()), 1]
    found = desk.masks({"id": "0001-0", "points": [point]})
    assert len(found["masks"]) == 3
    worth = [mask["predicted_iou"] * mask["stability"] for mask in found["masks"]]
    assert worth == sorted(worth, reverse=True)
    masks = [rle.from_json(mask["segmentation"]) for mask in found["masks"]]
    assert max(rle.iou(mask, rle.encode(wanted)) for mask in masks) > 0.95
    assert all(mask["path"].startswith("M") for mask in found["masks"])


def test_without_points_the_items_own_are_told(desk, output, sam):
    row = next(row for row in read_run(output).stages["masks"].rows() if row["id"] == "0001-0")
    told = desk.masks({"id": "0001-0", "points": None})["points"]
    np.testing.assert_allclose(told, row["points"], atol=0.01)
    assert len(sam.points) == 1


def test_negative_points_alone_give_no_mask(desk, sam):
    assert desk.masks({"id": "0001-0", "points": [[5, 5, 0]]}) == {"points": [[5, 5, 0]], "masks": []}
    assert sam.points == []


@pytest.mark.parametrize(
    "points",
    [5, [[1, 2]], [[1, 2, 3]], [[1, 2, True]], [[-1, 2, 1]], [[128, 2, 1]], [["1", 2, 1]], [[1, 1, 1]] * 201],
)
def test_points_that_are_none_are_refused(desk, points):
    with pytest.raises(Refused, match="points"):
        desk.masks({"id": "0001-0", "points": points})


def test_an_image_that_is_gone_is_told(desk, sam):
    sam.images.clear()
    with pytest.raises(Refused, match=r"picture_001\.png does not exist"):
        desk.masks({"id": "0001-0", "points": [[5, 5, 1]]})


# --- the file


def test_what_was_decided_before_is_known_again_and_kept(output):
    of = read_run(output).of
    old = [
        {"id": "0000-0", "decision": "keep", "of": of["0000-0"]},
        {"id": "0000-1", "decision": "keep", "of": of["0000-0"]},
    ]
    before = "".join(f"{json.dumps(row)}\n" for row in old)
    (output / "review.jsonl").write_text(before + '{"id": "0001-0", "deci')
    with Journal(output, of) as journal:
        assert [*journal.last] == ["0000-0"], "what is about other masks stays in the file alone"
        journal.append({"id": "0001-1", "of": of["0001-1"]})
    text = (output / "review.jsonl").read_text()
    assert text.startswith(before), "half a line, which a kill left, goes; nothing else does"
    assert len(text.splitlines()) == 3


def test_a_file_that_is_no_review_is_left_alone(output):
    (output / "review.jsonl").write_text('{"id": "a"}\nnonsense\n')
    with pytest.raises(ReportError, match="line 2: no decision"), Journal(output, {"a": "x"}):
        pass
    assert (output / "review.jsonl").read_text() == '{"id": "a"}\nnonsense\n'


def test_there_is_one_writer(journal, output):
    with pytest.raises(ReportError, match="another"), Journal(output, {"a": "x"}):
        pass


def test_once_a_review_has_ended_nothing_more_is_written(output):
    with Journal(output, {"a": "x"}) as journal:
        journal.append({"id": "a", "of": "x"})
    with pytest.raises(OSError, match="has ended"):
        journal.append({"id": "b", "of": "x"})
    assert len(rows(output)) == 1


def test_a_run_without_labels_has_nothing_to_review(scenes, sam, tmp_path):
    output = make_run(tmp_path, scenes, evaluated=False)
    (output / "labels" / "index.json").unlink()
    with Journal(output, {}) as journal, pytest.raises(ReportError, match="nothing to review"):
        Desk(read_run(output), None, journal, sam)


# --- the server


def test_the_page_is_served_and_talks_to_its_server(server):
    status, headers, content = ask(server, "GET", f"/{server.token}/")
    assert status == 200
    assert "connect-src 'self'" in content.decode()
    assert '"live":{"ask":true,"who":"Ada"}' in content.decode()
    assert "Access-Control-Allow-Origin" not in headers
    assert headers["Referrer-Policy"] == "no-referrer"


def test_a_decision_is_saved_as_it_is_made(server, output):
    row = PLAIN | {"id": "0001-0", "decision": "drop"}
    status, _, content = ask(server, "POST", f"/{server.token}/decide", row)
    assert (status, json.loads(content)) == (200, rows(output)[0])
    assert json.loads(ask(server, "GET", f"/{server.token}/review")[2])["decision"] == "drop"
    status, _, content = ask(server, "POST", f"/{server.token}/decide", row | {"id": "nobody"})
    assert (status, json.loads(content)["error"][:12]) == (400, "id: 'nobody'")


@pytest.mark.parametrize(
    ("method", "path", "changed", "status"),
    [
        ("GET", "/", {}, 404),
        ("GET", "/{token}", {}, 404),
        ("GET", "/wrong/", {}, 404),
        ("GET", "/{token}x/", {}, 404),
        ("GET", "/{token}/../records/index.json", {}, 404),
        ("GET", "/{token}/records/index.json", {}, 404),
        ("GET", "/{token}/report_files/../source.json", {}, 404),
        ("GET", "/{token}/report_files/%2e%2e%2fsource.json", {}, 404),
        ("GET", "/{token}//etc/passwd", {}, 404),
        ("GET", "/{token}/review.jsonl", {}, 404),
        ("GET", "/{token}/decide", {}, 404),
        ("GET", "/{token}/", {"Host": "evil.example"}, 403),
        ("GET", "/{token}/", {"Host": "localhost:1"}, 403),
        ("GET", "/{token}/", {"Host": None}, 403),
        ("GET", "/{token}/", {"Sec_Fetch_Site": "cross-site"}, 403),
        ("GET", "/{token}/", {"Sec_Fetch_Site": "same-site"}, 403),
        ("POST", "/{token}/decide", {"Origin": "http://evil.example"}, 403),
        ("POST", "/{token}/decide", {"Origin": "null"}, 403),
        ("POST", "/{token}/decide", {"Origin": None}, 403),
        ("POST", "/{token}/decide", {"Content_Type": "text/plain"}, 415),
        ("POST", "/{token}/decide", {"Content_Length": str(LARGEST + 1)}, 413),
        ("POST", "/{token}/decide", {"Content_Length": "-1"}, 413),
        ("POST", "/{token}/review", {}, 404),
        ("POST", "/wrong/decide", {}, 404),
        ("OPTIONS", "/{token}/decide", {}, 501),
        ("PUT", "/{token}/review", {}, 501),
        ("DELETE", "/{token}/review", {}, 501),
    ],
)
def test_everything_else_is_refused(quiet, method, path, changed, status):
    value = PLAIN | {"id": "0001-0", "decision": "drop"} if method == "POST" else None
    path = path.format(token=quiet.token)
    found, headers, _ = ask(quiet, method, path, value, **changed)
    assert found == status
    assert not [name for name in headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000, b"[]", b"null"])
def test_nonsense_is_refused_in_words(quiet, content):
    for path in ("decide", "mask"):
        status, _, said = ask(quiet, "POST", f"/{quiet.token}/{path}", content)
        assert (status, bool(json.loads(said)["error"])) == (400, True)


def test_what_lies_beside_the_page_is_handed_out_and_nothing_else(output, journal, sam):
    desk = Desk(read_run(output), output.parent / "images", journal, sam)
    with serving(desk, limit=2) as server:
        (output / "report_files" / "secret.txt").write_text("s")
        names = {path.name for path in (output / "report_files").iterdir()}
        found = {name: ask(server, "GET", f"/{server.token}/report_files/{name}") for name in names}
    assert found.pop("secret.txt")[0] == 404
    assert {status for status, *_ in found.values()} == {200}
    assert {headers["Content-Type"].split(";")[0] for _, headers, _ in found.values()} == {
        "text/javascript", "image/jpeg",
    }  # fmt: skip


def test_it_listens_on_this_machine_alone(quiet):
    assert quiet.server_address[0] == "127.0.0.1"
    assert len(quiet.token) >= 32
