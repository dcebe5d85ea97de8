"""`vitsearch serve --watch`: a folder that is not indexed is, and what comes is shown."""

import json
from pathlib import Path

import psutil
import pytest

from helpers.cli import vitsearch
from helpers.photos import paint
from helpers.web_client import fetch, serving, wait_until
from vitsearch.cli.serve import _follow

pytestmark = pytest.mark.slow


def shown(port: int) -> int:
    status, body = fetch(port, "/api/info")
    assert status == 200
    return int(json.loads(body)["photos"])


def test_a_folder_is_indexed_served_and_followed(tmp_path: Path) -> None:
    paint(tmp_path / "red.png", "red")
    with serving(tmp_path, "--watch") as (process, port):
        assert shown(port) == 1
        children = psutil.Process(process.pid).children()
        assert any("watch" in child.cmdline() for child in children)
        paint(tmp_path / "sub" / "blue.png", "blue")
        wait_until(lambda: shown(port) == 2)
    # the server was killed: what followed the folder ends by itself
    wait_until(lambda: not any(child.is_running() for child in children))


def test_files_of_the_working_folder_are_no_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint(tmp_path / "red.png", "red")
    (tmp_path / "json.py").write_text(f"open({str(tmp_path / 'was-run')!r}, 'w').close()")
    monkeypatch.chdir(tmp_path)
    follower = _follow(str(tmp_path), None)
    try:
        wait_until(lambda: (tmp_path / ".vitsearch" / "walked").exists())
    finally:
        follower.terminate()
        follower.communicate()
    assert not (tmp_path / "was-run").exists()


def test_a_collection_in_milvus_is_not_followed() -> None:
    done = vitsearch("serve", "milvus://localhost:1/photos", "--watch")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"--watch follows a folder of photos, not a collection in Milvus" in done.stderr
