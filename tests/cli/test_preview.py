"""`--preview` in a real terminal of the system, and `--open` with a real server."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from helpers.cli import environment
from helpers.photos import paint
from helpers.web_client import announced
from vitsearch import index_folder
from vitsearch.cli.serve import with_kind
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.web import page_at, recorded, running

pty = pytest.importorskip("pty")  # of POSIX
SECONDS = 120  # that a process may take on a busy machine


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("red", "blue"):
        paint(tmp_path / "photos" / f"{name}.png", name, size=(60, 40))
    paint(tmp_path / "photos" / "twin.png", "red", size=(60, 40))
    index_folder(tmp_path / "photos", encoder=ColourEncoder())
    return tmp_path / "photos"


def in_terminal(*arguments: str, answer: bytes = b"", **variables: str) -> str:
    """Run the command line in a terminal, which answers the query of its attributes, and return
    what it was sent.
    """
    child, terminal = pty.fork()
    if child == 0:
        os.environ.update(environment())
        for name in ("TERM_PROGRAM", "KITTY_WINDOW_ID", "TMUX", "STY", "COLORTERM"):
            os.environ.pop(name, None)
        os.environ.update({"TERM": "xterm-256color", **variables})
        os.execv(sys.executable, [sys.executable, "-m", "vitsearch", *arguments])
    sent, answered = b"", False
    while True:
        try:
            piece = os.read(terminal, 65_536)
        except OSError:  # its end
            break
        if not piece:
            break
        sent += piece
        if answer and not answered and b"\x1b[c" in sent:
            os.write(terminal, answer)
            answered = True
    os.waitpid(child, 0)
    os.close(terminal)
    return sent.decode("utf-8", "replace").replace("\r\n", "\n")


def test_the_kind_may_be_left_out() -> None:
    assert with_kind([]) == []
    assert with_kind(["photos", "--preview", "red"]) == ["photos", "--preview=auto", "red"]
    assert with_kind(["--preview", "kitty", "photos"]) == ["--preview", "kitty", "photos"]
    assert with_kind(["photos", "red", "--preview"]) == ["photos", "red", "--preview=auto"]


@pytest.mark.slow
def test_results_are_drawn_above_their_lines(photos: Path) -> None:
    found = ("search", str(photos), "red", "-k", "1", "--literal")
    text = in_terminal(*found, "--preview", COLORTERM="truecolor")
    lines = text.split("\n")
    blocks = [line for line in lines if "▀" in line]
    assert len(blocks) == 10
    assert all(line.count("▀") == 30 for line in blocks)
    after = lines[lines.index(blocks[0]) + 10]
    assert re.fullmatch(r"\d\.\d{4}\t(red|twin)\.png.*", after)
    asked = in_terminal(*found, "--preview", answer=b"\x1b[?62;4;22c")
    assert '\x1bPq"1;1;300;200' in asked
    kitty = in_terminal(*found, "--preview", TERM="xterm-kitty")
    assert "\x1b_Ga=T,f=100,q=2,c=30,r=10,m=0;" in kitty
    forced = in_terminal(*found, "--preview", "iterm2", TERM="xterm-kitty")
    assert "\x1b]1337;File=inline=1;" in forced
    assert "\x1b_G" not in forced


@pytest.mark.slow
def test_similar_and_dupes_are_drawn_too(photos: Path) -> None:
    alike = in_terminal("similar", str(photos), "red.png", "-k", "2", "--preview", "blocks")
    assert alike.count("▀") == 2 * 300
    twice = in_terminal("dupes", str(photos), "--only", "equal", "--preview", "blocks")
    assert twice.count("▀") == 2 * 300
    assert twice.index("▀") < twice.index("red.png") < twice.index("twin.png")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vitsearch", *arguments]
    return subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=SECONDS
    )


@pytest.mark.slow
def test_nothing_is_drawn_off_a_terminal(photos: Path) -> None:
    plain = run("search", str(photos), "red", "--literal")
    drawn = run("search", str(photos), "red", "--literal", "--preview", "kitty")
    assert (drawn.returncode, drawn.stdout) == (plain.returncode, plain.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["--json", "--paths"])
def test_forms_for_programs_have_no_pictures(photos: Path, form: str) -> None:
    refused = run("search", str(photos), "red", "--preview", form)
    assert refused.returncode == 2
    assert "--preview draws above lines for people: leave out --json, --paths" in refused.stderr


# -- --open ----------------------------------------------------------------------------------------


def test_the_address_of_a_page_has_the_key() -> None:
    assert page_at("http://127.0.0.1:1/?key=K", "/?q=a") == "http://127.0.0.1:1/?q=a&key=K"
    assert page_at("http://127.0.0.1:1/?key=K", "/") == "http://127.0.0.1:1/?key=K"
    assert page_at("http://127.0.0.1:1/", "/?q=a") == "http://127.0.0.1:1/?q=a"


def test_a_record_is_for_its_user_and_goes_with_the_server(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VITSEARCH_HOME", str(tmp_path / "home"))
    assert running(str(photos), None) == ""
    with recorded(str(photos), None, "http://127.0.0.1:9/?key=K"):
        (record,) = (tmp_path / "home" / "serving").iterdir()
        assert record.stat().st_mode & 0o777 == 0o600
        assert json.loads(record.read_text()) == {"entrance": "http://127.0.0.1:9/?key=K"}
        assert running(str(photos), None) == ""  # nobody answers there
    assert not record.exists()


@pytest.mark.slow
def test_another_server_at_the_same_port_is_not_taken(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record outlives a server that was killed, and its port is given to the next."""
    monkeypatch.setenv("VITSEARCH_HOME", str(tmp_path / "home"))
    paint(tmp_path / "others" / "green.png", "green")
    index_folder(tmp_path / "others", encoder=ColourEncoder())
    with announced(tmp_path / "others") as (_, entrance):
        assert running(str(tmp_path / "others"), None) == entrance
        former = f"{entrance.partition('?')[0]}?key=of-the-server-before"
        with recorded(str(photos), None, former):
            assert running(str(photos), None) == ""


@pytest.mark.slow
def test_a_server_that_asks_for_a_token_is_known(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VITSEARCH_HOME", str(tmp_path / "home"))
    with announced(photos, "--token", "a-token-of-some-length") as (_, entrance):
        assert running(str(photos), None) == entrance


@pytest.mark.slow
def test_results_are_opened_on_the_page(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = tmp_path / "opened"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" >> {opened}\n')
    browser.chmod(0o755)
    for name, value in (("BROWSER", str(browser)), ("VITSEARCH_HOME", str(tmp_path / "home"))):
        monkeypatch.setenv(name, value)
    search = ("search", str(photos), "red", "--literal", "--under", ".", "--open")
    command = [sys.executable, "-m", "vitsearch", *search]
    served = subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE)
    try:
        lines = wait_for(opened, 1)
        with urllib.request.urlopen(lines[0]) as page:
            assert page.status == 200
        match = re.fullmatch(
            r"(http://127\.0\.0\.1:\d+/)\?under=\.&q=red&literal=1&(key=[\w-]+)", lines[0]
        )
        assert match is not None
        again = run("similar", str(photos), str(photos / "red.png"), "--open")
        assert again.returncode == 0
        assert "opened on the page that is being served" in again.stderr
        second = wait_for(opened, 2)[1]
        assert re.fullmatch(rf"{re.escape(match[1])}\?w\d+=1&{re.escape(match[2])}", second)
    finally:
        served.send_signal(signal.SIGINT)
        served.communicate(timeout=SECONDS)
    assert running(str(photos), None) == ""
    other = paint(tmp_path / "other.png", "red")
    refused = run("similar", str(photos), str(other), "--open")
    assert "is not in it; drop it on the page instead" in refused.stderr


def wait_for(file: Path, count: int) -> list[str]:
    end = time.monotonic() + SECONDS
    while not file.exists() or len(file.read_text().splitlines()) < count:
        assert time.monotonic() < end
        time.sleep(0.05)
    return file.read_text().splitlines()
