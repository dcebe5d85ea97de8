"""A collection of a stranger: nothing is downloaded because it names a model, and what has taken
the place of a photo is not read.
"""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from helpers.cli import vitsearch
from helpers.lazy import library
from helpers.photos import paint
from vitsearch import Collection, EncoderError, PhotoError, index_folder, load_encoder
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.web.service import PhotoService

library("transformers", reason="needs the extra vitsearch[clip]")
library("huggingface_hub", reason="needs the extra vitsearch[clip]")

MODEL = "stranger/model"


@pytest.fixture(name="asked")
def counting_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Paths that were asked of the hub, which is a server of this machine that has no model."""
    paths: list[str] = []

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("vitsearch.encoders.hub.HfApi.endpoint", address, raising=False)
    yield paths
    server.shutdown()
    server.server_close()


@pytest.fixture(name="photos")
def strangers_collection(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for name, colour in (("cat", "red"), ("dog", "blue")):
        paint(folder / name / "a.png", colour)
    index_folder(folder, encoder=ColourEncoder())
    file = folder / ".vitsearch" / "collection.json"
    facts = json.loads(file.read_text())
    file.write_text(json.dumps(facts | {"encoder": f"hf:{MODEL}"}))
    return folder


def refusal(photos: Path) -> str:
    return (
        f"{photos / '.vitsearch'} names the model {MODEL}, which is not on this machine, and the "
        "hub is not asked because a file says so: give --allow-download if you trust it, or name "
        "it yourself (--encoder NAME, or load_encoder(NAME) in Python)"
    )


COMMANDS = (
    ("search", "PHOTOS", "red"),
    ("label", "PHOTOS", "--labels", "cat,dog"),
    ("serve", "PHOTOS", "--port", "0"),
    ("index", "PHOTOS"),
    ("explain", "PHOTOS", "cat/a.png", "--text", "cat"),
    ("similar", "PHOTOS", "NEW"),
)
SILENT = (
    ("similar", "PHOTOS", "cat/a.png"),
    ("info", "PHOTOS"),
    ("dupes", "PHOTOS"),
    ("failures", "PHOTOS"),
    ("verify", "PHOTOS"),
)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_no_command_asks_the_hub_because_a_collection_says_so(
    command: tuple[str, ...], photos: Path, tmp_path: Path, asked: list[str]
) -> None:
    new = tmp_path / "new.png"
    paint(new, "green")
    if command[0] == "index":
        paint(photos / "dog" / "b.png", "white")
    named = {"PHOTOS": str(photos), "NEW": str(new)}
    done = vitsearch(*(named.get(part, part) for part in command), cwd=tmp_path)
    assert (done.returncode, asked) == (1, [])
    assert done.stderr.decode().splitlines()[-1] == f"vitsearch: {refusal(photos)}"


@pytest.mark.parametrize("command", SILENT, ids=lambda command: command[0])
def test_what_needs_no_model_asks_for_none(
    command: tuple[str, ...], photos: Path, asked: list[str]
) -> None:
    done = vitsearch(*(str(photos) if part == "PHOTOS" else part for part in command), cwd=photos)
    assert (b"names the model" in done.stderr, asked) == (False, [])


@pytest.mark.slow
def test_nor_does_the_library(photos: Path, asked: list[str]) -> None:
    with Collection.open(photos) as collection, pytest.raises(EncoderError) as caught:
        collection.search("red")
    assert str(caught.value) == refusal(photos)
    with pytest.raises(EncoderError, match="is not asked because a file says so"):
        PhotoService.open(photos)
    paint(photos / "c.png", "black")
    with pytest.raises(EncoderError, match="is not asked because a file says so"):
        index_folder(photos)
    assert asked == []


@pytest.mark.slow
def test_who_names_the_model_asks_the_hub(photos: Path, asked: list[str]) -> None:
    with pytest.raises(EncoderError, match=MODEL):
        load_encoder(f"hf:{MODEL}")
    assert f"/api/models/{MODEL}" in asked
    asked.clear()
    done = vitsearch("search", photos, "red", "--allow-download")
    assert done.returncode == 1
    assert b"is not asked" not in done.stderr
    assert f"/api/models/{MODEL}" in asked
    asked.clear()
    # and only in that command
    assert b"is not asked" in vitsearch("search", photos, "red").stderr
    assert asked == []


def test_what_has_taken_the_place_of_a_photo_is_not_explained(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    paint(secret, "red")
    folder = tmp_path / "photos"
    paint(folder / "a.png", "blue")
    index_folder(folder, encoder=ColourEncoder())
    (folder / "a.png").unlink()
    (folder / "a.png").symlink_to(secret)
    with Collection.open(folder, encoder=ColourEncoder()) as collection:
        for name in ("a.png", str(folder / "a.png")):
            with pytest.raises(PhotoError, match="lies outside the photo folder"):
                collection.read_photo(name)
        assert collection.read_photo(secret).size == (24, 16)
    done = vitsearch("explain", folder, "a.png", cwd=tmp_path)
    assert b"lies outside the photo folder" in done.stderr
