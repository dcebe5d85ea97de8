import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from vitsearch.arrays import Halves
from vitsearch.errors import CollectionError
from vitsearch.photos.columns import METADATA
from vitsearch.storage.schema import MIGRATIONS
from vitsearch.storage.store import PhotoStore
from vitsearch.types import Found, Photo, PhotoInfo, SkippedPhoto

DIM = 4
INFO = PhotoInfo(
    640,
    480,
    {
        "taken_at": "2024-05-06T07:08:09",
        "camera": "Acme X1",
        "latitude": 52.5,
        "longitude": -13.25,
    },
)
ODD_PATHS = [
    "a.jpg",
    "sub/b.jpg",
    'it\'s "so".jpg',
    "two\nlines.jpg",
    "\U0001f415 dog.jpg",
    os.fsdecode(b"caf\xe9\xff.jpg"),
    "\u00e9.jpg",
    "e\u0301.jpg",
    "%;--.jpg",
]


def half(*numbers: float) -> Halves:
    return np.array(numbers, dtype=np.float16)


def put(
    store: PhotoStore,
    path: str,
    vector: Halves,
    *,
    fingerprint: bytes = b"f",
    info: PhotoInfo = INFO,
) -> int:
    with store.writing():
        generation = store.generation() + 1
        photo_id = store.put_photo(
            Found(path, 10, 20), fingerprint, info, vector=vector, generation=generation
        )
        store.raise_generation(True)
    return photo_id


@pytest.fixture
def store(tmp_path: Path) -> Iterator[PhotoStore]:
    with closing(PhotoStore(tmp_path / "photos.db")) as store:
        yield store


def test_a_new_store_is_empty(store: PhotoStore) -> None:
    assert (
        store.count(),
        store.generation(),
        list(store.stats()),
        list(store.failure_stats()),
        store.failures(),
    ) == (0, 0, [], [], [])
    assert (
        store.fingerprints().ordered.tolist(),
        list(store.photos()),
        list(store.vector_batches()),
        store.rows([1]),
        store.check(),
    ) == (
        [],
        [],
        [],
        [],
        [],
    )
    assert (store.photo_at("a.jpg"), store.photos_with(b"f"), store.get_meta("golden")) == (
        None,
        [],
        None,
    )


def test_what_is_put_is_read_back_by_another_connection(tmp_path: Path) -> None:
    bare = PhotoInfo(1, 1)
    with closing(PhotoStore(tmp_path / "photos.db")) as store:
        ids = [
            put(
                store,
                path,
                half(place, 1, 0, -1),
                fingerprint=bytes([place, 0, 255]),
                info=INFO if place else bare,
            )
            for place, path in enumerate(ODD_PATHS)
        ]
        with closing(PhotoStore(tmp_path / "photos.db", read_only=True)) as reader:
            photos = [
                Photo(photo_id, path, 10, 20, bytes([place, 0, 255]), INFO if place else bare)
                for place, (photo_id, path) in enumerate(zip(ids, ODD_PATHS, strict=True))
            ]
            assert list(reader.photos()) == sorted(
                photos, key=lambda photo: os.fsencode(photo.path)
            )
            assert [reader.photo_at(path) for path in ODD_PATHS] == photos
            assert [reader.photos_with(photo.fingerprint) for photo in photos] == [
                [photo] for photo in photos
            ]
            for place, photo in enumerate(photos):
                np.testing.assert_array_equal(reader.vector(photo.photo_id), half(place, 1, 0, -1))
            assert reader.generation() == len(ODD_PATHS)


def test_putting_again_keeps_the_id_and_forgets_label_and_failure(store: PhotoStore) -> None:
    first = put(store, "a.jpg", half(1, 0, 0, 0))
    with store.writing():
        store.put_labels([(first, "dog \udcff", 0.75)])
    assert store.photo_at("a.jpg") == Photo(first, "a.jpg", 10, 20, b"f", INFO, "dog \udcff", 0.75)
    again = put(store, "a.jpg", half(0, 1, 0, 0), fingerprint=b"g", info=PhotoInfo(2, 3))
    assert list(store.photos()) == [Photo(first, "a.jpg", 10, 20, b"g", PhotoInfo(2, 3))]
    assert (again, store.count(), store.fingerprints().ordered.tolist()) == (first, 1, [b"g"])
    np.testing.assert_array_equal(store.vector(first), half(0, 1, 0, 0))


def test_the_id_of_a_removed_photo_is_not_given_again(store: PhotoStore) -> None:
    first = put(store, "a.jpg", half(1, 0, 0, 0))
    with store.writing():
        assert store.remove_photos(["a.jpg", "none.jpg"]) == 1
    assert (store.count(), store.rows([first])) == (0, [])
    assert put(store, "a.jpg", half(1, 0, 0, 0)) > first


def test_a_failure_takes_the_photo_out_and_a_photo_the_failure(store: PhotoStore) -> None:
    put(store, "a.jpg", half(1, 0, 0, 0))
    with store.writing():
        assert store.put_failure(Found("a.jpg", 5, 6), "failed", "cut\noff \udcff") == 1
        assert store.put_failure(Found("b.jpg", 7, 8), "skipped", "a pipe") == 0
    assert store.failures() == [
        SkippedPhoto("a.jpg", "failed", "cut\noff \udcff"),
        SkippedPhoto("b.jpg", "skipped", "a pipe"),
    ]
    assert (list(store.failure_stats()), store.count()) == (
        [("a.jpg", "failed", 5, 6, False), ("b.jpg", "skipped", 7, 8, False)],
        0,
    )
    put(store, "a.jpg", half(1, 0, 0, 0))
    assert list(store.failure_stats()) == [("b.jpg", "skipped", 7, 8, False)]


def test_a_transaction_is_stored_whole_or_not_at_all(store: PhotoStore) -> None:
    kept = put(store, "kept.jpg", half(1, 0, 0, 0))
    for error in (KeyboardInterrupt, ValueError):
        with pytest.raises(error), store.writing():  # noqa: PT012  the photo is to be lost with the block
            store.put_photo(
                Found("lost.jpg", 1, 1), b"l", INFO, vector=half(0, 1, 0, 0), generation=2
            )
            store.remove_photos(["kept.jpg"])
            store.set_meta("golden", b"x")
            store.raise_generation(True)
            raise error
    assert (
        [photo.photo_id for photo in store.photos()],
        store.generation(),
        store.get_meta("golden"),
    ) == ([kept], 1, None)
    assert put(store, "next.jpg", half(0, 1, 0, 0)) > kept


def test_two_photos_cannot_have_one_path(store: PhotoStore) -> None:
    first, second = (put(store, path, half(1, 0, 0, 0)) for path in ("a.jpg", "b.jpg"))
    with pytest.raises(CollectionError, match=r"photos\.db cannot be used"), store.writing():
        store.touch_photo(second, Found("a.jpg", 1, 1))
    assert {photo.path: photo.photo_id for photo in store.photos()} == {
        "a.jpg": first,
        "b.jpg": second,
    }


def test_a_reader_sees_one_state_whatever_a_writer_does(store: PhotoStore) -> None:
    put(store, "a.jpg", half(1, 0, 0, 0))
    with closing(PhotoStore(store.path, read_only=True)) as reader:
        with reader.reading():
            assert (reader.count(), reader.generation()) == (1, 1)
            put(store, "b.jpg", half(0, 1, 0, 0))
            assert (
                reader.count(),
                reader.generation(),
                [path for path, *_ in reader.stats()],
            ) == (1, 1, ["a.jpg"])
        assert (reader.count(), reader.generation(), [path for path, *_ in reader.stats()]) == (
            2,
            2,
            ["a.jpg", "b.jpg"],
        )


def test_a_reader_cannot_write(store: PhotoStore) -> None:
    reader = PhotoStore(store.path, read_only=True)
    with (
        closing(reader),
        pytest.raises(CollectionError, match="cannot be opened or written"),
        reader.writing(),
    ):
        reader.set_meta("golden", 1)


def test_facts_are_kept_by_name(store: PhotoStore) -> None:
    with store.writing():
        store.set_meta("golden", b"\0\xff")
        store.set_meta("name", "é")
        store.set_meta("name", "ü")
    assert (store.get_meta("golden"), store.get_meta("name"), store.get_meta("other")) == (
        b"\0\xff",
        "ü",
        None,
    )
    with store.writing():
        store.raise_generation(False)
    assert store.generation() == 0


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_vector_batches_come_in_order_of_id(store: PhotoStore, size: int) -> None:
    ids = [put(store, f"{5 - number}.jpg", half(number, 0, 0, 1)) for number in range(5)]
    put(store, "3.jpg", half(9, 9, 9, 9))
    batches = list(store.vector_batches(size=size))
    assert [len(some) for some, _ in batches[:-1]] == [size] * (len(batches) - 1)
    assert np.concatenate([some for some, _ in batches]).tolist() == ids
    rows = np.concatenate([rows for _, rows in batches])
    assert (rows.dtype, rows.tolist()) == (
        np.float16,
        [[0, 0, 0, 1], [1, 0, 0, 1], [9, 9, 9, 9], [3, 0, 0, 1], [4, 0, 0, 1]],
    )


def test_vector_batches_since_a_generation_are_what_came_after(store: PhotoStore) -> None:
    ids = [put(store, path, half(1, 0, 0, 0)) for path in ("a.jpg", "b.jpg", "c.jpg")]
    put(store, "a.jpg", half(0, 1, 0, 0))
    since = {
        generation: [int(i) for some, _ in store.vector_batches(since=generation) for i in some]
        for generation in range(5)
    }
    assert since == {0: ids, 1: ids, 2: [ids[0], ids[2]], 3: [ids[0]], 4: []}


def test_rows_of_more_ids_than_one_statement_takes(store: PhotoStore) -> None:
    with store.writing():
        ids = [
            store.put_photo(
                Found(f"{n}.jpg", 1, 1), b"f", INFO, vector=half(n, 0, 0, 0), generation=1
            )
            for n in range(1203)
        ]
    rows = store.rows([*ids, 10**6, *np.array(ids[:2])])
    assert sorted(set(rows)) == [
        (photo_id, f"{n}.jpg", half(n, 0, 0, 0).tobytes(), b"f") for n, photo_id in enumerate(ids)
    ]


def test_a_photo_without_a_vector_is_told(store: PhotoStore) -> None:
    photo_id = put(store, "a.jpg", half(1, 0, 0, 0))
    put(store, "b.jpg", half(1, 0, 0, 0))
    put(store, "c.jpg", np.ones(3, dtype=np.float16))
    with closing(sqlite3.connect(store.path)) as other, other:
        other.execute("DELETE FROM vectors WHERE photo_id = ?", (photo_id,))
    assert store.check() == [
        "vectors have different lengths",
        "the rows of 1 photos ('a.jpg') are damaged",
    ]
    with pytest.raises(CollectionError, match=f"photo {photo_id} has no vector"):
        store.vector(photo_id)


@pytest.mark.parametrize("folder", ["plain", "a?b#c%20", "two\nlines", os.fsdecode(b"\xff\xfe")])
def test_the_file_may_lie_in_a_folder_of_any_name(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir()
    file = tmp_path / folder / "photos.db"
    with closing(PhotoStore(file)) as store:
        put(store, "a.jpg", half(1, 0, 0, 0))
    with closing(PhotoStore(file, read_only=True)) as reader:
        assert list(reader.stats()) == [("a.jpg", 10, 20, "")]


def test_what_was_committed_survives_without_a_close(tmp_path: Path) -> None:
    with closing(PhotoStore(tmp_path / "photos.db")) as store:
        put(store, "a.jpg", half(1, 0, 0, 0))
        copied = tmp_path / "copy"
        copied.mkdir()
        for file in tmp_path.glob("photos.db*"):  # as a killed process leaves them
            shutil.copy(file, copied)
    with closing(PhotoStore(copied / "photos.db", read_only=True)) as reader:
        assert list(reader.stats()) == [("a.jpg", 10, 20, "")]


def test_after_a_checkpoint_one_file_holds_everything(store: PhotoStore, tmp_path: Path) -> None:
    put(store, "a.jpg", half(1, 0, 0, 0))
    store.checkpoint()
    shutil.copy(store.path, tmp_path / "alone.db")
    with closing(PhotoStore(tmp_path / "alone.db", read_only=True)) as reader:
        assert list(reader.stats()) == [("a.jpg", 10, 20, "")]


def filled(folder: Path) -> Path:
    file = folder / "photos.db"
    with closing(PhotoStore(file)) as store:
        for number in range(50):
            put(store, f"{number}.jpg", half(1, 0, 0, 0))
        store.checkpoint()
    return file


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("content", [b"no database", b"SQLite format 3\0" + b"\xff" * 4000])
def test_another_file_is_damaged(tmp_path: Path, content: bytes, read_only: bool) -> None:
    (tmp_path / "photos.db").write_bytes(content)
    with pytest.raises(
        CollectionError, match=r"photos\.db is damaged .*: restore it from a backup"
    ) as caught:
        PhotoStore(tmp_path / "photos.db", read_only=read_only)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def whole_file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return filled(tmp_path_factory.mktemp("whole")).read_bytes()


@pytest.mark.slow
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.integers(0, 1 << 20), noise=st.binary(min_size=1, max_size=64))
def test_a_damaged_file_reads_or_says_so(
    whole_file: bytes, tmp_path: Path, place: int, noise: bytes
) -> None:
    place %= len(whole_file)
    (tmp_path / "photos.db").write_bytes(
        whole_file[:place] + noise + whole_file[place + len(noise) :]
    )
    told = ""
    try:
        with closing(PhotoStore(tmp_path / "photos.db", read_only=True)) as store:
            for read in (
                store.photos,
                store.failures,
                store.failure_stats,
                store.stats,
                store.check,
            ):
                list(read())
            store.fingerprints()
            store.rows([1, 2]), store.generation(), store.photo_at("1.jpg")
    except CollectionError as error:
        told = str(error)
    assert "\n" not in told


@pytest.mark.parametrize("noise", [b"\n`", b" \x80"])
def test_a_damaged_schema_is_told_in_one_line(
    whole_file: bytes, tmp_path: Path, noise: bytes
) -> None:
    place = whole_file.index(b"TABLE vectors (") + len(b"TABLE ")
    (tmp_path / "photos.db").write_bytes(
        whole_file[:place] + noise + whole_file[place + len(noise) :]
    )
    with pytest.raises(
        CollectionError, match=r"photos\.db is damaged .*: restore it from a backup"
    ) as caught:
        PhotoStore(tmp_path / "photos.db", read_only=True)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_told_and_not_made_by_a_reader(tmp_path: Path) -> None:
    with pytest.raises(CollectionError, match=r"photos\.db is missing"):
        PhotoStore(tmp_path / "photos.db", read_only=True)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(CollectionError, match="cannot be opened"):
        PhotoStore(tmp_path / "none" / "photos.db")


def test_an_unfinished_file_is_finished_by_a_writer(tmp_path: Path) -> None:
    (tmp_path / "photos.db").touch()
    with pytest.raises(CollectionError, match="an unfinished format 0: run `vitsearch index`"):
        PhotoStore(tmp_path / "photos.db", read_only=True)
    with closing(PhotoStore(tmp_path / "photos.db")) as store:
        assert store.count() == 0


@pytest.mark.parametrize("read_only", [False, True])
def test_a_newer_format_is_refused_and_left_alone(tmp_path: Path, read_only: bool) -> None:
    file = filled(tmp_path)
    with closing(sqlite3.connect(file)) as db:
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    with pytest.raises(
        CollectionError, match=f"has format {len(MIGRATIONS) + 1}, newer than this vitsearch reads"
    ):
        PhotoStore(file, read_only=read_only)
    with closing(sqlite3.connect(file)) as db:
        assert db.execute("SELECT count(*) FROM photos").fetchone() == (50,)


def test_close_twice(tmp_path: Path) -> None:
    store = PhotoStore(tmp_path / "photos.db")
    store.close()
    store.close()


# -- any sequence of writes against a dict ---------------------------------------------------------

PATHS = st.one_of(
    st.sampled_from(ODD_PATHS),
    st.binary(min_size=1, max_size=5).map(lambda raw: os.fsdecode(raw.replace(b"\0", b"0"))),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=5),
)
STATS = st.integers(0, 1 << 40), st.integers(-(1 << 62), 1 << 62)
FOUND = st.builds(Found, PATHS, *STATS, problem=st.none(), sidecars=st.just(""))
NUMBER = st.floats(-2, 2, width=16)
VECTOR = st.tuples(*[NUMBER] * DIM)
STORED = {
    "text": st.none() | st.text(st.characters(codec="utf-8"), max_size=4),
    "date": st.none() | st.just("2020-01-02T03:04:05"),
    "number": st.none() | st.integers(-90, 90),
}
METADATA_VALUES = {name: STORED[column.kind] for name, column in METADATA.items()}
INFOS = st.builds(
    PhotoInfo, st.integers(1, 9), st.integers(1, 9), st.fixed_dictionaries(METADATA_VALUES)
)


@dataclass
class Model:
    """What the store should hold."""

    photos: dict[str, Photo] = field(default_factory=dict)
    vectors: dict[int, tuple[tuple[float, ...], int]] = field(default_factory=dict)
    failures: dict[str, tuple[SkippedPhoto, int, int]] = field(default_factory=dict)
    aside: dict[str, tuple[Photo, tuple[float, ...]]] = field(default_factory=dict)
    generation: int = 0


class StoreMachine(RuleBasedStateMachine):
    """Writes to a store and to a model of dicts, which must say the same after each."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.store = PhotoStore(Path(self.folder.name) / "photos.db")
        self.reader = PhotoStore(self.store.path, read_only=True)
        self.model = Model()
        self.given_ids: set[int] = set()

    def teardown(self) -> None:
        self.reader.close()
        self.store.close()
        self.folder.cleanup()

    def _raised(self, changed: bool) -> None:
        self.store.raise_generation(changed)
        self.model.generation += changed

    @rule(found=FOUND, fingerprint=st.sampled_from([b"1", b"2\0"]), info=INFOS, vector=VECTOR)
    def put(
        self, found: Found, fingerprint: bytes, info: PhotoInfo, vector: tuple[float, ...]
    ) -> None:
        old = self.model.photos.get(found.path)
        with self.store.writing():
            generation = self.store.generation() + 1
            photo_id = self.store.put_photo(
                found, fingerprint, info, vector=half(*vector), generation=generation
            )
            self._raised(True)
        assert photo_id == old.photo_id if old else photo_id not in self.given_ids
        self.given_ids.add(photo_id)
        self.model.photos[found.path] = Photo(
            photo_id, found.path, found.size, found.mtime_ns, fingerprint, info
        )
        self.model.vectors[photo_id] = vector, generation
        self.model.failures.pop(found.path, None)

    @precondition(lambda self: self.model.photos)
    @rule(data=st.data(), found=FOUND)
    def touch(self, data: st.DataObject, found: Found) -> None:
        old = self.model.photos[data.draw(st.sampled_from(sorted(self.model.photos)))]
        if found.path in self.model.photos:
            found = found._replace(path=old.path)
        with self.store.writing():
            self.store.touch_photo(old.photo_id, found)
        del self.model.photos[old.path]
        self.model.photos[found.path] = replace(
            old, path=found.path, size=found.size, mtime_ns=found.mtime_ns
        )
        self.model.failures.pop(found.path, None)

    @rule(
        found=FOUND,
        state=st.sampled_from(["failed", "skipped"]),
        reason=PATHS,
        transient=st.booleans(),
    )
    def fail(self, found: Found, state: str, reason: str, transient: bool) -> None:
        with self.store.writing():
            removed = self.store.put_failure(found, state, reason, transient=transient)  # type: ignore[arg-type]
            self._raised(removed > 0)
        assert removed == self._put_aside(found.path)
        self.model.failures[found.path] = (
            SkippedPhoto(found.path, state, reason, transient),
            found.size,
            found.mtime_ns,
        )  # type: ignore[arg-type]

    @rule(data=st.data(), other=st.lists(PATHS, max_size=2))
    def remove(self, data: st.DataObject, other: list[str]) -> None:
        known = (
            data.draw(st.lists(st.sampled_from(sorted(self.model.photos)), max_size=3))
            if self.model.photos
            else []
        )
        with self.store.writing():
            removed = self.store.remove_photos(known + other)
            self._raised(removed > 0)
        assert removed == sum(self._drop(path) for path in dict.fromkeys(known + other))

    def _put_aside(self, path: str) -> bool:
        if photo := self.model.photos.get(path):
            self.model.aside[path] = photo, self.model.vectors[photo.photo_id][0]
        return self._drop(path)

    @rule(paths=st.lists(PATHS, max_size=3, unique=True))
    def put_aside(self, paths: list[str]) -> None:
        with self.store.writing():
            removed = self.store.aside.put(paths)
            self._raised(removed > 0)
        assert removed == sum(map(self._put_aside, paths))

    @rule(paths=st.lists(PATHS, max_size=3, unique=True))
    def restore(self, paths: list[str]) -> None:
        paths = [path for path in paths if path not in self.model.photos]
        with self.store.writing():
            generation = self.store.generation() + 1
            restored = self.store.aside.restore(paths)
            self._raised(restored > 0)
        back = [path for path in paths if path in self.model.aside]
        for path in back:
            photo, vector = self.model.aside.pop(path)
            self.model.photos[path] = photo
            self.model.vectors[photo.photo_id] = vector, generation
        assert restored == len(back)

    @precondition(lambda self: self.model.aside)
    @rule(found=FOUND, data=st.data())
    def restore_content(self, found: Found, data: st.DataObject) -> None:
        if found.path in self.model.photos:
            return
        photo, _ = self.model.aside[data.draw(st.sampled_from(sorted(self.model.aside)))]
        with self.store.writing():
            generation = self.store.generation() + 1
            assert self.store.aside.restore_as(found, photo.fingerprint)
            self.store.forget_failures([found.path])
            self._raised(True)
        back = self.store.photo_at(found.path)
        assert back is not None
        photo, vector = next(
            self.model.aside.pop(path)
            for path, (photo, _) in [*self.model.aside.items()]
            if photo.photo_id == back.photo_id
        )
        assert back == replace(photo, path=found.path, size=found.size, mtime_ns=found.mtime_ns)
        self.model.failures.pop(found.path, None)
        self.model.photos[found.path] = back
        self.model.vectors[photo.photo_id] = vector, generation

    @precondition(lambda self: self.model.aside)
    @rule()
    def purge(self) -> None:
        with self.store.writing():
            assert self.store.aside.purge(days=1) == 0
            assert self.store.aside.purge() == len(self.model.aside)
        self.model.aside.clear()

    @rule(paths=st.lists(PATHS, max_size=2), known=st.booleans())
    def forget(self, paths: list[str], known: bool) -> None:
        paths = paths + sorted(self.model.failures)[:1] if known else paths
        with self.store.writing():
            self.store.forget_failures(paths)
        for path in paths:
            self.model.failures.pop(path, None)

    @precondition(lambda self: self.model.photos)
    @rule(
        data=st.data(),
        label=st.text(st.characters(codec="utf-8"), max_size=4),
        score=st.floats(0, 1),
    )
    def label(self, data: st.DataObject, label: str, score: float) -> None:
        old = self.model.photos[data.draw(st.sampled_from(sorted(self.model.photos)))]
        with self.store.writing():
            self.store.put_labels([(old.photo_id, label, score)])
        self.model.photos[old.path] = replace(old, label=label, label_score=score)

    def _drop(self, path: str) -> bool:
        gone = self.model.photos.pop(path, None)
        if gone:
            del self.model.vectors[gone.photo_id]
        return gone is not None

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        model, store = self.model, self.reader
        in_order = sorted(model.photos.values(), key=lambda photo: os.fsencode(photo.path))
        assert list(store.photos()) == in_order
        assert list(store.stats()) == [
            (photo.path, photo.size, photo.mtime_ns, "") for photo in in_order
        ]
        assert store.failures() == [
            model.failures[path][0] for path in sorted(model.failures, key=os.fsencode)
        ]
        states = {
            path: (path, fact.state, size, mtime, fact.transient)
            for path, (fact, size, mtime) in model.failures.items()
        }
        assert list(store.failure_stats()) == [
            states[path] for path in sorted(states, key=os.fsencode)
        ]
        assert store.photos_with(b"1") == [photo for photo in in_order if photo.fingerprint == b"1"]
        assert (store.count(), store.generation()) == (len(in_order), model.generation)
        aside = [model.aside[path][0] for path in sorted(model.aside, key=os.fsencode)]
        assert list(store.aside.stats()) == [
            (photo.path, photo.size, photo.mtime_ns, "") for photo in aside
        ]
        assert store.aside.count()[0] == len(aside)
        known = store.fingerprints()
        held = {photo.fingerprint for photo in [*in_order, *aside]}
        assert [each in known for each in (b"0", b"1", b"2\0", b"3")] == [
            each in held for each in (b"0", b"1", b"2\0", b"3")
        ]

    @invariant()
    def gives_the_vectors_of_the_model(self) -> None:
        model = self.model
        for since in (-1, model.generation - 1):
            found = [
                (int(i), tuple(row))
                for ids, rows in self.reader.vector_batches(since=since, size=2)
                for i, row in zip(ids, rows, strict=True)
            ]
            assert found == [
                (i, vector)
                for i, (vector, generation) in sorted(model.vectors.items())
                if generation > since
            ]
        known = {photo.photo_id: photo for photo in model.photos.values()}
        rows = sorted(self.reader.rows(sorted(self.given_ids)))
        assert rows == [
            (i, known[i].path, half(*vector).tobytes(), known[i].fingerprint)
            for i, (vector, _) in sorted(model.vectors.items())
        ]


@pytest.mark.slow
def test_any_sequence_of_writes_is_as_a_dict() -> None:
    run_state_machine_as_test(
        StoreMachine, settings=settings(max_examples=20, stateful_step_count=15, deadline=None)
    )
