"""The service: the same answers as the collection, in batches, while the collection changes;
pictures kept on disk.
"""

import asyncio
import os
import select
import shutil
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from helpers.photos import paint, shade
from helpers.web_client import HERE, client_of, opened, wait_until, with_exif
from vitsearch import Collection, Term, index_folder
from vitsearch.arrays import Vectors
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.encoders.language import set_language, texts_in
from vitsearch.errors import (
    CollectionNotFound,
    QueryError,
    ServiceBusy,
    UnknownPhoto,
    VitsearchError,
)
from vitsearch.filters import parse_filter
from vitsearch.web import ServeSettings
from vitsearch.web.app import make_app
from vitsearch.web.search import Batcher, read_query
from vitsearch.web.service import PhotoService

QUERIES = ("red", "2:red + blue - green", "yellow - red", "0.5:green + yellow", '"blue"')


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Thirty photos of many shades in three folders, indexed."""
    folder = tmp_path / "many"
    for number in range(30):
        paint(folder / f"{number % 3}" / f"{number:02}.png", shade(number), shade(number + 7))
    index_folder(folder, encoder=ColourEncoder())
    return folder


def test_a_search_answers_as_the_collection_does(many: Path) -> None:
    with opened(many) as service, Collection.open(many, encoder=ColourEncoder()) as collection:
        for query in QUERIES:
            assert service.search(query, k=12) == collection.search(query, 12)
            assert service.search(
                query, k=5, offset=4, where="path like '1/%'"
            ) == collection.search(query, 5, offset=4, where="path like '1/%'")
        vector = np.arange(1, collection.dim + 1, dtype=np.float32)
        assert service.search(vector, k=7) == collection.search(vector, 7)
        picture = Image.new("RGB", (20, 20), "orange")
        assert service.search(picture, k=7) == collection.search(picture, 7)
        assert service.search("red", k=30, diverse=0.4) == collection.search("red", 30, diverse=0.4)
        assert service.search("red", k=30, min_score=0.3) == collection.search(
            "red", 30, min_score=0.3
        )


def test_photos_that_are_named_by_id_are_left_out(many: Path) -> None:
    with opened(many) as service, Collection.open(many, encoder=ColourEncoder()) as collection:
        first, second = list(collection.photos())[:2]
        named = [
            Term(first.photo_id),
            Term(second.photo_id, -0.5),
            Term("red", 0.25),
        ]
        terms = [Term(many / first.path), Term(many / second.path, -0.5), Term("red", 0.25)]
        assert service.search(named, k=30) == collection.search(terms, 30)
        assert service.similar(first.photo_id, k=30, collapse=0.99) == collection.similar(
            many / first.path, 30, collapse=0.99
        )


def test_pages_fit_together(many: Path) -> None:
    with opened(many) as service:
        whole = service.search("red", k=30)
        pages = [
            hit for offset in range(0, 35, 7) for hit in service.search("red", k=7, offset=offset)
        ]
        assert pages == whole
        newest, count = service.browse(k=100)
        assert count == 30
        assert [photo.photo_id for photo in newest] == sorted(
            (photo.photo_id for photo in newest), reverse=True
        )
        assert [
            photo for offset in range(0, 30, 9) for photo in service.browse(k=9, offset=offset)[0]
        ] == newest
        assert service.browse(k=3, where="path like '2/%'")[1] == 10


@pytest.mark.slow
def test_many_at_once_get_what_each_gets_alone(many: Path) -> None:
    keywords = [
        (query, offset, where)
        for query in QUERIES
        for offset in (0, 3)
        for where in (None, "path like '0/%'")
    ]
    with opened(many) as service:
        alone = [
            service.search(query, k=6, offset=offset, where=where)
            for query, offset, where in keywords
        ]
        with ThreadPoolExecutor(32) as threads:
            together = list(
                threads.map(
                    lambda options: service.search(
                        options[0], k=6, offset=options[1], where=options[2]
                    ),
                    keywords * 20,
                )
            )
        assert together == alone * 20
        assert sum(size * count for size, count in service.batch_sizes.items()) == 21 * len(
            keywords
        )


def test_one_bad_request_of_a_batch_fails_alone(many: Path) -> None:
    with opened(many) as service:
        wanted = service.search("red", k=3)
        asked = [
            service.ask(one, k=3)
            for one in (
                "red",
                [Term(10**12)],
                [Term("red"), Term("red", -1.0)],
                "red",
            )
        ]
        assert [future.result().results for future in (asked[0], asked[3])] == [wanted, wanted]
        assert isinstance(asked[1].exception(), UnknownPhoto)
        assert isinstance(asked[2].exception(), QueryError)


@pytest.mark.parametrize(
    "text",
    ["./a.png", "/etc/passwd", "red + ../x.png", "~root", "~nobody-of-this-name", "2:~/x - red"],
)
def test_words_name_no_file(text: str) -> None:
    with pytest.raises(QueryError, match="names no file"):
        read_query(text)


@given(st.text(max_size=40))
def test_a_query_is_words_or_refused(text: str) -> None:
    try:
        terms = read_query(text)
    except QueryError:
        return
    assert terms
    assert all(isinstance(term.what, str) for term in terms)


def test_the_columns_of_a_filter() -> None:
    where = parse_filter(
        "not (year = 2019 or path like 'a%') and (camera is null or size between 1 and 2)"
    )
    assert where.columns() == {"year", "path", "camera", "size"}


# -- batches ---------------------------------------------------------------------------------------


def test_an_idle_batcher_waits_for_nothing_and_a_busy_one_gathers() -> None:
    sizes: list[int] = []
    began, go_on = threading.Event(), threading.Event()

    def compute(jobs: Sequence[int]) -> list[int | Exception]:
        began.set()
        assert go_on.wait(20)
        return [ValueError(job) if job == 3 else 10 * job for job in jobs]

    batcher: Batcher[int, int] = Batcher(compute, max_batch=4, on_batch=sizes.append)
    first = batcher.submit(1)
    assert began.wait(20)  # nothing else was asked, and it runs
    later = [batcher.submit(job) for job in (2, 3, 4, 5, 6)]
    go_on.set()
    assert first.result() == 10
    assert [future.exception() is None for future in later] == [True, False, True, True, True]
    assert [future.result() for future in later if future.exception() is None] == [20, 40, 50, 60]
    batcher.close()
    batcher.close()
    assert sizes == [1, 4, 1]
    with pytest.raises(ServiceBusy):
        batcher.submit(7)


def test_a_batch_that_fails_fails_for_all_and_the_next_goes_on() -> None:
    def compute(jobs: Sequence[int]) -> list[int | Exception]:
        if 0 in jobs:
            raise ServiceBusy("broken")
        return [job + 1 for job in jobs]

    batcher: Batcher[int, int] = Batcher(compute)
    with pytest.raises(ServiceBusy, match="broken"):
        batcher.submit(0).result()
    assert batcher.submit(1).result() == 2
    last = [batcher.submit(number) for number in range(1, 50)]
    batcher.close()  # computes what waits
    assert [future.result() for future in last] == list(range(2, 51))


def test_a_batch_knows_the_language_that_the_command_was_given() -> None:
    with texts_in("de"):
        batcher: Batcher[int, str | None] = Batcher(lambda jobs: [set_language() for _ in jobs])
    try:
        assert batcher.submit(1).result(timeout=30) == "de"
        assert set_language() is None
    finally:
        batcher.close()


def test_coroutines_get_each_its_own_result_of_a_batch_and_one_that_gives_up_spoils_none() -> None:
    began, go_on = threading.Event(), threading.Event()

    def compute(jobs: Sequence[int]) -> list[int | Exception]:
        began.set()
        assert go_on.wait(20)
        return [ValueError(job) if job == 3 else 10 * job for job in jobs]

    batcher: Batcher[int, int] = Batcher(compute)

    async def ask() -> list[int | BaseException]:
        first = asyncio.create_task(batcher.result(1))
        assert await asyncio.to_thread(began.wait, 20)  # it runs
        later = [asyncio.create_task(batcher.result(job)) for job in (2, 3, 4, 5)]
        await asyncio.sleep(0)  # they wait
        first.cancel()
        later[2].cancel()
        go_on.set()
        return await asyncio.gather(first, *later, return_exceptions=True)

    answers = asyncio.run(ask())
    assert [type(answer) for answer in answers] == [
        asyncio.CancelledError,
        int,
        ValueError,
        asyncio.CancelledError,
        int,
    ]
    assert (answers[1], answers[4]) == (20, 50)
    batcher.close()
    with pytest.raises(ServiceBusy):
        asyncio.run(batcher.result(7))


def test_an_idle_batcher_holds_no_job() -> None:
    """A job may be a picture of 180 MB."""

    class Job:
        pass

    batcher: Batcher[Job, int] = Batcher(lambda jobs: [1] * len(jobs), workers=2)
    job = Job()
    gone = weakref.ref(job)
    assert batcher.submit(job).result() == 1
    del job
    wait_until(lambda: gone() is None)
    batcher.close()


def test_batches_of_several_threads_lose_and_double_nothing() -> None:
    sizes: list[int] = []
    batcher: Batcher[int, int] = Batcher(
        lambda jobs: [-job for job in jobs], workers=4, max_batch=3, on_batch=sizes.append
    )
    with ThreadPoolExecutor(16) as threads:
        futures = list(threads.map(batcher.submit, range(2000)))
    cancelled = batcher.submit(5000)
    cancelled.cancel()
    batcher.close()
    assert [future.result() for future in futures] == [-number for number in range(2000)]
    assert (sum(sizes) in (2000, 2001), max(sizes) <= 3) == (True, True)


# -- a collection that changes ---------------------------------------------------------------------


def test_what_indexing_changes_is_seen_at_the_next_call(indexed: Path) -> None:
    with opened(indexed) as service:
        assert [hit.path for hit in service.search("orange", k=1)] != ["orange.png"]
        red = next(hit.photo_id for hit in service.search("red", k=1))
        assert len(service.labels(["red", "blue"])) == 4
        paint(indexed / "orange.png", "orange")
        (indexed / "red.png").unlink()
        index_folder(indexed, encoder=ColourEncoder())
        assert [hit.path for hit in service.search("orange", k=1)] == ["orange.png"]
        assert service.count() == 4
        assert {one.path for one in service.labels(["red", "blue"])} == {
            "green.png",
            "orange.png",
            "sub/blue.png",
            "yellow.png",
        }
        with pytest.raises(UnknownPhoto):
            service.photo(red)


def test_a_search_ends_as_it_began_while_others_see_what_was_indexed_meanwhile(
    indexed: Path,
) -> None:
    began, go_on = threading.Event(), threading.Event()

    class Slow(ColourEncoder):
        parallel_calls = 2

        def encode_texts(self, texts: Sequence[str]) -> Vectors:
            if "yellow" in texts:
                began.set()
                assert go_on.wait(20)
            return super().encode_texts(texts)

    with closing(PhotoService.open(indexed, encoder=Slow())) as service:
        waiting = service.ask("yellow", k=1)
        assert began.wait(20)
        paint(indexed / "orange.png", "orange")
        index_folder(indexed, encoder=ColourEncoder())
        assert [hit.path for hit in service.search("orange", k=1)] == ["orange.png"]
        go_on.set()
        assert [hit.path for hit in waiting.result(20).results] == ["yellow.png"]


def test_a_collection_that_is_gone_is_busy_and_another_in_its_place_is_read(
    indexed: Path, tmp_path: Path
) -> None:
    with opened(indexed) as service:
        assert len(service.search("red", k=10)) == 4
        shutil.move(indexed / ".vitsearch", tmp_path / "away")
        for call in (
            lambda: service.search("red"),
            lambda: service.photo(1),
            service.info,
            service.count,
        ):
            with pytest.raises(ServiceBusy) as busy:
                call()
            assert str(tmp_path) not in str(busy.value)
        shutil.move(tmp_path / "away", indexed / ".vitsearch")
        assert len(service.search("red", k=10)) == 4
        shutil.rmtree(indexed / ".vitsearch")
        paint(indexed / "new.png", "orange")
        index_folder(indexed, encoder=ColourEncoder())
        assert len(service.search("red", k=10)) == service.count() == 5


def test_a_folder_without_collection_is_not_served(photos: Path) -> None:
    with pytest.raises(CollectionNotFound, match="vitsearch index"), opened(photos):
        pass


# -- files and pictures ----------------------------------------------------------------------------


def test_a_picture_is_upright_small_and_says_nothing(tmp_path: Path) -> None:
    file = with_exif(tmp_path / "photos" / "turned.jpg", orientation=6, size=(640, 320))
    index_folder(tmp_path / "photos", encoder=ColourEncoder())
    with opened(tmp_path / "photos") as service:
        made = service.thumbnail(1, 160)
        again = service.thumbnail(1, 160)
        assert again == made
        assert (service.thumbnails.made, service.thumbnails.reused) == (1, 1)
        kept = list((tmp_path / "photos" / ".vitsearch" / "thumbnails").iterdir())
        assert [one.read_bytes() for one in kept] == [made.data]
    with Image.open(BytesIO(made.data)) as image:
        assert (image.format, image.size, dict(image.getexif())) == ("WEBP", (80, 160), {})
        assert not {"exif", "xmp", "icc_profile"} & set(image.info)
        red, blue = (
            image.convert("RGB").getpixel((40, 20)),
            image.convert("RGB").getpixel((40, 140)),
        )
    assert red[0] > 200 > 60 > red[2]
    assert blue[2] > 200 > 60 > blue[0]
    assert file.read_bytes()[:2] == b"\xff\xd8"


def test_a_changed_file_is_not_shown_as_it_was(indexed: Path) -> None:
    with opened(indexed) as service:
        photo = next(photo for photo in service.browse()[0] if photo.path == "red.png")
        before = service.thumbnail(photo.photo_id, 160)
        index_folder(paint(indexed / "red.png", "green").parent, encoder=ColourEncoder())
        after = service.thumbnail(photo.photo_id, 160)
        assert (before.tag != after.tag, before.data != after.data) == (True, True)


@pytest.mark.slow
def test_the_least_recently_used_pictures_leave_the_disk(many: Path) -> None:
    folder = many / ".vitsearch" / "thumbnails"
    with opened(many) as service:
        ids = [photo.photo_id for photo in service.browse()[0]][:12]
        sizes = [len(service.thumbnail(one, 160).data) for one in ids]
    cap = sum(sizes[:8])
    shutil.rmtree(folder)
    (folder / "x").mkdir(parents=True)
    (folder / "left.webp.1-2.new").write_bytes(b"x")
    with opened(many, ServeSettings(thumbnail_bytes=cap)) as service:
        for one in ids[:6]:
            service.thumbnail(one, 160)
    with opened(
        many, ServeSettings(thumbnail_bytes=cap)
    ) as service:  # the order of use outlives the process
        service.thumbnail(ids[0], 160)
        for one in ids[6:]:
            service.thumbnail(one, 160)
        kept = {file.name.partition("-")[0] for file in folder.glob("*.webp")}
        assert (
            service.thumbnails.stored_bytes
            == sum(file.stat().st_size for file in folder.glob("*.webp"))
            <= cap
        )
        assert {service.photo(one).fingerprint.hex() for one in (ids[0], ids[-1])} <= kept
        assert service.photo(ids[1]).fingerprint.hex() not in kept
    assert not list(folder.glob("*.new"))


def test_a_disk_that_takes_no_pictures_costs_no_picture(indexed: Path) -> None:
    (indexed / ".vitsearch" / "thumbnails").write_bytes(b"a file in the place of the folder")
    with opened(indexed) as service:
        assert service.thumbnail(1, 160).data[8:12] == b"WEBP"


@pytest.mark.parametrize("path", ["../outside.png", "/etc/hostname", "sub/../../outside.png"])
def test_a_collection_that_a_stranger_made_names_no_file_outside(indexed: Path, path: str) -> None:
    paint(indexed.parent / "outside.png", "red")
    with opened(indexed) as service, pytest.raises(UnknownPhoto, match="outside the photo folder"):
        service.source.open_photo(replace(service.photo(1), path=path))


def test_a_name_that_is_no_utf8(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    paint(folder / "red.png", "red")
    os.rename(folder / "red.png", os.path.join(os.fsencode(folder), b"r\xffd.png"))
    index_folder(folder, encoder=ColourEncoder())
    with opened(folder) as service:
        assert service.open_photo(1).read(4) == b"\x89PNG"
        assert service.photo(1).path == "r\udcffd.png"


# -- settings --------------------------------------------------------------------------------------


HOSTS = {"127.0.0.1": True, "127.8.0.1": True, "::1": True, "[::1]": True, "localhost": True}
HOSTS |= {"0.0.0.0": False, "::": False, "192.0.2.1": False, "photos.example": False}


@pytest.mark.parametrize(("host", "local"), HOSTS.items())
def test_which_hosts_are_of_this_machine(host: str, local: bool) -> None:
    settings = ServeSettings(host=host)
    assert settings.local is local
    if local:
        settings.check()
    else:
        with pytest.raises(VitsearchError, match="--token"):
            settings.check()
    replace(settings, token="long enough, it is").check()
    with pytest.raises(VitsearchError, match="fewer than 16"):
        replace(settings, token="short").check()


def test_a_system_without_processes_that_decode_shows_photos_and_decodes_them_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(select, "poll")  # as on Windows
    paint(tmp_path / "a.png", "red")
    Image.new("RGB", (64, 48), "blue").save(tmp_path / "b.tiff")
    report = index_folder(tmp_path, encoder=ColourEncoder())
    assert (report.indexed, report.failed) == (2, 0)
    with pytest.raises(VitsearchError, match="has no way to wait for its pipes"):
        index_folder(tmp_path, encoder=ColourEncoder(), decode_timeout=5, reread="*")
    with opened(tmp_path) as service:
        service.start_decoders()
        with client_of(make_app(service, ServeSettings()), ServeSettings(), HERE) as client:
            for photo_id in (1, 2):
                small = client.get(f"/api/photos/{photo_id}/thumbnail?size=384")
                assert (small.status_code, small.headers["Content-Type"]) == (200, "image/webp")
