"""The text of photos in the store: found by words, and right after whatever becomes of a photo."""

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from vitsearch.errors import QueryError
from vitsearch.filters import parse_filter
from vitsearch.milvus.filter import milvus_filter
from vitsearch.photos.text import PhotoText
from vitsearch.storage.metadata import put_text, put_text_problem, text_of, without_text
from vitsearch.storage.rows import Outcome
from vitsearch.storage.store import PhotoStore
from vitsearch.types import Photo, PhotoInfo

HALF = np.array([1, 0], dtype=np.float16)
BOX = (1, 2, 3, 4)


def content(name: str) -> bytes:
    return name.encode().ljust(16, b"-")


def photo(path: str, name: str, *, text: str | None = None, mtime_ns: int = 1) -> Photo:
    info = PhotoInfo(4, 3, {"text": text})
    return Photo(0, path, 1, mtime_ns, content(name), info)


def read(words: str) -> PhotoText:
    return PhotoText.of_lines([[(word, BOX) for word in words.split()]])


def paths(store: PhotoStore, where: str) -> list[str]:
    ids = store.ids_where(parse_filter(where)).tolist()
    return [each.path for each in store.photos() if each.photo_id in ids]


@pytest.fixture
def store(tmp_path: Path):
    with closing(PhotoStore(tmp_path / "photos.db")) as store:
        with store.writing():
            for path, name in (("a.jpg", "bill"), ("b.jpg", "bill"), ("c.jpg", "sign")):
                store.keep(photo(path, name), HALF)
            put_text(store, content("bill"), read("Invoice 2034 Total: 12.50 años"))
        yield store


def test_photos_are_found_by_the_words_in_them(store: PhotoStore) -> None:
    both = ["a.jpg", "b.jpg"]
    assert paths(store, "text contains 'invoice'") == both
    assert paths(store, "text contains 'INVOICE 2034'") == both
    assert paths(store, "text contains 'inv'") == both
    assert paths(store, "text contains 'anos'") == both
    assert paths(store, "text contains word 'total'") == both
    assert paths(store, "text contains word 'inv'") == []
    assert paths(store, "text contains '2034 invoice'") == []
    assert paths(store, "text contains ':'") == both  # no word: as in other columns
    assert paths(store, "text contains 'say \"invoice\"'") == []
    assert paths(store, "text is null") == ["c.jpg"]
    assert paths(store, "text not contains 'invoice'") == []  # null is neither
    assert paths(store, "not text contains 'sign' and path like '%a%'") == ["a.jpg"]


@pytest.mark.parametrize("text", ["text contains 'a ''b'", "text not contains word 'a'"])
def test_a_filter_of_words_is_its_own_text(text: str) -> None:
    assert str(parse_filter(text)) == text


@pytest.mark.parametrize("text", ["camera contains word 'a'", "text contains word 3"])
def test_what_is_no_word_of_text_is_refused(text: str) -> None:
    with pytest.raises(QueryError, match="expected a text in quotes"):
        parse_filter(text)


def test_milvus_has_no_index_of_words() -> None:
    with pytest.raises(QueryError, match="write text like '%invoice%'"):
        milvus_filter(parse_filter("text contains 'invoice'"))
    assert "text_folded like" in milvus_filter(parse_filter("text like '%invoice%'"))


def test_a_photo_that_changes_loses_its_text(store: PhotoStore) -> None:
    with store.writing():
        assert store.keep(photo("a.jpg", "dog"), HALF) is Outcome.REPLACED
    assert paths(store, "text contains 'invoice'") == ["b.jpg"]
    assert [each.path for each in without_text(store)] == ["a.jpg", "c.jpg"]


def test_a_photo_that_moves_or_is_read_again_keeps_it(store: PhotoStore) -> None:
    with store.writing():
        assert store.keep(photo("d.jpg", "bill"), HALF, gone={"a.jpg"}) is Outcome.MOVED
        assert store.keep(photo("b.jpg", "bill"), HALF, sidecars="x") is Outcome.UNCHANGED
    assert paths(store, "text contains 'invoice'") == ["b.jpg", "d.jpg"]


def test_a_photo_that_is_put_aside_comes_back_with_it(store: PhotoStore) -> None:
    with store.writing():
        store.aside.put(["a.jpg", "b.jpg"])
    assert paths(store, "text contains 'invoice'") == []
    with store.writing():
        store.aside.restore(["a.jpg"])
    assert paths(store, "text contains 'invoice'") == ["a.jpg"]
    (back,) = (each for each in store.photos() if each.path == "a.jpg")
    assert text_of(store, back) == read("Invoice 2034 Total: 12.50 años")


def test_what_is_purged_is_in_no_byte_of_the_file(store: PhotoStore) -> None:
    with store.writing():
        store.aside.put(["a.jpg", "b.jpg"])
    with store.writing():
        store.aside.purge()
    store.checkpoint()
    data = store.path.read_bytes()
    assert b"nvoice" not in data
    assert content("bill") not in data


def test_a_problem_is_stored_and_tried_again_on_demand(store: PhotoStore) -> None:
    with store.writing():
        put_text_problem(store, content("sign"), "the decoder crashed")
    assert list(without_text(store)) == []
    assert [each.path for each in without_text(store, retry=True)] == ["c.jpg"]


def test_a_file_of_before_gets_the_index_of_what_it_has(store: PhotoStore) -> None:
    store.close()
    with closing(sqlite3.connect(store.path)) as db:
        for change in ("put", "remove", "change"):
            db.execute(f"DROP TRIGGER photo_text_{change}")
        db.execute("DROP TABLE photo_text")
        db.execute("DROP TABLE text_places")
    with closing(PhotoStore(store.path, read_only=True)) as reader:
        assert paths(reader, "text contains 'invoice'") == []
        assert [text_of(reader, each) for each in reader.photos()] == [None] * 3
    with closing(PhotoStore(store.path)) as writer:
        assert paths(writer, "text contains 'invoice'") == ["a.jpg", "b.jpg"]


def test_an_index_of_words_is_written_anew(store: PhotoStore) -> None:
    with store.writing():
        store._db.execute("DELETE FROM photo_text_data")
    store.rebuild_indexes()
    assert paths(store, "text contains 'invoice'") == ["a.jpg", "b.jpg"]
