"""One open collection for many threads, for forked processes and for those that it is sent to."""

import gc
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from helpers.photos import paint, shade
from vitsearch import Collection, index_folder
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.encoders.mini import load_mini
from vitsearch.errors import CollectionError

THREADS = 32
OLD = "path like 'old/%'"

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """A folder of 60 photos in ``old``, 20 of them twice, indexed with `colour`."""
    folder = tmp_path / "photos"
    for number in range(40):
        paint(folder / "old" / f"{number:02}.png", shade(number))
    for number in range(20):
        paint(folder / "old" / "copies" / f"{number:02}.png", shade(number))
    index_folder(folder, encoder=ColourEncoder())
    return folder


def questions(collection: Collection) -> list[Callable[[], Any]]:
    """Return calls whose answers do not depend on photos outside ``old``."""
    some = np.random.default_rng(0).standard_normal(collection.dim).astype(np.float32)
    return [
        lambda: collection.search("red", where=OLD),
        lambda: collection.search("green - red", 5, where=f"{OLD} and width = 24"),
        lambda: collection.search_batch(["blue", "yellow"], 3, where=OLD),
        lambda: collection.search(some, 4, where=OLD, collapse=True),
        lambda: collection.similar(collection.root / "old" / "03.png", where=OLD),
        lambda: [
            found
            for found in collection.label(["red", "green", "blue"])
            if found.path.startswith("old/")
        ],
        lambda: collection.duplicates(where=OLD),
        lambda: collection.lookalikes(0.99, where=OLD),
        lambda: [photo for photo in collection.photos() if photo.path.startswith("old/")],
        lambda: collection.failures(),
    ]


@pytest.mark.slow
def test_answers_of_32_threads_beside_an_index_run(many: Path) -> None:
    with Collection.open(many) as collection:
        asked = questions(collection)
        expected = [question() for question in asked]
        done = threading.Event()

        def ask(thread: int) -> int:
            rounds = 0
            while rounds < 2 or not done.is_set():
                number = (thread + rounds) % len(asked)
                assert asked[number]() == expected[number]
                rounds += 1
            return rounds

        with ThreadPoolExecutor(THREADS) as threads:
            answers = [threads.submit(ask, thread) for thread in range(THREADS)]
            try:
                for number in range(3):
                    for photo in range(10):
                        paint(many / f"new {number}" / f"{photo}.png", shade(50 + photo))
                    index_folder(many, encoder=ColourEncoder())
            finally:
                done.set()
            assert all(answer.result() >= 2 for answer in answers)
        assert len(collection) == 90
        assert [question() for question in asked] == expected


def test_threads_that_come_and_go_leave_no_connections(indexed: Path) -> None:
    with Collection.open(indexed) as collection:
        expected = collection.search("red")
        for _ in range(100):
            answers: list[Any] = []
            thread = threading.Thread(target=lambda to=answers: to.append(collection.search("red")))
            thread.start()
            thread.join()
            assert answers == [expected]
        files = [Path(file.path) for file in psutil.Process().open_files()]
        assert files.count((indexed / ".vitsearch" / "photos.db").resolve()) <= 3


def test_closed_in_every_thread(indexed: Path) -> None:
    collection = Collection.open(indexed)
    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(len, collection).result() == 4
        collection.close()
        for call in (lambda: threads.submit(len, collection).result(), lambda: len(collection)):
            with pytest.raises(CollectionError, match=r"photos\.db was closed: open the coll"):
                call()


def in_child(call: Callable[[], bool]) -> int:
    """Return the exit status of a forked process: 0 if the call returned true there."""
    child = os.fork()
    if child == 0:  # pragma: no cover  not measured there
        signal.alarm(240)
        try:
            os._exit(0 if call() else 1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@needs_fork
@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["flat", "ivf"])
def test_a_forked_process_goes_on(many: Path, recipe: str) -> None:
    index_folder(many, encoder=ColourEncoder(), recipe=recipe)
    with Collection.open(many) as collection:
        asked = questions(collection)
        expected = [question() for question in asked]
        assert in_child(lambda: [question() for question in asked] == expected) == 0
        with collection.store.reading():  # while the parent is in the middle of something
            assert in_child(lambda: [question() for question in asked] == expected) == 0
        assert [question() for question in asked] == expected


@needs_fork
@pytest.mark.slow
def test_the_encoder_goes_on_in_a_forked_process(photos: Path) -> None:
    index_folder(photos, encoder=load_mini())
    with Collection.open(photos) as collection:
        expected = collection.search("a red wall"), collection.similar(photos / "red.png")
        asked = lambda: (collection.search("a red wall"), collection.similar(photos / "red.png"))  # noqa: E731
        assert in_child(lambda: asked() == expected) == 0


@pytest.mark.slow
@needs_fork
def test_an_encoder_may_end_in_a_forked_process() -> None:
    encoders = [load_mini()]
    encoders[0].encode_texts(["a red wall"])

    def ended() -> bool:
        encoders.clear()
        gc.collect()
        return True

    assert in_child(ended) == 0


class Unlisted(ColourEncoder):
    """An encoder that cannot be loaded by its name."""

    name = "unlisted"


@pytest.mark.parametrize("encoder", [ColourEncoder(), Unlisted(), None])
def test_a_pickle_opens_the_same_place(
    photos: Path, encoder: ColourEncoder | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    index_folder(photos, encoder=encoder or ColourEncoder())
    monkeypatch.chdir(photos.parent)
    with Collection.open("photos", encoder=encoder) as collection:
        data = pickle.dumps(collection)
        expected = collection.search("red")
    monkeypatch.chdir("/")
    with pickle.loads(data) as again:
        assert again.search("red") == expected
        assert (again.root, again.folder) == (photos, photos / ".vitsearch")


def found(collection: Collection) -> list[Any]:
    with collection:
        return list(collection.search("red"))


@pytest.mark.slow
def test_worker_processes_take_a_collection(indexed: Path) -> None:
    with (
        Collection.open(indexed) as collection,
        multiprocessing.get_context("spawn").Pool(1) as workers,
    ):
        assert workers.map(found, [collection]) == [collection.search("red")]
