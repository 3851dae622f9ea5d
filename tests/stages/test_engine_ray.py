"""Ray: two nodes make the same bytes as one process, whoever is killed meanwhile."""

import os
import shutil
import signal
import subprocess

import pytest
from fixtures.models import DEADLY, HELD, SLOW
from fixtures.nodes import Nodes, environment, started, wait_for
from fixtures.pictures import RGB, make_pictures
from fixtures.processes import ENVIRONMENT, RUNNER, snapshot

pytest.importorskip("ray", reason='needs ray: pip install "ray[train]"')
SMALL = ("--set", "shard_size=1", "--set", "threads=1", "--set", "views.ask=[]")
BEFORE = ("records", "relevance")
"""The stages that masks read."""


def ended(process):
    out, err = process.communicate()
    return process.returncode, out, err


def run(*arguments, **more):
    command = [*RUNNER, *map(str, arguments)]
    done = subprocess.run(command, env=environment(**more), capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The arguments of a run over the pictures; the output is yet to be named."""
    pictures = make_pictures(tmp_path_factory.mktemp("of") / "pictures")
    files = ("--pairs", pictures / "pairs.jsonl", "--truth", pictures / "truth.jsonl")
    return ("run", "custom", *files, *SMALL, "--output")


@pytest.fixture(scope="module")
def alone(whole, tmp_path_factory):
    """What one process makes."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    code, _, err = run(*whole, folder)
    assert (code, err) == (0, "")
    return folder


@pytest.fixture(scope="module")
def nodes():
    cluster = Nodes()
    yield cluster
    cluster.shutdown()


@pytest.fixture
def masks(alone, tmp_path, nodes):
    """The command that makes masks on the cluster, SAM being slow, of what the stages before have left."""
    for stage in BEFORE:
        shutil.copytree(alone / stage, tmp_path / "run" / stage)
    shutil.copy(alone / "source.json", tmp_path / "run")
    return ("masks", "custom", *SMALL, "--output", tmp_path / "run", "--address", nodes.address)


@pytest.fixture
def held(tmp_path):
    """While it is there, SAM waits."""
    path = tmp_path / "held"
    path.touch()
    return path


def made(folder, pattern="shards/*.done.json"):
    return {path.name: path.stat().st_mtime_ns for path in (folder / "masks").glob(pattern)}


def test_two_ray_nodes_draw_what_one_process_draws(masks, alone, tmp_path):
    code, out, err = run(*masks)
    assert (code, err) == (0, "")
    assert "masks: 7 items, 0 skipped; 4 shards made, 0 kept" in out
    assert snapshot(tmp_path / "run" / "masks") == snapshot(alone / "masks")


@pytest.mark.slow
def test_two_ray_nodes_make_the_bytes_that_one_process_makes(whole, alone, nodes, tmp_path):
    """And so does a pool: test_crash.py compares these two."""
    output = tmp_path / "run"
    code, out, err = run(*whole, output, "--engine", "ray", "--address", nodes.address)
    assert (code, err) == (0, "")
    assert "masks: 7 items, 0 skipped; 4 shards made, 0 kept" in out
    assert snapshot(output) == snapshot(alone)


@pytest.mark.slow
def test_the_deaths_of_an_actor_and_of_a_node_lose_nothing(masks, alone, nodes, held, tmp_path):
    with started(*masks, **{HELD: str(held)}) as process:
        wait_for(lambda: len(nodes.actors()) == 2)
        killed, _ = nodes.actors()  # of the node that stays
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda: len({*nodes.actors()} - {killed}) == 2)
        nodes.kill()
        held.unlink()
        code, out, err = ended(process)
    nodes.add()
    assert code == 0, err
    assert "7 items, 0 skipped; 4 shards made, 0 kept" in out
    assert snapshot(tmp_path / "run" / "masks") == snapshot(alone / "masks")


@pytest.mark.slow
def test_the_death_of_the_driver_keeps_the_shards_that_are_done(masks, alone, nodes, tmp_path):
    with started(*masks, **{SLOW: "1"}) as process:
        wait_for(lambda: len(made(tmp_path / "run")) >= 2)
        process.kill()
    wait_for(lambda: not nodes.actors())
    kept = made(tmp_path / "run")
    assert 2 <= len(kept) < 4
    code, out, err = run(*masks)
    assert code == 0, err
    assert f"{4 - len(kept)} shards made, {len(kept)} kept" in out
    assert snapshot(tmp_path / "run" / "masks") == snapshot(alone / "masks")


@pytest.mark.slow
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_lets_the_shards_in_progress_finish(masks, alone, nodes, held, tmp_path, signum, code):
    with started(*masks, **{HELD: str(held)}) as process:
        wait_for(lambda: len(nodes.actors()) == 2)
        process.send_signal(signum)
        held.unlink()
        stopped, _, err = ended(process)
    assert stopped == code
    assert err == f"ppt: stopped by {signal.Signals(signum).name}; the same command resumes\n"
    assert len(made(tmp_path / "run")) == 2
    again, out, err = run(*masks)
    assert again == 0, err
    assert "2 shards made, 2 kept" in out
    assert snapshot(tmp_path / "run" / "masks") == snapshot(alone / "masks")


@pytest.mark.slow
def test_a_poison_item_is_lost_alone_on_ray_as_on_a_pool(whole, tmp_path, nodes):
    poison = {DEADLY: " ".join(map(str, RGB["red"]))}  # of a.png
    spread, pooled = tmp_path / "spread" / "run", tmp_path / "pooled" / "run"
    code, _, err = run(*whole, spread, "--address", nodes.address, **poison)
    assert code == 3, err
    pool = [*RUNNER, *map(str, whole), str(pooled), "--set", "workers=2"]
    assert subprocess.run(pool, env={**ENVIRONMENT, **poison}, check=False).returncode == 3
    assert snapshot(spread) == snapshot(pooled)
    assert '"error":"killed_worker","id":"a-left"' in (spread / "masks" / "failures.jsonl").read_text()


@pytest.mark.slow
def test_an_address_where_no_cluster_answers_stops_the_run_before_any_work(whole, tmp_path):
    code, _, err = run(*whole, tmp_path / "run", "--address", "127.0.0.1:1")
    assert code == 2
    assert "ray.address: 127.0.0.1:1: cannot join a cluster" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_what_no_node_has_stops_the_run_before_any_work(whole, tmp_path, nodes):
    code, _, err = run(*whole, tmp_path / "run", "--address", nodes.address, "--set", "ray.cores=64")
    assert code == 2
    assert "no node has what one actor asks for: 64 cores" in err
    assert not (tmp_path / "run").exists()
