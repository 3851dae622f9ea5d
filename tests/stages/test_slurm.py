"""The script for SLURM: valid, and its jobs, in the order it asks for, leave the bytes of one run."""

import itertools
import os
import shlex
import subprocess
import sys

import pytest
from fixtures.processes import Forks, snapshot

SBATCH = """#!/bin/bash
# Notes what it was asked, and says a number.
{ printf '%s\\0' "$@"; printf '\\n'; } >> "$JOBS"
echo "$(wc -l < "$JOBS");cluster"
"""
TASKS = 2


@pytest.fixture(scope="module")
def forks():
    with Forks() as server:
        yield server


@pytest.fixture
def asked(pictures):
    """The arguments of a run, two of its three settings awkward to a shell."""
    files = ("--pairs", pictures / "pairs.jsonl", "--truth", pictures / "truth.jsonl")
    return ("run", "custom", *files, "--set", "shard_size=1", "--set", "views.words=it's {} $HOME")


def submitted(script, tmp_path, *options):
    """The jobs that a cluster is asked for: [(options by name, command)]."""
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "sbatch"
    fake.write_text(SBATCH)
    fake.chmod(0o755)
    jobs = tmp_path / "jobs"
    around = {**os.environ, "PATH": f"{fake.parent}:{os.environ['PATH']}", "JOBS": str(jobs)}
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    ended = subprocess.run(
        ["bash", "-s", "--", *options], input=script, env=around, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    asked = [line.split("\0")[:-1] for line in jobs.read_text().splitlines()]
    assert ended.stdout == f"the last job is {len(asked)}\n"
    return [dict(word.removeprefix("--").partition("=")[::2] for word in words) for words in asked]


def expanded(wrapped, task):
    """The words of a job's command, as its shell reads them; `ppt` itself is `ran`."""
    ran = f"srun() {{ shift 3; printf '%s\\0' \"$@\"; return $CODE; }}; {wrapped}"
    said = []
    for code, well in (("0", True), ("3", True), ("1", False), ("143", False)):
        around = {**os.environ, "SLURM_ARRAY_TASK_ID": str(task), "CODE": code}
        ended = subprocess.run(["bash", "-c", ran], env=around, capture_output=True, text=True, check=False)
        assert (ended.returncode == 0) == well, "skipped items do not stop the stages behind"
        said.append(ended.stdout.split("\0")[:-1])
    return said[0]


@pytest.mark.slow
def test_the_jobs_of_the_script_leave_the_bytes_of_one_run(forks, asked, tmp_path):
    log, alone, here = tmp_path / "log", tmp_path / "alone" / "run", tmp_path / "there" / "run"
    assert forks.run(log, *asked, "--output", alone).code == 0
    script = forks.run(log, *asked, "--output", here, "--slurm-array", TASKS).printed
    jobs = submitted(script, tmp_path, "--partition=small")
    names = [job["job-name"] for job in jobs]
    assert names == [
        "ppt-records", "ppt-relevance-shards", "ppt-relevance", "ppt-masks-shards", "ppt-masks",
        "ppt-labels-shards", "ppt-labels", "ppt-views-shards", "ppt-views", "ppt-quality", "ppt-evaluate",
        "ppt-report",
    ]  # fmt: skip
    for number, job in enumerate(jobs):
        assert job.get("dependency") == (f"afterok:{number}" if number else None)
        assert job["partition"] == "small"
        tasks = [*range(TASKS)][::-1] if "array" in job else [0]
        assert job.get("array") in (None, f"0-{TASKS - 1}")
        for task in tasks:
            ended = forks.run(log, *expanded(job["wrap"], task))
            assert ended.code == 0, ended.printed
    for path in (alone, here):
        (path / "times.jsonl").unlink()
    assert snapshot(here) == snapshot(alone)


def test_a_training_is_one_job_of_torchrun(command, pictures, tmp_path):
    output, files = tmp_path / "a run", ("--pairs", pictures / "pairs.jsonl")
    how = ("--set", "points.method=generator", "--set", "with_segmenter=true")
    said = command("run", "custom", *files, "--output", output, *how, "--slurm-array", 3, "--slurm-gpus", 4)
    jobs = {job["job-name"]: job for job in submitted(said.out, tmp_path)}
    for name in ("points", "segmenter"):
        job = jobs[f"ppt-{name}"]
        assert job["gpus-per-node"] == "4"
        words = shlex.split(job["wrap"])
        torchrun = ["srun", sys.executable, "-m", "torch.distributed.run", "--standalone"]
        assert words[:9] == [*torchrun, "--nproc-per-node", "4", "--max-restarts", "3"]
        assert words[9:13] == ["-m", "ppt", name, "custom"]
        assert words[words.index("--output") + 1] == str(output)
    assert jobs["ppt-masks-shards"]["gpus-per-node"] == "1"
    assert "gpus-per-node" not in jobs["ppt-labels"]


def test_a_share_is_made_by_the_stages_own_command(command, asked, output):
    _, *files = asked
    assert command("records", *files, "--output", output).code == 0
    for name, part in itertools.product(("relevance", "masks"), ("0/2", "1/2", None)):
        said = command(name, *files, "--output", output, *(("--shards", part) if part else ()))
        assert said.code == 0, said.err
        if part:
            assert f"share {part[0]} of 2; the same command without --shards closes the stage" in said.out
            assert not (output / name / "index.json").exists()
        else:
            assert "0 shards made, 4 kept" in said.out


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("masks", "--shards", "2/2"), "counted from 0, the shares of 2 end with 1"),
        (("masks", "--shards", "two"), "expected a number from 0 and their count, as 3/16 (got 'two')"),
        (("quality", "--shards", "0/2"), "quality is not made of shards that can be shared out"),
        (("run", "--set", "share=[0, 2]"), "share: is of one stage, and a run has several"),
        (("records", "--shards", "0/2", "--fresh"), "cannot begin afresh what others write, too"),
        (("run", "--slurm-array", "2", "--fresh"), "--fresh: not with --slurm-array"),
    ],
)
def test_what_cannot_be_shared_out_is_refused(command, asked, output, arguments, why):
    stage, *more = arguments
    said = command(stage, *asked[1:], "--output", output, *more)
    assert said.code == 2
    assert why in said.err
