"""Which engine is asked for, and what stops a run before any work."""

import sys

import pytest

from pipelines import cli, stage
from pipelines.options import division
from ppt.config import Config, ConfigError, load_config
from ppt.pool import Pool


@pytest.mark.parametrize("stage_of", ["run", "records"])
def test_without_ray_the_engine_ray_says_how_to_get_it(command, whole, output, monkeypatch, stage_of):
    monkeypatch.setitem(sys.modules, "ray", None)
    said = command(stage_of, *whole[1:], "--engine", "ray")
    assert said.code == 2
    assert 'pip install "ray[train]"' in said.err
    assert not output.exists()


@pytest.mark.parametrize("plan", [["--dry-run"], ["--slurm-array", "4", "--set", "device=cuda"]])
def test_a_plan_asks_for_no_cluster_and_a_script_for_no_gpu(command, whole, output, monkeypatch, plan):
    monkeypatch.setitem(sys.modules, "ray", None)
    said = command(*whole, "--engine", "ray", *plan)
    assert said.code == 0, said.err
    assert not output.exists()


def test_an_address_is_one_of_ray(monkeypatch):
    asked = []
    monkeypatch.setattr(cli.ray_actors, "connect", asked.append)
    config = cli._config("custom", division(None, None, "10.0.0.1:6379"), None, None, None)
    assert config.engine == "ray"
    assert asked == [config.ray]
    assert config.ray.address == "10.0.0.1:6379"
    assert division(None, None, None) == []


def test_an_engine_that_is_not_known_is_refused(command, whole, output):
    said = command(*whole, "--engine", "spark")
    assert said.code == 2
    assert "engine: Input should be 'local' or 'ray' (got 'spark')" in said.err
    assert not output.exists()


def test_a_limit_of_an_item_needs_a_worker_to_end():
    with pytest.raises(ConfigError, match="item_seconds: expected workers of 1 or more"):
        load_config(None, ["item_seconds=5"])
    assert load_config(None, ["item_seconds=5", "workers=1"]).item_seconds == 5


def test_who_does_the_shards():
    assert stage.crew_of(Config()) is None
    assert stage.crew_of(Config(workers=3)) == Pool(3)
    assert [Config().in_process, Config(workers=1).in_process, Config(engine="ray").in_process] == [
        True, False, False,
    ]  # fmt: skip
