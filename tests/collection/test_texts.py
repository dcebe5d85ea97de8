"""Text in photos: read by indexing, and found by words in quotes."""

from contextlib import closing
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from PIL import Image, ImageDraw, ImageFont

from vitsearch import Collection, CollectionError, index_folder, search_all
from vitsearch.collection import passes
from vitsearch.photos.text import PhotoText, places_of
from vitsearch.storage.metadata import put_text, text_of
from vitsearch.storage.store import PhotoStore
from vitsearch.web import ServeSettings
from vitsearch.web.app import make_app
from vitsearch.web.privacy import key_cookie
from vitsearch.web.service import PhotoService

SIZE = (640, 400)


def draw(file: Path, words: str, colour: str = "white", turned: int = 0) -> None:
    image = Image.new("RGB", SIZE, colour)
    ImageDraw.Draw(image).text((60, 150), words, fill="black", font=ImageFont.load_default(60))
    exif = image.getexif()
    if turned:
        image = image.transpose(Image.Transpose.ROTATE_90)
        exif[0x0112] = turned
    image.save(file, quality=90, exif=exif)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    draw(tmp_path / "bill.jpg", "Invoice 2034")
    draw(tmp_path / "turned.jpg", "Senor Invoice", turned=6)
    Image.new("RGB", SIZE, "red").save(tmp_path / "red.png")
    return tmp_path


def put(folder: Path, name: str, words: str) -> None:
    """Store a text as a run with --ocr does."""
    with closing(PhotoStore(folder / ".vitsearch" / "photos.db")) as store, store.writing():
        photo = store.photo_at(name)
        assert photo is not None
        text = PhotoText.of_lines([[(word, (1, 2, 3, 4)) for word in words.split()]])
        put_text(store, photo.fingerprint, text)


def test_photos_with_the_words_in_quotes_come_first(folder: Path) -> None:
    index_folder(folder, encoder="colour")
    put(folder, "bill.jpg", "Invoice 2034")
    with Collection.open(folder) as collection:
        plain = collection.search("red invoice", 3)
        assert plain[0].path == "red.png"
        hits = collection.search('red "invoice"', 3)
        assert [(hit.path, hit.quotes) for hit in hits] == [
            ("bill.jpg", ("invoice",)), ("red.png", ()), ("turned.jpg", ()),
        ]  # fmt: skip
        assert collection.search('red "invoice"', 1, offset=1)[0].path == "red.png"
        assert [hit.path for hit in search_all([collection], 'red "invoice"', 2)] == [
            "bill.jpg", "red.png",
        ]  # fmt: skip
        assert collection.search('red "inv"', 1)[0].path == "red.png"
        assert collection.search('red - "invoice"', 1)[0].path == "red.png"
        only = collection.search("red", 3, where="text contains 'inv'")
        assert [hit.path for hit in only] == ["bill.jpg"]


def test_the_page_frames_the_words_that_were_looked_for(folder: Path) -> None:
    index_folder(folder, encoder="colour")
    put(folder, "bill.jpg", "Invoice 2034")
    settings = ServeSettings()
    service = PhotoService.open(folder, settings=settings)
    with closing(service), Collection.open(folder) as collection:
        photo = collection.store.photo_at("bill.jpg")
        assert photo is not None
        app = make_app(service, settings)
        key = dict([key_cookie(settings)])
        for cookies, query, frames in (
            (key, {"q": '"invoice"'}, 1),
            (key, {"q": "red", "where": "text contains '2034'"}, 1),
            (key, {"q": "red"}, 0),
            ({}, {"q": '"invoice"'}, 0),  # who may not see the text
        ):
            client = TestClient(
                app,
                base_url="http://127.0.0.1:8765",
                client=("127.0.0.1" if cookies else "192.0.2.7", 50_000),
                cookies=cookies,
            )
            page = client.get(f"/photos/{photo.photo_id}", params=query).text
            assert page.count('<rect x="1" y="2" width="2" height="2"/>') == frames


def test_a_collection_of_before_is_asked_for_no_text(folder: Path) -> None:
    report = index_folder(folder, encoder="colour")
    assert (report.texts_read, report.texts_failed) == (0, 0)


def test_without_the_library_it_is_refused_before_anything_is_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passes.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CollectionError, match=r"pip install 'vitsearch\[ocr\]'"):
        index_folder(folder, encoder="colour", ocr=True)
    assert not (folder / ".vitsearch").exists()


@pytest.mark.slow
def test_text_is_read_once_and_for_new_photos_too(folder: Path) -> None:
    pytest.importorskip("rapidocr", reason="needs the extra [ocr]")
    index_folder(folder, encoder="colour")
    report = index_folder(folder, ocr=True)
    assert (report.indexed, report.texts_read, report.texts_failed) == (0, 3, 0)
    with Collection.open(folder) as collection:
        stored = {photo.path: photo for photo in collection.photos()}
        assert {path: photo.info["text"] for path, photo in stored.items()} == {
            "bill.jpg": "Invoice 2034", "red.png": "", "turned.jpg": "Senor Invoice",
        }  # fmt: skip
        assert isinstance(collection.store, PhotoStore)
        text = text_of(collection.store, stored["turned.jpg"])
        assert text is not None
        ((left, top, right, bottom),) = places_of(text, "invoice")
        # of the upright picture, in which it is the right one of two words
        assert 0.25 < left / 65535 < right / 65535 < 0.95
        assert 0.35 < top / 65535 < bottom / 65535 < 0.6
    (folder / "bill.jpg").rename(folder / "moved.jpg")
    draw(folder / "new.jpg", "Total", colour="yellow")
    report = index_folder(folder)  # goes on with it
    assert (report.moved, report.texts_read) == (1, 1)
    with Collection.open(folder) as collection:
        assert collection.search('"2034"', 1)[0].path == "moved.jpg"


@pytest.mark.slow
def test_a_photo_that_cannot_be_read_in_time_is_told_and_stays(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("rapidocr", reason="needs the extra [ocr]")
    index_folder(folder, encoder="colour")
    report = index_folder(folder, ocr=True, decode_timeout=0.01)
    assert (report.total, report.texts_failed) == (3, 3)
    assert "bill.jpg: its text was not read: decoding took longer than 0.01 s" in caplog.text
    assert index_folder(folder).texts_failed == 0  # not tried again
    with Collection.open(folder) as collection:
        assert len(collection.search("red", 3)) == 3
