"""A store that misbehaves, and runs that are killed: the same command gives the bytes of a run on a disk, or
stops with an error that names the URL. Never less than all of an image or an artifact is taken for it.
"""

import itertools
import os
import shutil
import signal
import subprocess
import time

import pytest
from fixtures.models import SLOW
from fixtures.processes import ENVIRONMENT, RUNNER, Forks, snapshot
from fixtures.stores import Proxy, Store, environment

pytest.importorskip("s3fs", reason="stores that speak S3 need s3fs")
pytest.importorskip("moto", reason="their tests need moto[server]")

SETTINGS = [word for one in ("shard_size=2", "views.ask=[]") for word in ("--set", one)]
OUTPUT = "s3://bucket/out/run"
KINDS = (500, 503, "cut", "short")


@pytest.fixture(scope="module")
def forks():
    with Forks() as server:
        yield server


@pytest.fixture(scope="module")
def server():
    with Store() as running:
        yield running


@pytest.fixture
def proxy(server, pictures):
    """A store that holds the pictures, through a proxy."""
    server.empty()
    server.put_all(pictures, "data")
    with Proxy(server.port) as before:
        yield before


@pytest.fixture(scope="module")
def undisturbed(forks, tmp_path_factory):
    """What a run on a disk leaves."""
    from fixtures.pictures import make_pictures

    folder = tmp_path_factory.mktemp("undisturbed")
    pictures = make_pictures(folder / "pictures")
    files = ["--pairs", pictures / "pairs.jsonl", "--output", folder / "run"]
    ended = forks.run(folder / "log", "run", "custom", *files, *SETTINGS)
    assert ended.code == 0, ended.printed
    return snapshot(folder / "run")


@pytest.fixture
def run(forks, proxy, tmp_path):
    """Runs a command on the store, through the proxy."""

    def command(*more, stage="run", output=OUTPUT, **variables):
        asked = [stage, "custom", "--pairs", "s3://bucket/data/pairs.jsonl", "--output", output]
        return forks.run(
            tmp_path / "log", *asked, *SETTINGS, *more, **environment(proxy.own_port), **variables
        )

    return command


@pytest.fixture
def differing(server, undisturbed, tmp_path):
    """Names of the objects that are missing, too many, or of other bytes, of those that begin so."""

    def names(begin=""):
        shutil.rmtree(tmp_path / "fetched", ignore_errors=True)
        found = snapshot(server.fetch_all(tmp_path / "fetched") / "out" / "run")
        others = {name for name, _ in found.items() ^ undisturbed.items()} - {"source.json"}
        return sorted(name for name in others if name.startswith(begin))

    return names


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["records", "run"])
def test_a_store_that_fails_now_and_then_costs_time_and_nothing_else(run, proxy, differing, stage):
    faults, every = [], itertools.cycle((True, False, False))

    def fault(method, path, before):
        if path.endswith("/data/c.png") and method == "GET" and before == 0:
            faults.append("hang")
        elif before == 0 and method in ("GET", "PUT") and path != "/bucket" and next(every):
            faults.append(KINDS[len(faults) % 4])
        else:
            return None
        return faults[-1]

    proxy.fault = fault
    ended = run(stage=stage)
    assert (ended.code, differing("" if stage == "run" else stage)) == (0, []), ended.printed
    assert set(faults) == {*KINDS, "hang"}


def test_a_store_that_stays_broken_stops_the_run_which_goes_on_later(run, proxy, differing):
    proxy.fault = lambda method, path, _: 503 if method == "PUT" and "/00001.done" in path else None
    ended = run(stage="records")
    assert ended.code == 1
    last = ended.printed.splitlines()[-1]
    assert last.startswith(
        "ppt: s3://bucket/out/run/records/shards/00001.done.json: writing failed 5 times ("
    )
    assert "Traceback" not in ended.printed
    proxy.fault = lambda *_: None
    ended = run(stage="records")
    assert (ended.code, differing("records/")) == (0, []), ended.printed
    assert "records: 7 items, 0 skipped; 1 shards made, 1 kept" in ended.printed


@pytest.mark.slow
def test_an_image_that_cannot_be_had_is_no_bad_image(run, proxy, differing):
    proxy.fault = lambda _, path, __: 500 if path.endswith("/data/b.png") else None
    ended = run(stage="records")
    assert ended.code == 1
    assert "s3://bucket/data/b.png: reading failed 5 times" in ended.printed
    proxy.fault = lambda *_: None
    assert run(stage="records").code == 0
    assert differing("records/") == []


def test_an_image_that_is_not_there_or_refused_is_recorded(run, proxy, server, tmp_path):
    proxy.fault = lambda _, path, __: 403 if path.endswith("/data/b.png") else None
    assert server.ask("DELETE", "/bucket/data/c.png")[0] == 204
    ended = run(stage="records")
    assert ended.code == 3
    assert "records: 4 items, 3 skipped (missing 1, unreadable 2)" in ended.printed
    failures = server.fetch_all(tmp_path / "fetched") / "out/run/records/failures.jsonl"
    assert "c.png does not exist" in failures.read_text()


@pytest.mark.slow
def test_a_power_cut_after_any_object_is_gone_on_from(run, proxy, differing):
    codes = [run(stage="records", PPT_FAILPOINT=f"after_rename:{count}").code for count in (2, 3, 4)]
    assert codes == [137] * 3
    ended = run(stage="records")
    assert (ended.code, differing("records/")) == (0, []), ended.printed


def test_what_is_asked_wrongly_stops_before_any_work(run, proxy):
    wrong = {
        ("--set", "embeddings_gib=1"): "embeddings_gib: embeddings are kept on disks alone",
        ("--set", "sam.weights=s3://bucket/sam.pth"): "weights: expected a path on a disk",
        ("--set", "records.sources=[{format: refer, path: s3://bucket/refcoco}]"): "data of format refer",
        ("--output", "gopher://bucket/run"): "no protocol of that name is known",
        ("--output", "memory://run", "--set", "workers=2"): "workers: no other process sees memory://run",
        (
            "--pairs",
            "s3://bucket/data/none.jsonl",
        ): "none.jsonl cannot be read: does not exist",
    }
    for more, told in wrong.items():
        ended = run(*more)
        assert (ended.code, told in ended.printed) == (2, True), ended.printed
    assert "PUT" not in {method for method, _ in proxy.asked}


def test_what_stays_on_disks_says_so(ppt, tmp_path):
    for command in (
        ["export", "s3://bucket/run", "--format", "coco", "--to", tmp_path / "out"],
        ["export", tmp_path, "--format", "coco", "--to", "s3://bucket/out"],
        ["review", "serve", "s3://bucket/run"],
        ["benchmark", "points", "custom", "--output", "s3://bucket/run"],
        ["report", "s3://bucket/run", "--open"],
    ):
        ended = ppt(*command)
        assert (ended.code, "expected a place on a disk, got s3://bucket/" in ended.printed) == (2, True)


@pytest.mark.slow
def test_a_second_process_is_refused_the_folder_that_one_is_writing_to(forks, pictures, tmp_path):
    asked = ["run", "custom", "--pairs", str(pictures / "pairs.jsonl"), "--output", str(tmp_path / "run")]
    slow = {**ENVIRONMENT, SLOW: "60"}
    with subprocess.Popen(
        [*RUNNER, *asked], env=slow, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    ) as first:
        try:
            for _ in range(600):
                if (tmp_path / "run" / "masks" / ".lock").exists():
                    break
                time.sleep(0.1)
            ended = forks.run(tmp_path / "log", *asked)
            assert (ended.code, first.poll()) == (2, None)
            assert "masks: another run is writing here" in ended.printed
        finally:
            first.kill()


@pytest.mark.slow
def test_kills_at_random_moments_lose_nothing(forks, run, proxy, server, differing, pictures, tmp_path):
    began = time.monotonic()
    assert run().code == 0
    usual = time.monotonic() - began
    asked = ["run", "custom", "--pairs", "s3://bucket/data/pairs.jsonl", "--output", OUTPUT, *SETTINGS]
    killed = 0
    for number in range(8):
        server.empty()
        server.put_all(pictures, "data")
        process = forks.start(tmp_path / "log", *asked, **environment(proxy.own_port))
        time.sleep(usual * (number + 0.5) / 8)
        os.kill(process, signal.SIGKILL)
        killed += forks.wait().code == 137
        ended = run()
        assert (ended.code, differing()) == (0, []), f"kill {number}: {ended.printed}"
    assert killed > 4


@pytest.mark.slow
def test_two_runs_at_once_and_workers_write_the_same_bytes(proxy, differing, tmp_path):
    asked = ["run", "custom", "--pairs", "s3://bucket/data/pairs.jsonl", "--output", OUTPUT, *SETTINGS]
    variables = {**ENVIRONMENT, **environment(proxy.own_port)}
    racing = [
        subprocess.Popen(
            [*RUNNER, *asked, *more],
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for more in ([], ["--set", "workers=2"])
    ]
    printed = [process.communicate()[0] for process in racing]
    assert [process.returncode for process in racing] == [0, 0], printed
    assert differing() == []
