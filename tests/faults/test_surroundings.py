"""Where and how a command is run: its locale, clock, folder, streams and terminal. None has a say in the
bytes, and none makes a traceback.
"""

import contextlib
import fcntl
import os
import pty
import re
import socket
import struct
import subprocess
import sys
import termios

import pytest
from fixtures.pictures import read_rows, write_rows
from fixtures.processes import ENVIRONMENT, RUNNER, snapshot

from pipelines import cli, exits

ODD = "die große Scheibe 🔴 العربية cafe\u0301 \x1b[31mred\x07 \u202e turned"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Pairs with sentences of any script, and a config of the user's own in UTF-8."""
    from fixtures.pictures import make_pictures

    folder = make_pictures(tmp_path_factory.mktemp("data") / "pictures")
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
    """The folder of the pairs, and what a run leaves where nothing is odd."""
    return data, done(data, tmp_path_factory.mktemp("usual") / "run")


@pytest.fixture
def command_here(monkeypatch, capsys):
    """`ppt ...` in this process: (exit code, printed, printed as error)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["ppt", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        return (left.value.code, *capsys.readouterr())

    return call


PLAIN = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
JUMPS = """
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


def test_an_ascii_locale_another_zone_a_strict_umask_and_no_home_have_no_say(usual, tmp_path):
    data, seen = usual
    bare = {"PYTHONPATH": ENVIRONMENT["PYTHONPATH"], "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "1"}
    environment = bare | PLAIN | {"TZ": "Pacific/Kiritimati"}
    output = tmp_path / "run"
    assert done(data, output, environment, preexec_fn=lambda: os.umask(0o077)) == seen
    assert {path.stat().st_mode & 0o077 for path in output.rglob("*")} == {0}


@pytest.mark.slow
def test_a_turkish_locale_a_clock_that_jumps_and_a_narrow_terminal_have_no_say(usual, tmp_path):
    """The clock goes backwards and forwards by years, between any two questions."""
    data, seen = usual
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 10, 40, 0, 0))
    environment = ENVIRONMENT | {"LC_ALL": "tr_TR.UTF-8", "TZ": "America/St_Johns", "PYTHONHASHSEED": "2"}
    rest = command(data, tmp_path / "run")[len(RUNNER) :]
    process = subprocess.Popen(
        [sys.executable, "-c", JUMPS, *rest], env=environment, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    said = b""
    with contextlib.suppress(OSError):  # its other end is closed
        while piece := os.read(ours, 4096):
            said += piece
    os.close(ours)
    assert process.wait() == 0
    assert snapshot(tmp_path / "run") == seen
    text = said.decode()
    assert "Traceback" not in text
    bars = re.findall(r"\w+: +0%\|[^\r\n\]]*", text)
    assert bars, "a terminal sees how far it is"
    assert max(map(len, bars)) <= 40, bars


def test_a_folder_that_is_gone_is_told_before_any_work(command_here, tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    code, _, error = command_here("run", "custom", "--pairs", tmp_path / "pairs.jsonl")
    assert (code, error) == (2, "ppt: the folder that this was started in is gone; start it in another\n")


def test_a_path_that_is_no_text_is_told_before_any_work(command_here):
    code, _, error = command_here("run", "custom", "--pairs", "caf\udce9.jsonl")
    assert code == 2
    assert "--pairs: 'caf\\udce9.jsonl' is no text in this locale" in error


# --- no network


def test_nothing_is_asked_of_a_network_and_missing_weights_are_told(
    command_here, data, tmp_path, monkeypatch
):
    def connect(*_):
        pytest.fail("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", connect)
    for name in ("HF_HUB_OFFLINE", "HF_ENDPOINT", "HF_HOME", "PPT_WEIGHTS", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    own = ("--set", "clip.model=ViT-B-16", "--set", "clip.weights=openai")
    code, _, error = command_here(
        "run", "custom", "--pairs", data / "pairs.jsonl", "--output", tmp_path / "run", *own
    )
    assert code == 2
    digest = "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f"
    for part in ("ViT-B-16", digest, "ppt weights fetch"):
        assert part in error


# --- streams and terminals


def test_closed_streams_are_no_error_and_no_file_gets_their_numbers(usual, tmp_path):
    data, seen = usual
    words = " ".join(f"'{word}'" for word in command(data, tmp_path / "run"))
    closed = ["sh", "-c", f"exec {words} <&- >&- 2>&-"]
    ended = subprocess.run(closed, env=ENVIRONMENT, check=False)
    assert ended.returncode == 0
    assert snapshot(tmp_path / "run") == seen


def test_what_an_encoding_lacks_is_written_as_numbers(monkeypatch, capfd):
    with open(1, "w", encoding="iso-8859-1", closefd=False) as narrow:
        monkeypatch.setattr(sys, "stdout", narrow)
        exits.stand_ready()
        exits.tell("size 🔴")
    assert capfd.readouterr().out == "size \\U0001f534\n"


def test_a_terminal_obeys_nothing_that_stands_in_a_name_or_a_sentence(command_here, pictures, tmp_path):
    evil = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp.\r"
    rows = [{"image": "a.png", "text": "red", "split": evil}, {"image": f"{evil[-5]}.png", "text": "red"}]
    write_rows(pictures / "pairs.jsonl", rows)
    drawn = ("--pairs", pictures / "pairs.jsonl", "--output", tmp_path / "drawn.png")
    told, wrong = command_here("data", "check", "custom", *drawn), command_here("run", f"{evil}.yaml")
    assert (told[0], "owned" in told[1]) == (1, True)
    assert (wrong[0], "owned" in wrong[2]) == (2, True)
    for text in (*told[1:], *wrong[1:]):
        assert not {"\x1b", "\x07", "\x9b", "\u202e", "\r"} & set(text), text


def test_what_is_shown_says_what_it_was():
    assert exits.shown("a\x1b[2J\n\tb\u202e العربية 👩‍🚀") == "a\\x1b[2J\n\tb\\u202e العربية 👩‍🚀"
