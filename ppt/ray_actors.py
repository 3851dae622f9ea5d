"""Workers that are actors of a Ray cluster, which may be started here. No module but this and
`ray_training` imports ray.

Each actor has its share of the cluster: some cores, GPUs, memory. Nodes need this version of ppt, the images
and the weights under the same paths, and the output's folder on a disk that all share. Ray's telemetry is
off, and nothing is sent but the stage's function, its settings and the names of what is in a shard.
"""

import logging
import os
import platform
import signal
import socket
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ppt import __version__
from ppt.config import ConfigError
from ppt.engine import EngineError, WorkerDied
from ppt.settings import RayConfig

LOCAL = "local"
_STORE = 256 * 2**20
"""Bytes of shared memory that a cluster of this machine gets: no results go through it."""


def connect(settings: RayConfig) -> None:
    """Join the cluster that the settings name, or start one here; where this process is of one, keep it.

    Raises ConfigError where ray is not installed, the cluster cannot be joined, or none of its nodes has what
    one actor asks for.
    """
    with _signals_kept():
        try:
            import ray
        except ImportError:
            raise ConfigError(
                'engine: ray is not installed; pip install "ray[train]", or set engine=local'
            ) from None
        if not ray.is_initialized():
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            here = settings.address == LOCAL
            try:
                _must_answer(settings.address)
                ray.init(
                    settings.address,
                    object_store_memory=_STORE if here else None,
                    include_dashboard=False if here else None,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
            except (OSError, ValueError, RuntimeError) as error:  # nobody there; no address; another Python
                raise ConfigError(
                    f"ray.address: {settings.address}: cannot join a cluster ({error})"
                ) from None
    if _capacity(settings) == 0:
        raise ConfigError(
            f"ray: no node has what one actor asks for: {settings.cores} cores, {settings.gpus:g} GPUs,"
            f" {settings.memory_gib:g} GiB; the most that one has: {_largest()}"
        )


@dataclass(frozen=True)
class Cluster:
    """A crew of actors, as many as the settings say or as the cluster has room for."""

    settings: RayConfig

    @property
    def size(self) -> int:
        return self.settings.actors or _capacity(self.settings)

    def hiring(
        self, function: Callable[[Any, Any], Any], make_context: Callable[[], Any]
    ) -> "Callable[[], Actor]":
        import ray

        given = ray.put((function, make_context))  # once: a context may be told much
        work = ray.remote(**_share(self.settings))(_Work)
        return lambda: Actor(work.remote(given))


class Actor:
    """One of them. Its process goes when this one does."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def begin(self) -> "Future[Any]":
        return self._handle.begin.remote(__version__).future()

    def submit(self, shard: Any) -> "Future[Any]":
        return self._handle.work.remote(shard).future()

    def outcome(self, future: "Future[Any]") -> Any:
        from ray.exceptions import RayError, RayTaskError

        try:
            return future.result()
        except RayTaskError as error:
            raise error.cause from None
        except RayError as error:
            raise WorkerDied(str(error)) from None

    def leave(self) -> None:
        self._handle.__ray_terminate__.remote()

    def kill(self) -> None:
        import ray

        ray.kill(self._handle)


class _Work:
    """What an actor is made of."""

    def __init__(self, given: Any) -> None:
        # Ray stops the actors; a terminal or a scheduler that signals the whole group does not.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._function, self._make_context = given
        self._contexts: list[Any] = []

    def begin(self, version: str) -> None:
        if version != __version__:
            raise EngineError(
                f"{platform.node()} has ppt {__version__}, this run is of {version}; install one on all nodes"
            )

    def work(self, shard: Any) -> Any:
        if not self._contexts:
            self._contexts.append(self._make_context())
        return self._function(self._contexts[0], shard)


def _must_answer(address: str) -> None:
    """Raises OSError where nobody listens there; Ray itself would ask for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10).close()


def _share(settings: RayConfig) -> dict[str, Any]:
    share = {"num_cpus": settings.cores, "num_gpus": settings.gpus}
    return share | ({"memory": int(settings.memory_gib * 2**30)} if settings.memory_gib else {})


def _capacity(settings: RayConfig) -> int:
    """How many actors the nodes that are there have room for."""
    import ray

    wanted = {"CPU": settings.cores, "GPU": settings.gpus, "memory": settings.memory_gib * 2**30}
    return sum(
        min(int(node["Resources"].get(name, 0) // amount) for name, amount in wanted.items() if amount)
        for node in ray.nodes()
        if node["Alive"]
    )


def _largest() -> str:
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    most = {name: max((node.get(name, 0) for node in nodes), default=0) for name in ("CPU", "GPU", "memory")}
    return f"{most['CPU']:g} cores, {most['GPU']:g} GPUs, {most['memory'] / 2**30:.1f} GiB"


@contextmanager
def _signals_kept() -> Generator[None, None, None]:
    """Ray takes over what a signal does to the process; the command line has its own answer."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
