"""The manifest for Kubernetes: it asks ppt rightly, and its workers have what an actor needs."""

import shlex
from pathlib import Path

import pytest
import yaml

from ppt.config import load_config

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def spec():
    return yaml.safe_load((ROOT / "configs" / "cluster" / "rayjob.yaml").read_text(encoding="utf-8"))["spec"]


@pytest.fixture
def asked(spec, monkeypatch):
    """Config and options of the command, without the shell around it."""
    monkeypatch.setenv("PPT_DATA", "/data")
    shell, option, line = shlex.split(spec["entrypoint"])
    assert (shell, option) == ("sh", "-c")
    command, _, excused = line.partition(" || ")
    assert excused == "[ $? -eq 3 ]", "items that were passed over are no failure"
    program, verb, config, *options = shlex.split(command)
    assert (program, verb) == ("ppt", "run")
    named = dict(zip(options[::2], options[1::2], strict=True)) | {"--set": None}
    settings = [value for key, value in zip(options[::2], options[1::2], strict=True) if key == "--set"]
    assert set(named) == {"--output", "--address", "--set"}
    settings += ["engine=ray", f"ray.address={named['--address']}"]
    return load_config(ROOT / "configs" / f"{config}.yaml", settings), named["--output"]


def containers(group):
    [container] = group["template"]["spec"]["containers"]
    return container


def test_a_worker_has_room_for_an_actor_and_the_head_for_none(spec, asked):
    config, _ = asked
    cluster = spec["rayClusterSpec"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    [workers] = cluster["workerGroupSpecs"]
    limits = containers(workers)["resources"]["limits"]
    assert config.ray.cores <= int(limits["cpu"])
    assert config.ray.gpus <= int(limits["nvidia.com/gpu"])
    assert workers["minReplicas"] == workers["replicas"] == workers["maxReplicas"], "nobody waits for more"


def test_all_pods_have_one_image_one_disk_and_the_same_variables(spec, asked):
    _, output = asked
    cluster = spec["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    assert len({containers(group)["image"] for group in groups}) == 1
    for group in groups:
        [mount] = containers(group)["volumeMounts"]
        [volume] = group["template"]["spec"]["volumes"]
        assert mount["name"] == volume["name"]
        assert output.startswith(f"{mount['mountPath']}/")
        for variable in containers(group)["env"]:
            assert variable["value"].startswith(f"{mount['mountPath']}/")
