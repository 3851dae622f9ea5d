"""Where and how a command is run: its locale, clock, folder, streams and terminal. None has a say in the
bytes, and none makes a traceback.
"""

import fcntl
import os
import pty
import shutil
import struct
import subprocess
import sys
import termios

import pytest
from fixtures.pictures import read_rows, write_rows
from fixtures.processes import ENVIRONMENT, RUNNER, snapshot

from pipelines import exits

ODD = "die große Scheibe 🔴 العربية cafe\u0301 \x1b[31mred\x07 \u202e turned"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Pairs with sentences of any script, and a config of the user's own in UTF-8."""
    from fixtures.pictures import make_pictures

    folder = make_pictures(tmp_path_factory.mktemp("data") / "größe")
    rows = read_rows(folder / "pairs.jsonl")
    write_rows(folder / "pairs.jsonl", [*rows, {"image": "a.png", "text": f"the red disc {ODD}"}])
    (folder / "own.yaml").write_text("# größer\nshard_size: 2\n", encoding="utf-8")
    return folder


def command(data, output):
    return [*RUNNER, "run", str(data / "own.yaml"), "--pairs", str(data / "pairs.jsonl"),
            "--truth", str(data / "truth.jsonl"), "--output", str(output)]  # fmt: skip


def done(data, output, environment=None, **options):
    """Run the command; what it left, less where it was."""
    ended = subprocess.run(
        command(data, output),
        **{"env": environment or ENVIRONMENT, "capture_output": True, "check": False, **options},
    )
    assert ended.returncode == 0, ended.stderr
    return snapshot(output)


@pytest.fixture(scope="module")
def usual(data, tmp_path_factory):
    return done(data, tmp_path_factory.mktemp("usual") / "run")


def without(*names):
    return {name: value for name, value in ENVIRONMENT.items() if name not in names}


PLAIN = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
SURROUNDINGS = {
    "an ASCII locale": ENVIRONMENT | PLAIN,
    "a Turkish one, in another zone": ENVIRONMENT | {"LC_ALL": "tr_TR.UTF-8", "TZ": "Pacific/Kiritimati"},
    "another order of hashes": ENVIRONMENT | {"PYTHONHASHSEED": "1", "TZ": "America/St_Johns"},
    "nothing at all": {"PYTHONPATH": ENVIRONMENT["PYTHONPATH"], "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "2"},
}


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_the_environment_has_no_say_in_the_bytes(data, usual, tmp_path, name):
    assert done(data, tmp_path / "run", SURROUNDINGS[name]) == usual


def test_a_folder_that_is_gone_and_a_strict_umask_have_no_say(data, usual, tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()

    def leave_no_folder():
        os.chdir(gone)
        os.rmdir(gone)
        os.umask(0o077)

    output = tmp_path / "run"
    assert done(data, output, without("HOME"), preexec_fn=leave_no_folder) == usual
    assert {path.stat().st_mode & 0o077 for path in output.rglob("*")} == {0}


def test_the_clock_may_jump(data, usual, tmp_path):
    """Backwards and forwards by years, between any two questions."""
    code = """
import random, sys, time
clock = random.Random(0)
for name in ("time", "monotonic", "perf_counter"):
    setattr(time, name, lambda: clock.uniform(0, 4e9))
for name in ("time_ns", "monotonic_ns", "perf_counter_ns"):
    setattr(time, name, lambda: clock.randrange(4 * 10**18))
from fixtures.runner import main
sys.argv[0] = "ppt"
main()
"""
    rest = command(data, tmp_path / "run")[len(RUNNER) :]
    ended = subprocess.run([sys.executable, "-c", code, *rest], env=ENVIRONMENT, capture_output=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert snapshot(tmp_path / "run") == usual


# --- no network


def test_nothing_is_asked_of_a_network_and_missing_weights_are_told(data, tmp_path):
    """With sockets out of reach, and nothing said of a hub."""
    code = """
import socket, sys

class Closed(socket.socket):
    def connect(self, *_):
        raise SystemExit("a connection was opened")

socket.socket = Closed
from pipelines.cli import main
sys.argv[0] = "ppt"
main()
"""
    environment = without("HF_HUB_OFFLINE", "HF_ENDPOINT", "HF_HOME", "PPT_WEIGHTS") | {"HOME": str(tmp_path)}
    rest = command(data, tmp_path / "run")[len(RUNNER) :]
    asked = ["--set", "clip.model=ViT-B-16", "--set", "clip.weights=openai"]
    ended = subprocess.run(
        [sys.executable, "-c", code, *rest, *asked], env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2, ended.stderr
    for part in ("ViT-B-16", "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f", "ppt weights fetch"):
        assert part in ended.stderr
    whole = subprocess.run(
        [sys.executable, "-c", code, *rest, "--limit", "1"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (whole.returncode, whole.stderr) == (0, ""), "the shipped weights need no network"


# --- streams and terminals


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_error_and_no_file_gets_their_numbers(data, usual, tmp_path, closed):
    words = " ".join(f"'{word}'" for word in command(data, tmp_path / "run"))
    ended = subprocess.run(["sh", "-c", f"exec {words} {closed}"], env=ENVIRONMENT, check=False)
    assert ended.returncode == 0
    assert snapshot(tmp_path / "run") == usual


def test_what_an_encoding_lacks_is_written_as_numbers(data, tmp_path):
    output = tmp_path / "größe"
    environment = ENVIRONMENT | PLAIN | {"PYTHONIOENCODING": "ascii:strict"}
    ended = subprocess.run(command(data, output), env=environment, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "report: " in ended.stdout
    assert ended.stdout.isascii()


def test_in_a_narrow_terminal_the_bar_stays_in_its_line(data, tmp_path):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 10, 40, 0, 0))
    process = subprocess.Popen(command(data, tmp_path / "run"), env=ENVIRONMENT, stdout=theirs, stderr=theirs)
    os.close(theirs)
    said = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # its other end is closed
            break
        if not piece:
            break
        said += piece
    os.close(ours)
    assert process.wait() == 0
    text = said.decode()
    assert "Traceback" not in text
    bars = [part for part in text.replace("\n", "\r").split("\r") if "item/s" in part or "?item" in part]
    assert bars, "a terminal sees how far it is"
    assert max(map(len, bars)) <= 40


def test_a_terminal_obeys_nothing_that_stands_in_a_name_or_a_sentence(data, tmp_path, capfdbinary):
    evil = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp.\r"
    rows = [{"image": "a.png", "text": "red", "id": evil}] * 2  # the second is refused, by its id
    write_rows(tmp_path / "pairs.jsonl", rows)
    shutil.copy(data / "a.png", tmp_path / "a.png")
    check = [*RUNNER, "data", "check", "custom", "--pairs", "pairs.jsonl", "--output", "drawn.png"]
    told = subprocess.run(check, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, check=False)
    missing = [*RUNNER, "run", f"{evil}.yaml"]
    wrong = subprocess.run(missing, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, check=False)
    assert b"duplicate_id 1" in told.stdout
    assert (wrong.returncode, b"owned" in wrong.stderr) == (2, True)
    for said in (told.stdout, told.stderr, wrong.stdout, wrong.stderr):
        text = said.decode()
        assert not {"\x1b", "\x07", "\x9b", "\u202e", "\r"} & set(text), text


def test_what_is_shown_says_what_it_was():
    assert exits.shown("a\x1b[2J\n\tb\u202e العربية 👩‍🚀") == "a\\x1b[2J\n\tb\\u202e العربية 👩‍🚀"
