"""Every stage with pairs, images, truth and output in a store that speaks S3."""

import re
import shutil

import pytest
from fixtures.pictures import disc, picture, write_rows
from fixtures.processes import snapshot
from fixtures.stores import Store, environment
from fixtures.walk import ORDER, SMALL, TINY, settings, walk
from PIL import Image

from pipelines.plan import describe
from ppt import places
from ppt.config import load_config
from ppt.places import place
from ppt.report import build_report
from ppt.rle import encode
from ppt.store import Artifact

pytest.importorskip("s3fs", reason="stores that speak S3 need s3fs")
pytest.importorskip("moto", reason="their tests need moto[server]")


@pytest.fixture(scope="module")
def server():
    with Store() as running:
        yield running


@pytest.fixture
def store(server, monkeypatch):
    import s3fs

    server.empty()
    for name, value in environment(server.port).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(places, "WAIT", 0.01)
    s3fs.S3FileSystem.clear_instance_cache()
    yield server
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def scenes(tmp_path):
    """Pictures of one thing and of two, with pairs and truth."""
    folder, pairs, truth = tmp_path / "pictures", [], []
    folder.mkdir()
    for name, discs in {
        "one": {"left": "red"},
        "two": {"right": "blue"},
        "both": {"left": "red", "right": "blue"},
    }.items():
        Image.fromarray(picture(discs)).save(folder / f"{name}.png")
        source = "object_centric" if len(discs) == 1 else "referring"
        for where, colour in discs.items():
            id = f"{name}-{where}"
            pairs.append({"id": id, "image": f"{name}.png", "text": f"the {colour} disc", "source": source})
            truth.append({"id": id, "segmentation": encode(disc(where)).to_json()})
    write_rows(folder / "pairs.jsonl", pairs)
    write_rows(folder / "truth.jsonl", truth)
    return folder


@pytest.mark.parametrize(
    "given", [(), pytest.param((*SMALL, *TINY), marks=pytest.mark.slow)], ids=["", "trained"]
)
def test_the_whole_walk_and_its_report_have_the_bytes_of_a_run_on_a_disk(
    models, store, scenes, tmp_path, given
):
    store.put_all(scenes, "data")
    here, there = tmp_path / "run", place("s3://bucket/out/run")
    remote = load_config(
        None,
        ["records.pairs=s3://bucket/data/pairs.jsonl", "records.truth=s3://bucket/data/truth.jsonl",
         "shard_size=2", "relevance.redundancy=none", *given],
    )  # fmt: skip
    for config, output, root in (
        (settings(scenes, *given, truth=True), here, scenes),
        (remote, there, place("s3://bucket/data")),
    ):
        walk(config, output, ORDER[-1])
        build_report(output, root)
    shutil.rmtree(here / "points/training/tensorboard", ignore_errors=True)  # holds times; not in a store
    found = snapshot(store.fetch_all(tmp_path / "fetched") / "out" / "run")
    assert {name for name, _ in found.items() ^ snapshot(here).items()} == {"source.json"}
    assert len(found) > (60 if given else 40)
    assert Artifact.open(there / "labels").verify() == []
    # and a second time there is nothing to do
    told = "\n".join(describe(remote, there))
    assert "3 files" in told
    assert "in s3://bucket/out/run" in told
    assert len(re.findall("complete, 2 shards", told)) >= 3
    before = snapshot(store.fetch_all(tmp_path / "before") / "out" / "run")
    walk(remote, there, ORDER[-1])
    assert snapshot(store.fetch_all(tmp_path / "after") / "out" / "run") == before
