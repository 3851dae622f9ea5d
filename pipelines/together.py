"""A stage in several processes, as torchrun starts them: a training that all take part in, or a share of the
shards for each.

    torchrun --nproc-per-node 8 -m ppt run CONFIG.yaml --pairs PAIRS --output DIR

Shards are shared out by their number, so that nothing is made twice; when all are there the first process
closes the artifact, whose bytes are those of one process. What has no shards the first does alone.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

from pipelines import stage
from ppt import ray_training
from ppt.backbones.weights import resolve_device
from ppt.config import Config, ConfigError
from ppt.manifest import Manifest, difference
from ppt.peers import Peers, joined
from ppt.places import Place, remove_folder
from ppt.shard import Shard
from ppt.store import Artifact, ArtifactError, StaleArtifact, begin, clear

T = TypeVar("T")
RESTARTS = "TORCHELASTIC_RESTART_COUNT"


@contextmanager
def peers_of(config: Config) -> Iterator[Peers]:
    """The processes that this one works with. Raises ConfigError where the device cannot be shared out."""
    try:
        with joined(resolve_device(config.device).type) as peers:
            if peers.count > 1 and ":" in config.device:
                raise ConfigError(
                    "device: several processes take a GPU each; expected cuda, auto or cpu"
                    f" (got {config.device})"
                )
            yield peers
    except ValueError as error:
        if str(error).startswith("device: "):
            raise ConfigError(str(error)) from None
        raise


def on_ray(
    name: str, run: Callable[[Config, Place, bool], stage.Summary], config: Config, output: Place, fresh: bool
) -> stage.Summary:
    """A training, DIR/<name>, in workers of the Ray cluster that the config names."""
    folder = output / name
    if fresh and folder.exists():  # here and once, whatever happens to the workers
        clear(folder)
        remove_folder(folder / "training")
    complete = (folder / "index.json").exists()
    alone = config.model_copy(update={"engine": "local", "workers": 0})
    ray_training.train_together(config.ray, _of_ray, {"run": run, "config": alone, "output": output}, output)
    return stage.summary(Artifact.open(folder), made=0 if complete else 1)


def _of_ray(given: dict[str, Any]) -> None:
    """What a worker does."""
    given["run"](given["config"], given["output"], False)


def begun_again() -> bool:
    """Whether torchrun started these processes anew, after one of them died: what is there is gone on with,
    whatever the command says of starting over.
    """
    return int(os.environ.get(RESTARTS, "0")) > 0


def shared_out(
    name: str, run: Callable[[Config, Place, bool], stage.Summary], config: Config, output: Place, fresh: bool
) -> stage.Summary:
    """A stage that is made of shards, DIR/<name>: every process makes its share of them."""
    with peers_of(config) as peers:
        if peers.count == 1:
            return run(config, output, fresh)
        if peers.told(fresh):
            peers.told(clear(output / name) if peers.first else None)
        made = peers.total(run(_of_one(config, peers), output, False).made)
        closed = run(config, output, False) if peers.first else None
        told = peers.told(closed)
        assert told is not None
        return replace(told, made=told.made + made, kept=max(0, told.kept - made))


def by_the_first(run: Callable[[Config, Place, bool], T], config: Config, output: Place, fresh: bool) -> T:
    """A stage that one process does alone; the others wait for what it says."""
    with peers_of(config) as peers:
        told = peers.told(run(config, output, fresh) if peers.first else None)
        assert told is not None
        return told


def made(
    peers: Peers, config: Config, folder: Place, make: Callable[[Config], Artifact | None]
) -> Artifact | None:
    """What `make` leaves in `folder`, or None where that is nothing; every process makes its share of it.
    What is there of another recipe is started over: it is of a training that was started over, too.
    """
    mine = config if peers.count == 1 else _of_one(config, peers)
    try:
        found, stale = make(mine), 0
    except StaleArtifact:
        found, stale = None, 1
    if peers.total(stale):  # of none before all have seen it
        peers.told(clear(folder) if peers.first else None)
        found = make(mine)
    if peers.count == 1:
        return found
    peers.told(None)
    found = make(config) if peers.first else None
    left = peers.told(found.folder if found else None)
    return found or (Artifact.open(left) if left else None)


def trained(
    peers: Peers,
    folder: Place,
    manifest: Manifest,
    plan: Mapping[str, Sequence[str]],
    fresh: bool,
    learn: Callable[[], T],
    keep: Callable[[Shard, T], object],
    keep_trained: bool,
) -> stage.Summary:
    """Make `folder` complete by a training that all take part in, `learn`; the first process then leaves what
    was learned in a shard, `keep`. `fresh` also removes `folder`/training, from which a training resumes.
    With `keep_trained` what is complete stays, though it learned from other inputs.

    Raises StaleArtifact as `begin`.
    """
    if not peers.first:
        if peers.told(False):
            learn()
        peers.told(None)
        return stage.summary(Artifact.open(folder), made=0)
    other = None if fresh else _taught_by_others(folder, manifest)
    if other is not None and not keep_trained:
        remedy = "--fresh trains anew, --set keep_trained=true goes on with what it knows. What differs:"
        changes = difference(other, manifest)
        raise StaleArtifact("\n  ".join([f"{folder}: has learned from other inputs; {remedy}", *changes]))
    with begin(folder, other or manifest, plan, fresh) as writer:
        peers.told(bool(writer.missing))
        for shard in writer.missing:
            if fresh:
                remove_folder(folder / "training")
            keep(shard, learn())
        summary = stage.summary(writer.finish(), made=len(writer.missing))
    peers.told(None)
    return replace(summary, note="kept, though it has learned from other inputs") if other else summary


def _taught_by_others(folder: Place, manifest: Manifest) -> Manifest | None:
    """The recipe of what is complete there, where it differs from this one in its inputs alone."""
    try:
        stored = Artifact.open(folder).manifest
    except ArtifactError:
        return None
    return stored if stored != manifest and replace(stored, inputs=manifest.inputs) == manifest else None


def _of_one(config: Config, peers: Peers) -> Config:
    """The config of the share that is this process's."""
    return config.model_copy(update={"share": (peers.rank, peers.count)})
