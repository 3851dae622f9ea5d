"""A training in several workers of a Ray cluster, by Ray Train, which joins them into one group of processes.

After a worker's death all of them are begun again, as by torchrun, and go on from the last checkpoint: the
training's own, which lies on the disk that all nodes share. Of Ray's checkpoints none is used.
"""

from collections.abc import Callable
from typing import Any

from ppt import ray_actors
from ppt.config import ConfigError
from ppt.engine import EngineError
from ppt.places import Place, remove_folder
from ppt.settings import RayConfig

DEATHS = 3
"""Of workers that a training survives."""
SECONDS = 3600
"""For which workers wait for one another's gradients."""
NOTES = ".ray"
"""Folder of what Ray notes down meanwhile."""


def train_together(
    settings: RayConfig, work: Callable[[dict[str, Any]], None], given: dict[str, Any], at: Place
) -> None:
    """Call `work(given)` in as many workers as the settings say or the cluster has room for; there
    `ppt.peers.joined` finds the group of them all. `at`: a folder that all nodes share.

    Raises ConfigError where Ray or what it needs for trainings is not installed, and EngineError with what
    a worker said where it failed, or died, more than DEATHS times.
    """
    ray_actors.connect(settings)
    try:
        from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
        from ray.train.torch import TorchConfig, TorchTrainer
    except ImportError:
        raise ConfigError('engine: Ray Train is not installed; pip install "ray[train]"') from None
    share = {"CPU": settings.cores, "GPU": settings.gpus, "memory": settings.memory_gib * 2**30}
    trainer = TorchTrainer(
        work,
        train_loop_config=given,
        torch_config=TorchConfig("cpu:gloo,cuda:nccl" if settings.gpus else "gloo", timeout_s=SECONDS),
        scaling_config=ScalingConfig(
            num_workers=ray_actors.Cluster(settings).size,
            use_gpu=settings.gpus > 0,
            resources_per_worker={name: amount for name, amount in share.items() if amount},
        ),
        run_config=RunConfig(
            storage_path=str((at / NOTES).absolute()), failure_config=FailureConfig(max_failures=DEATHS)
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        raise EngineError(f"{at}: the training on Ray failed: {error}") from None
    finally:
        remove_folder(at / NOTES)
