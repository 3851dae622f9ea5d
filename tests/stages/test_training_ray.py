"""Ray Train: its workers learn together what one process learns, to the bit, though one of them dies."""

import shutil
import subprocess

import pytest
from fixtures.nodes import Nodes, environment
from fixtures.processes import RUNNER, snapshot
from fixtures.walk import TINY, settings, walk

pytest.importorskip("ray.train", reason='needs Ray Train: pip install "ray[train]"')
pytestmark = pytest.mark.slow
COMMON = ("device=cpu", "clip.size=null", "shard_size=2", "relevance.redundancy=none")
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "fixtures.peer"]


@pytest.fixture(scope="module")
def nodes():
    cluster = Nodes()
    yield cluster
    cluster.shutdown()


def test_two_workers_of_ray_learn_what_torchruns_processes_learn(models, all_train, nodes, tmp_path):
    there, alike = tmp_path / "there", tmp_path / "alike"
    walk(settings(all_train, *TINY), there, "labels")
    shutil.copytree(there, alike)
    how = [word for change in (f"records.pairs={all_train / 'pairs.jsonl'}", *COMMON, *TINY)
           for word in ("--set", change)]  # fmt: skip
    python, *runner = RUNNER
    killed = {"PPT_TESTS_KILLED": f"1:3:{there / 'killed'}"}
    for output, command, around in (
        (alike, TORCHRUN, environment()),
        (there, runner, environment("fixtures.deadly.put", **killed)),
    ):
        asked = [python, *command, "segmenter", "custom", "--output", str(output), *how]
        asked += ["--address", nodes.address] if output == there else []
        ended = subprocess.run(asked, env=around, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        assert "segmenter: 1 items, 0 skipped; 1 shards made, 0 kept" in ended.stdout
    assert (there / "killed").read_text() == "step_00000002.pt", "what was there when they began again"
    assert not (there / ".ray").exists()
    made, expected = (snapshot(folder / "segmenter" / "shards") for folder in (there, alike))
    assert made == expected
    logs = [(folder / "segmenter" / "training" / "log.jsonl").read_bytes() for folder in (there, alike)]
    assert logs[0] == logs[1]
