"""`ppt run ... --slurm-array N`: a bash script that has SLURM run all stages, one after the other.

    ppt run CONFIG.yaml --pairs PAIRS --output DIR --slurm-array 16 | bash -s -- --partition gpu

A stage that is made of shards is an array of N tasks, each of which makes its share of them, and one more job
that checks them and closes the stage. A training is one job of torchrun on one machine. What follows `--`
goes to every sbatch. A job that was stopped may be submitted again, and so may the whole script: what is
there is kept.
"""

import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from pipelines import run
from ppt.config import Config, ConfigError

IN_ARRAYS = ("relevance", "masks", "labels", "predictions", "views")
"""Stages whose shards are worth tasks of their own; to cut records into shards every image is read anyhow."""
ON_GPUS = ("relevance", "masks", "predictions", "views")
RESTARTS = 3
"""Times that torchrun starts a training's processes again after one of them died."""
HEAD = """#!/bin/bash
# All stages of {output}, as jobs of SLURM. Arguments go to every sbatch: bash SCRIPT --partition gpu
set -euo pipefail
options=("$@")

job() {{  # NAME AFTER COMMAND [OPTION ...]: submits it to run once job AFTER went well; prints its number
    local name=$1 after=${{2:+--dependency=afterok:$2}} command=$3
    shift 3
    # Items that were passed over, which is code 3, stop no stage.
    sbatch --parsable --requeue --kill-on-invalid-dep=yes --job-name="ppt-$name" $after "$@" \\
        ${{options[@]+"${{options[@]}}"}} \\
        --wrap="$command || [ \\$? -eq 3 ]" | cut -d ';' -f 1
}}

"""


@dataclass(frozen=True)
class Command:
    """What `ppt run` was asked: config as named, the run's folder, settings, files of pairs and truth."""

    config: str
    output: str
    overrides: tuple[str, ...] = ()
    pairs: str | None = None
    truth: str | None = None

    def stage(self, name: str) -> str:
        """The arguments of `ppt` that run one stage, for a shell."""
        words = [name, self.config, "--output", str(self.output)]
        for option, given in (("--pairs", self.pairs), ("--truth", self.truth)):
            words += [option, str(given)] if given else []
        for override in self.overrides:
            words += ["--set", override]
        return shlex.join(words)


def script(config: Config, command: Command, tasks: int, gpus: int, fresh: bool = False) -> str:
    """The script. gpus: of a training, and a process for each; other jobs that have a use for one get one,
    and none where that is 0. Raises ConfigError for `fresh`: a job that is run again would begin afresh, too.
    """
    if fresh:
        raise ConfigError(f"--fresh: not with --slurm-array; remove {command.output} instead")
    return HEAD.format(output=command.output) + "\n".join(_jobs(config, command, tasks, gpus)) + "\n"


def _jobs(config: Config, command: Command, tasks: int, gpus: int) -> Iterator[str]:
    ppt = f"srun {shlex.quote(sys.executable)} -m ppt"
    yield "last="
    for name in run.names(config):
        needed = name in ON_GPUS or config.device.startswith("cuda")
        one = " --gpus-per-node=1" if gpus and needed else ""
        alone = shlex.quote(f"{ppt} {command.stage(name)}")
        if name in run.TRAININGS:
            several = f" --gpus-per-node={gpus}" if gpus else ""
            yield f'last=$(job {name} "$last" {_trained(command.stage(name), gpus)}{several})'
            continue
        if name in IN_ARRAYS:
            share = f" --shards $SLURM_ARRAY_TASK_ID/{tasks}"
            shared = shlex.quote(f"{ppt} {command.stage(name)}{share}")
            yield f'last=$(job {name}-shards "$last" {shared}{one} --array=0-{tasks - 1})'
        yield f'last=$(job {name} "$last" {alone}{one})'
    report = shlex.quote(f"{ppt} {shlex.join(['report', str(command.output)])}")
    yield f'last=$(job report "$last" {report})'
    yield 'echo "the last job is $last"'


def _trained(arguments: str, gpus: int) -> str:
    """The command of a training in a process for each GPU, quoted for a shell."""
    torchrun = f"srun {shlex.quote(sys.executable)} -m torch.distributed.run --standalone"
    return shlex.quote(
        f"{torchrun} --nproc-per-node {max(1, gpus)} --max-restarts {RESTARTS} -m ppt {arguments}"
    )
