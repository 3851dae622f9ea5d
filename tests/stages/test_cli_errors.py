"""The command line when something is wrong: refusals before any work, failed items, signals, closed pipes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fixtures.models import SLOW
from fixtures.pictures import read_rows
from fixtures.processes import ENVIRONMENT, RUNNER, snapshot

from pipelines import cli

ROOT = Path(__file__).parents[2]
CUSTOM = ROOT / "configs" / "custom.yaml"
STAGES = ("records", "relevance", "masks", "labels", "views", "quality", "evaluate")


def yaml_file(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return path


# --- refusals before any work

BAD_CONFIGS = {
    "unknown key": ("points:\n  metod: peak\n", r"mine.yaml: points.metod: unknown key (got 'peak')"),
    "unknown section": ("point: {}\n", "mine.yaml: point: unknown key"),
    "twice": ("seed: 1\nseed: 2\n", "mine.yaml:2: key 'seed' twice"),
    "type": ("seed: one\n", "mine.yaml: seed: Input should be a valid integer (got 'one')"),
    "quoted number": ("shard_size: '3'\n", "mine.yaml: shard_size: Input should be a valid integer"),
    "range": (
        "masks:\n  max_area: 1.5\n",
        "mine.yaml: masks.max_area: Input should be less than or equal to 1",
    ),
    "choice": ("points:\n  method: best\n", "mine.yaml: points.method: Input should be 'peak', 'surgery'"),
    "syntax": ("seed: [1\n", "mine.yaml:2:"),
    "no mapping": ("- 1\n", "mine.yaml: expected sections and keys, got list"),
}


@pytest.mark.parametrize("kind", BAD_CONFIGS)
def test_a_bad_config_stops_with_file_key_and_reason(command, pictures, tmp_path, kind):
    text, reason = BAD_CONFIGS[kind]
    arguments = ("--pairs", pictures / "pairs.jsonl", "--output", tmp_path / "out")
    for name in ("run", *STAGES):
        said = command(name, yaml_file(tmp_path, text), *arguments)
        assert (said.code, said.out) == (2, "")
        assert reason in said.err
        assert "Traceback" not in said.err
    assert not (tmp_path / "out").exists()


def test_a_device_that_is_not_there_stops_before_any_work(command, pictures, tmp_path):
    said = command(
        *("run", "custom", "--pairs", pictures / "pairs.jsonl", "--set", "device=cuda:99"),
        *("--output", tmp_path / "out"),
    )
    assert (said.code, said.out) == (2, "")
    assert "device: device 'cuda:99' is not available" in said.err
    assert not (tmp_path / "out").exists()


def test_all_problems_are_told_at_once(command, tmp_path):
    said = command("run", yaml_file(tmp_path, "seed: one\nclip: {sise: 3}\n"), "--output", tmp_path / "out")
    assert "seed: " in said.err
    assert "clip.sise: unknown key" in said.err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("run",), "CONFIG"),
        (("records", "custom"), "--output"),
        (("run", "nowhere.yaml"), "nowhere.yaml: cannot be read"),
        (("run", "nothing"), "no shipped config of that name; there are custom, cutouts, demo"),
        (("run", "custom"), "records.pairs: name the file of pairs with --pairs"),
        (("run", "custom", "--pairs", "nowhere.jsonl"), "nowhere.jsonl"),
        (("run", "custom", "--set", "seed"), "expected section.key=value, got 'seed'"),
        (("run", "custom", "--set", "masks.max_area=2"), "masks.max_area"),
        (("run", "custom", "--limit", "0"), "--limit"),
        (("run", "custom", "--colour", "red"), "--colour"),
        (("sing",), "sing"),
        (("report", "nowhere"), "nowhere holds no finished records stage"),
        (("relevance", "custom", "--output", "nowhere"), "run its stage"),
    ],
)
def test_wrong_usage_stops_with_a_reason_and_nothing_written(command, arguments, reason):
    said = command(*arguments)
    assert (said.code, said.out) == (2, "")
    assert reason in said.err
    assert "Traceback" not in said.err
    assert list(Path().iterdir()) == []


def test_a_truth_that_is_not_there_is_noticed_before_any_work(command, pictures, tmp_path):
    files = ("--pairs", pictures / "pairs.jsonl", "--truth", "nowhere.jsonl")
    said = command("run", CUSTOM, *files, "--output", tmp_path / "out")
    assert said.code == 2
    assert "nowhere.jsonl is not there" in said.err
    assert not (tmp_path / "out").exists()


def test_missing_weights_name_the_file(pictures, tmp_path, monkeypatch, capsys):
    files = ["--pairs", str(pictures / "pairs.jsonl"), "--output", str(tmp_path / "out")]
    own = ["--set", "clip.weights=gone/clip.safetensors"]
    monkeypatch.setattr(sys, "argv", ["ppt", "run", str(CUSTOM), *files, *own])
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    assert "gone/clip.safetensors: no such weights file" in capsys.readouterr().err


# --- what went wrong on the way


def test_skipped_items_are_told_and_exit_3(command, pictures, whole, tmp_path):
    (pictures / "b.png").write_bytes(b"nothing")
    said = command(*whole)
    assert said.code == 3
    assert "records: 5 items, 2 skipped (bad_image 2)" in said.out
    assert "2 missing" in said.out
    assert command(*whole).code == 3, "still so when there is nothing left to do"
    assert command("records", CUSTOM, *whole[2:]).code == 3


def test_where_every_item_fails_the_run_has_failed(command, pictures, whole, tmp_path):
    for path in (*pictures.glob("*.png"), *pictures.glob("*.jpg")):
        path.write_bytes(b"nothing")
    said = command(*whole)
    assert said.code == 1
    assert "no item came through records" in said.err
    assert command("records", CUSTOM, *whole[2:]).code == 1
    assert len(read_rows(tmp_path / "out" / "records" / "failures.jsonl")) == 7


def test_an_error_of_the_program_exits_1_with_one_line(command, whole, monkeypatch):
    monkeypatch.delenv("PPT_TRACEBACK", raising=False)
    from pipelines import s4_labels

    def broken(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(s4_labels, "shard_of_labels", broken)
    said = command(*whole)
    assert (said.code, said.err) == (1, "ppt: [Errno 28] No space left on device\n")


def test_the_signals_are_given_back(command):
    numbers = signal.SIGINT, signal.SIGTERM
    before = [signal.signal(number, signal.SIG_DFL) for number in numbers]
    try:
        command("--version")
        assert [signal.getsignal(number) for number in numbers] == [signal.SIG_DFL] * 2
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


# --- processes


@pytest.fixture
def slow(pictures, tmp_path):
    """A run that has done the first shard of masks and takes its time over the second; its arguments."""
    files = ["--pairs", str(pictures / "pairs.jsonl")]
    arguments = [*RUNNER, "run", str(CUSTOM), *files, "--set", "shard_size=1"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    output = ["--output", str(tmp_path / "cut" / "out")]
    with subprocess.Popen([*arguments, *output], env={**ENVIRONMENT, SLOW: "1"}, **pipes) as process:
        first, until = Path(output[1], "masks/shards/00000.done.json"), time.monotonic() + 60
        while not first.exists() and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(0.1)
        yield process, arguments
        process.kill()


@pytest.mark.parametrize(
    ("number", "code"), [pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow), (signal.SIGTERM, 143)]
)
def test_a_signal_stops_after_the_shard_and_the_same_command_resumes(slow, command, tmp_path, number, code):
    process, arguments = slow
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    told = f"ppt: stopped by {number.name}; the same command resumes\n"
    assert err == told
    masks = tmp_path / "cut" / "out" / "masks"
    assert len(list(masks.glob("shards/*.done.json"))) in (1, 2)
    assert not (masks / "index.json").exists()
    output = ["--output", str(tmp_path / "cut" / "out")]
    subprocess.run([*arguments, *output], env=ENVIRONMENT, check=True, capture_output=True)
    assert command(*arguments[len(RUNNER) :], "--output", tmp_path / "whole" / "out").code == 0
    assert snapshot(tmp_path / "cut" / "out") == snapshot(tmp_path / "whole" / "out")


def test_a_second_signal_does_not_wait(slow, tmp_path):
    process, _ = slow
    for number in (signal.SIGINT, signal.SIGTERM):
        process.send_signal(number)
        time.sleep(0.2)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (143, "ppt: stopped by SIGTERM; the same command resumes\n")
    assert len(list((tmp_path / "cut" / "out" / "masks").glob("shards/*.done.json"))) == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_before_the_first_shard_stops_at_once(command, whole, monkeypatch, number, code):
    from pipelines import s0_records

    monkeypatch.setattr(s0_records.pairs, "read", lambda _: os.kill(os.getpid(), number))
    said = command(*whole)
    assert (said.code, said.err) == (code, "ppt: stopped; the same command resumes\n")


def test_it_runs_from_anywhere_with_relative_paths_and_is_quiet_without_a_terminal(pictures, tmp_path):
    command = [*RUNNER, "run", "custom", "--pairs", "pictures/pairs.jsonl", "--output", "mine/out"]
    ended = subprocess.run(
        command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert (tmp_path / "mine" / "out" / "report.html").exists()


def test_a_closed_pipe_is_no_traceback(pictures, tmp_path):
    files = ["--pairs", str(pictures / "pairs.jsonl"), "--output", str(tmp_path / "out")]
    command = [*RUNNER, "run", "custom", *files]
    process = subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 1
    assert "Traceback" not in err


def test_a_typing_error_costs_no_wait_for_torch():
    code = (
        "import sys; from pipelines.cli import main\n"
        "try: main()\n"
        "except SystemExit as stop: print(stop.code, 'torch' in sys.modules)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, "run", "custom", "--set", "seed=one"],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    assert ended.stdout == "2 False\n"
