"""The pipeline: reduced decoding against whole, batches that do not fit, the order of its work, and
where its time went.
"""

import io
import json
import sqlite3
import threading
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from helpers.cli import vitsearch
from helpers.collections import CountingEncoder, content, counts
from helpers.odd_files import picture
from helpers.photos import paint, shade
from helpers.profiles import rgb_profile
from helpers.remarks import logged_remarks
from vitsearch import Collection, CollectionError, index_folder
from vitsearch.collection.pipeline import batch_sizes
from vitsearch.collection.run_facts import StageTimer
from vitsearch.encoders import load_encoder
from vitsearch.encoders.base import WORTH_TUNING
from vitsearch.encoders.batching import OomSafeEncoder, is_out_of_memory
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.photos.decode import decode
from vitsearch.photos.decoder import PhotoDecoder
from vitsearch.storage.store import PhotoStore
from vitsearch.types import STAGES, PhotoInfo, Progress, Stages

CLOSE = 0.995


def jpeg(image: Image.Image, side: int, quality: int = 90) -> bytes:
    """A picture whose longer side has so many pixels, as the content of a JPEG file."""
    scale = side / max(image.size)
    out = io.BytesIO()
    image.resize(
        (round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS
    ).save(out, "JPEG", quality=quality)
    return out.getvalue()


def sample_photos() -> dict[str, Image.Image]:
    """The photographs that come with scikit-image and scikit-learn."""
    skimage = pytest.importorskip("skimage", reason="its sample photos")
    sklearn = pytest.importorskip("sklearn.datasets", reason="its sample photos")
    shown = {
        "astronaut": skimage.data.astronaut(),
        "cat": skimage.data.chelsea(),
        "coffee": skimage.data.coffee(),
    }
    shown |= {name: sklearn.load_sample_image(f"{name}.jpg") for name in ("china", "flower")}
    return {name: Image.fromarray(pixels) for name, pixels in shown.items()}


class TestReducedDecoding:
    @pytest.mark.parametrize("name", ["mini", "colour"])
    @pytest.mark.slow
    def test_every_photo_keeps_its_vector(self, name: str) -> None:
        encoder = load_encoder(name)
        at_least = encoder.decode_at_least
        cosines, reduced = {}, 0
        for photo, image in sample_photos().items():
            for side in (1100, 1700, 3000):
                data = jpeg(image, side)
                whole, small = decode(data)[0], decode(data, at_least=at_least)[0]
                reduced += small.width < whole.width
                cosines[photo, side] = float(
                    np.prod(encoder.encode_images([whole, small]), axis=0).sum()
                )
        assert reduced >= 10
        assert {photo: cosine for photo, cosine in cosines.items() if cosine < CLOSE} == {}

    @pytest.mark.slow
    def test_never_below_twice_what_the_encoder_resizes_to(self) -> None:
        assert load_encoder("mini").decode_at_least == 520
        assert ColourEncoder().decode_at_least == 64
        for size in ((1040, 1040), (1039, 2000), (4160, 4200)):
            small = decode(jpeg(picture(1, size), max(size)), at_least=520)[0]
            assert min(small.size) >= 520
            assert (small.size == size) == (min(size) < 1040)

    def test_an_encoder_that_says_nothing_is_given_whole_photos(self, tmp_path: Path) -> None:
        sizes: list[tuple[int, int]] = []

        class Silent(ColourEncoder):
            decode_at_least = None  # type: ignore[assignment]

            def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
                sizes.append(image.size)
                return super().prepare(image)

        (tmp_path / "a.jpg").write_bytes(jpeg(picture(1), 900))
        index_folder(tmp_path, encoder=Silent())
        assert (900, 600) in sizes


def vector_of(folder: Path, path: str) -> NDArray[np.float32]:
    with Collection.open(folder, encoder=ColourEncoder()) as found:
        photos, vectors = found.vectors()
    return vectors[[photo.path for photo in photos].index(path)]


def stored_way(folder: Path) -> Any:
    with Collection.open(folder, encoder=ColourEncoder()) as found:
        return found.store.get_meta("decode")


class TestWayOfDecoding:
    @pytest.fixture
    def large(self, tmp_path: Path) -> Path:
        noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
        (tmp_path / "photos").mkdir()
        Image.fromarray(noise).save(tmp_path / "photos" / "a.jpg", quality=95)
        Image.fromarray(noise[::-1]).save(tmp_path / "photos" / "query.jpg", quality=95)
        (tmp_path / "photos" / "query.jpg").rename(tmp_path / "query.jpg")
        return tmp_path / "photos"

    @pytest.mark.parametrize("exact", [True, False])
    def test_photos_and_foreign_queries_are_decoded_alike(self, large: Path, exact: bool) -> None:
        index_folder(large, encoder=ColourEncoder(), exact_decode=exact)
        assert stored_way(large) == ("exact" if exact else "scaled")
        at_least = None if exact else 64
        row, asked = (
            ColourEncoder().encode_images([decode(file.read_bytes(), at_least=at_least)[0]])[0]
            for file in (large / "a.jpg", large.parent / "query.jpg")
        )
        np.testing.assert_allclose(vector_of(large, "a.jpg"), row, atol=1e-3)
        with Collection.open(large, encoder=ColourEncoder()) as found:
            assert found.similar(large.parent / "query.jpg")[0].score == pytest.approx(
                float(row @ asked), abs=1e-3
            )

    def test_a_run_goes_on_as_the_collection_began_and_a_mix_is_said_once(
        self, large: Path
    ) -> None:
        def run(name: str, exact: bool | None) -> tuple[Any, list[str]]:
            paint(large / f"{name}.png", "red", name)
            with logged_remarks() as lines:
                index_folder(large, encoder=ColourEncoder(), exact_decode=exact)
            return stored_way(large), lines

        mixed = (
            "photos decoded whole and at a reduced size are now in one collection: their "
            "scores may differ by 0.005"
        )
        assert run("blue", True) == ("exact", [])
        assert run("green", None) == ("exact", [])
        assert run("pink", False) == ("mixed", [mixed])
        assert run("teal", None) == ("mixed", [])

    def test_a_collection_that_recorded_no_way_was_decoded_whole(self, indexed: Path) -> None:
        with sqlite3.connect(indexed / ".vitsearch" / "photos.db") as database:
            database.execute("DELETE FROM facts WHERE name = 'decode'")
        database.close()
        paint(indexed / "new.png", "cyan")
        index_folder(indexed, encoder=ColourEncoder())
        assert stored_way(indexed) == "exact"


class TestColours:
    """ICC profiles of photos: applied, and in a collection made before they were, not until all is
    read again.
    """

    profile = rgb_profile("swapped")  # red is green, green is blue, blue is red

    def photo(self, folder: Path, name: str, colour: str, profile: bytes | None = None) -> Path:
        """A photo whose numbers say this colour."""
        file = paint(folder / name, colour)
        Image.open(file).save(file, "PNG", icc_profile=profile)
        return file

    def colour_of(self, folder: Path, path: str) -> str:
        with Collection.open(folder, encoder=ColourEncoder()) as found:
            scores = {
                name: float(ColourEncoder().encode_texts([name])[0] @ vector_of(folder, path))
                for name in ("red", "green", "blue")
            }
            assert found.search(max(scores, key=scores.__getitem__))
        return max(scores, key=scores.__getitem__)

    def old(self, folder: Path) -> None:
        """Make the collection one of a version that ignored profiles."""
        self.photo(folder, "plain.png", "blue")
        index_folder(folder, encoder=ColourEncoder())
        with sqlite3.connect(folder / ".vitsearch" / "photos.db") as database:
            database.execute("DELETE FROM facts WHERE name = 'colours'")
        database.close()

    def stored(self, folder: Path) -> Any:
        with Collection.open(folder, encoder=ColourEncoder()) as found:
            return found.store.get_meta("colours")

    @pytest.mark.parametrize("timeout", [None, 100.0])
    def test_a_new_collection_has_the_colours_that_people_see(
        self, tmp_path: Path, timeout: float | None
    ) -> None:
        self.photo(tmp_path, "a.png", "red", self.profile)
        self.photo(tmp_path, "plain.png", "red")
        self.photo(tmp_path, "srgb.png", "red", rgb_profile("srgb"))
        index_folder(tmp_path, encoder=ColourEncoder(), decode_timeout=timeout)
        assert [self.colour_of(tmp_path, name) for name in ("a.png", "plain.png")] == [
            "green",
            "red",
        ]
        np.testing.assert_array_equal(
            vector_of(tmp_path, "plain.png"), vector_of(tmp_path, "srgb.png")
        )
        assert self.stored(tmp_path) == "srgb"
        query = self.photo(tmp_path / "query", "q.png", "red", rgb_profile("swapped", name="q"))
        with Collection.open(tmp_path, encoder=ColourEncoder()) as found:
            assert found.similar(query)[0].path == "a.png"

    def test_an_old_collection_goes_on_as_it_was_until_all_is_read_again(
        self, tmp_path: Path
    ) -> None:
        self.old(tmp_path)
        self.photo(tmp_path, "a.png", "red", self.profile)
        with logged_remarks() as lines:
            index_folder(tmp_path, encoder=ColourEncoder())
        assert (self.colour_of(tmp_path, "a.png"), self.stored(tmp_path), lines) == (
            "red",
            None,
            [],
        )
        query = self.photo(tmp_path / "query", "q.png", "red", rgb_profile("swapped", name="q"))
        with Collection.open(tmp_path, encoder=ColourEncoder()) as found:
            assert found.similar(query)[0].path == "a.png"
            ids = {photo.path: photo.photo_id for photo in found.photos()}
        before = vector_of(tmp_path, "plain.png")
        report = index_folder(tmp_path, encoder=ColourEncoder(), reread="*")
        assert (report.indexed, report.unchanged, report.total) == (2, 1, 3)  # the query is new
        assert (self.colour_of(tmp_path, "a.png"), self.stored(tmp_path)) == ("green", "srgb")
        np.testing.assert_array_equal(vector_of(tmp_path, "plain.png"), before)
        with Collection.open(tmp_path, encoder=ColourEncoder()) as found:
            after = {photo.path: photo.photo_id for photo in found.photos()}
            assert ids.items() <= after.items()
            assert [check for check in found.verify() if not check.ok] == []
            assert found.search("green")[0].path == "a.png"
        assert index_folder(tmp_path, encoder=ColourEncoder(), reread="*").indexed == 0

    def test_reading_some_again_leaves_an_old_collection_as_it_was(self, tmp_path: Path) -> None:
        self.old(tmp_path)
        self.photo(tmp_path, "a.png", "red", self.profile)
        index_folder(tmp_path, encoder=ColourEncoder(), reread="a*")
        assert (self.colour_of(tmp_path, "a.png"), self.stored(tmp_path)) == ("red", None)

    def test_a_run_that_was_stopped_is_done_again(self, tmp_path: Path) -> None:
        self.old(tmp_path)
        self.photo(tmp_path, "a.png", "red", self.profile)
        index_folder(tmp_path, encoder=ColourEncoder())
        with closing(PhotoStore(tmp_path / ".vitsearch" / "photos.db")) as store, store.writing():
            store.set_meta("colours", "mixed")
        self.photo(tmp_path, "b.png", "blue", self.profile)
        index_folder(tmp_path, encoder=ColourEncoder())
        colours = [self.colour_of(tmp_path, name) for name in ("a.png", "b.png")]
        assert (colours, self.stored(tmp_path)) == (["red", "red"], "mixed")
        assert index_folder(tmp_path, encoder=ColourEncoder(), reread="*").indexed == 1
        assert (self.colour_of(tmp_path, "a.png"), self.stored(tmp_path)) == ("green", "srgb")

    def test_shards_carry_how_photos_were_decoded(self, tmp_path: Path) -> None:
        pytest.importorskip("pyarrow")
        from vitsearch.shards import open_shards

        self.photo(tmp_path / "photos", "a.png", "red", self.profile)
        index_folder(tmp_path / "photos", encoder=ColourEncoder())
        with Collection.open(tmp_path / "photos", encoder=ColourEncoder()) as found:
            found.export(tmp_path / "new", "shards")
        self.old(tmp_path / "photos")
        with Collection.open(tmp_path / "photos", encoder=ColourEncoder()) as found:
            found.export(tmp_path / "old", "shards")
        assert [open_shards(tmp_path / name).manifest.colours for name in ("new", "old")] == [
            "srgb",
            "raw",
        ]


class Small(CountingEncoder):
    """`colour` on a machine that holds so many pictures at a time, and notes the sizes of the
    batches that it was given.
    """

    def __init__(self, holds: int, error: Exception | None = None) -> None:
        super().__init__()
        self.holds, self.error, self.sizes = holds, error or MemoryError(), list[int]()

    def encode_prepared(self, batch: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        self.sizes.append(len(batch))
        if len(batch) > self.holds:
            raise self.error
        return super().encode_prepared(batch)


class TestOutOfMemory:
    def test_a_batch_is_halved_and_the_next_ones_begin_small(self) -> None:
        pictures = [np.full((32, 32, 3), shade(number), dtype=np.uint8) for number in range(16)]
        encoder = Small(5)
        patient = OomSafeEncoder(encoder)
        rows = [patient.encode(pictures), patient.encode(pictures[:8])]
        assert encoder.sizes == [16, 8, 4, 4, 4, 4, 4, 4]
        np.testing.assert_array_equal(np.stack(rows[0]), ColourEncoder().encode_prepared(pictures))  # type: ignore[arg-type]
        np.testing.assert_array_equal(
            np.stack(rows[1]), ColourEncoder().encode_prepared(pictures[:8])
        )  # type: ignore[arg-type]

    @settings(deadline=None)
    @given(number=st.integers(0, 40), holds=st.integers(1, 40), before=st.integers(0, 40))
    @pytest.mark.slow
    def test_any_batch_gives_every_row_in_order(self, number: int, holds: int, before: int) -> None:
        pictures = [np.full((32, 32, 3), shade(place), dtype=np.uint8) for place in range(number)]
        patient = OomSafeEncoder(Small(holds))
        patient.encode(pictures[:before])
        rows = patient.encode(pictures)
        assert [row.tobytes() for row in rows if row is not None] == [
            row.tobytes() for row in ColourEncoder().encode_prepared(pictures)
        ]

    @pytest.mark.parametrize(
        "error",
        [
            MemoryError(),
            RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: not enough memory: "
                "you "
                "tried to allocate 12 bytes"
            ),
            RuntimeError(
                "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned: "
                "std::bad_alloc"
            ),
            RuntimeError(
                "[ONNXRuntimeError] : BFCArena::AllocateRawInternal Failed to allocate memory "
                "for "
                "requested buffer of size 1"
            ),
        ],
    )
    def test_indexing_gives_what_a_large_machine_gives(
        self, photos: Path, tmp_path: Path, error: Exception
    ) -> None:
        index_folder(photos, collection=tmp_path / "large", encoder=ColourEncoder())
        report = index_folder(photos, encoder=Small(1, error))
        assert counts(report) == {"indexed": 4}
        assert content(photos) == content(photos, collection=tmp_path / "large")

    def test_a_photo_that_does_not_fit_alone_is_the_only_one_lost(self, photos: Path) -> None:
        class NoRed(ColourEncoder):
            def encode_prepared(self, batch: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
                if any(np.array_equal(one[0, 0], (220, 20, 20)) for one in batch):
                    raise MemoryError
                return super().encode_prepared(batch)

        assert counts(index_folder(photos, encoder=NoRed())) == {"indexed": 3, "failed": 1}
        with Collection.open(photos, encoder=ColourEncoder()) as found:
            assert [(one.path, one.reason) for one in found.failures()] == [
                ("red.png", "not enough memory to encode it, even by itself")
            ]
        assert counts(index_folder(photos, encoder=ColourEncoder(), retry=True)) == {
            "indexed": 1,
            "unchanged": 3,
        }

    def test_torchs_own_error_is_known(self) -> None:
        torch = pytest.importorskip("torch", reason="its error")
        assert is_out_of_memory(torch.OutOfMemoryError("CUDA error"))

    def test_another_error_is_raised_and_what_was_stored_is_kept(self, photos: Path) -> None:
        class Breaks(ColourEncoder):
            rows = -1  # the golden picture

            def encode_prepared(self, batch: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
                self.rows += len(batch)
                if self.rows > 2:
                    raise RuntimeError("the chip is gone")
                return super().encode_prepared(batch)

        with pytest.raises(RuntimeError, match="the chip is gone"):
            index_folder(photos, encoder=Breaks(), batch_size=1)
        assert set(content(photos)) == {"green.png", "red.png"}


def test_a_batch_is_stored_while_the_next_is_encoded(photos: Path) -> None:
    """Once a batch is stored, the run waits for the encoder to begin the next one: in turns it
    would wait in vain.
    """
    begun = threading.Condition()

    class Begins(CountingEncoder):
        def encode_prepared(self, batch: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
            with begun:
                self.embedded += len(batch)
                begun.notify_all()
            return ColourEncoder().encode_prepared(batch)

    encoder, overlapped = Begins(), list[bool]()

    def progress(step: Progress) -> None:
        if step.stage == "embedding" and 0 < step.done < 4:
            with begun:
                overlapped.append(begun.wait_for(lambda: encoder.embedded > step.done, timeout=10))

    index_folder(photos, encoder=encoder, batch_size=1, progress=progress)
    assert overlapped == [True, True, True]


class TestWhereTheTimeWent:
    def test_a_report_has_every_stage(self, photos: Path) -> None:
        (photos / "bad.jpg").write_bytes(b"not a photo")
        stages = index_folder(photos, encoder=ColourEncoder()).stages
        assert [name for name in STAGES if not getattr(stages, name) > 0] == []
        assert stages.wall > 0
        assert list(stages.shares()) == list(STAGES)
        assert sum(stages.shares().values()) == pytest.approx(1)

    def test_an_unchanged_folder_takes_no_work_of_these(self, indexed: Path) -> None:
        stages = index_folder(indexed).stages
        assert [name for name in STAGES if getattr(stages, name) > 0] == ["walk", "build"]

    @pytest.mark.parametrize(
        ("seconds", "workers", "bound"),
        [
            ({"decode": 9.0, "encode": 4.0}, 2, "decoding"),
            ({"decode": 9.0, "encode": 5.0}, 2, "model"),
            ({"read": 9.0, "decode": 1.0, "prepare": 1.0, "encode": 5.0}, 2, "disk"),
            ({"decode": 3.0, "encode": 2.0, "store": 3.5}, 1, "storing"),
            ({"walk": 1.0, "build": 0.5}, 4, "looking"),
        ],
    )
    def test_the_busiest_thread_bounds_a_run(
        self, seconds: dict[str, float], workers: int, bound: str
    ) -> None:
        clock = StageTimer()
        clock.seconds.update(seconds)
        expected = Stages(**dict.fromkeys(STAGES, 0.0), wall=9.5, bound="disk")  # type: ignore[arg-type]
        assert clock.report(wall=9.5, workers=workers) == replace(expected, **seconds, bound=bound)  # type: ignore[arg-type]

    def test_a_trace_has_an_event_for_each_piece_of_work(
        self, photos: Path, tmp_path: Path
    ) -> None:
        report = index_folder(
            photos, encoder=ColourEncoder(), batch_size=2, profile=tmp_path / "run.json"
        )
        trace = json.loads((tmp_path / "run.json").read_text("ascii"))
        events = [event for event in trace["traceEvents"] if event["ph"] == "X"]
        paths = ["green.png", "red.png", "sub/blue.png", "yellow.png"]
        for name in ("read", "decode", "prepare"):
            assert (
                sorted(event["args"]["what"] for event in events if event["name"] == name) == paths
            )
        for name in ("encode", "store"):
            assert [event["args"]["what"] for event in events if event["name"] == name] == [
                "2 photos"
            ] * 2
        names = {
            event["tid"]: event["args"]["name"]
            for event in trace["traceEvents"]
            if event["ph"] == "M"
        }
        assert {names[event["tid"]] for event in events if event["name"] == "encode"} == {
            "encoder_0"
        }
        assert {names[event["tid"]] for event in events if event["name"] == "store"} == {
            threading.current_thread().name
        }
        assert sum(event["dur"] for event in events if event["name"] == "decode") == pytest.approx(
            report.stages.decode * 1e6, abs=1
        )
        assert trace["otherData"] == {"events_left_out": 0}

    def test_a_trace_is_bounded(self, tmp_path: Path) -> None:
        clock = StageTimer(traces=True, max_events=3)
        for number in range(10):
            with clock.stage("decode", str(number)):
                pass
        clock.write_trace(tmp_path / "run.json")
        trace = json.loads((tmp_path / "run.json").read_text("ascii"))
        assert [event["args"]["what"] for event in trace["traceEvents"] if event["ph"] == "X"] == [
            "0",
            "1",
            "2",
        ]
        assert trace["otherData"] == {"events_left_out": 7}

    def test_a_profile_that_cannot_be_written_is_refused_before_the_work(
        self, photos: Path, tmp_path: Path
    ) -> None:
        for place in (tmp_path / "nowhere" / "run.json", tmp_path):
            with pytest.raises(CollectionError, match="cannot write the profile"):
                index_folder(photos, encoder=ColourEncoder(), profile=place)
        assert not (photos / ".vitsearch").exists()

    def test_the_command_line_says_it_in_one_line(self, photos: Path, tmp_path: Path) -> None:
        done = vitsearch(
            "index",
            photos,
            "--encoder",
            "colour",
            "--exact-decode",
            "--profile",
            tmp_path / "run.json",
        )
        assert done.returncode == 0
        (line,) = done.stderr.decode().splitlines()
        assert line.startswith("vitsearch: of the work, ")
        assert ": bound by " in line
        assert stored_way(photos) == "exact"
        assert json.loads((tmp_path / "run.json").read_text("ascii"))["traceEvents"]
        again = vitsearch("index", photos, "--json")
        assert set(json.loads(again.stdout)["stages"]) == {*STAGES, "wall", "bound"}
        assert again.stderr == b""


def test_stages_are_the_fields_of_the_report() -> None:
    assert [*asdict(StageTimer().report(wall=0.0, workers=1))] == [*STAGES, "wall", "bound"]


class GpuLike(ColourEncoder):
    """An encoder that says it is on a GPU and takes note of what it is asked to tune for."""

    device = "cuda"

    def __init__(self) -> None:
        super().__init__()
        self.tuned: list[int] = []

    def tune(self, batch_size: int) -> None:
        self.tuned.append(batch_size)


def test_only_many_photos_on_a_gpu_are_worth_tuning() -> None:
    encoder, on_cpu = GpuLike(), GpuLike()
    on_cpu.device = "cpu"
    for each, photos in (
        (encoder, WORTH_TUNING - 1),
        (on_cpu, WORTH_TUNING),
        (ColourEncoder(), WORTH_TUNING),
        (encoder, WORTH_TUNING),
    ):
        each.autotune(32, photos=photos)
    assert (encoder.tuned, on_cpu.tuned) == ([32], [])


@given(count=st.integers(0, 500), most=st.integers(1, 40), callers=st.integers(1, 9))
def test_batches_hold_every_photo_once_and_the_last_ones_are_small(
    count: int, most: int, callers: int
) -> None:
    sizes = list(batch_sizes(count, most, callers))
    assert sum(sizes) == count
    assert all(1 <= size <= most for size in sizes)
    assert sizes == sorted(sizes, reverse=True)
    if callers > 1 and most > 1:
        assert all(size > 1 for size in sizes[:-1])
        assert all(size <= 2 for size in sizes[-1:])


def test_batches_of_one_caller_are_full() -> None:
    assert list(batch_sizes(70, 32, 1)) == [32, 32, 6]
    assert list(batch_sizes(30, 8, 2)) == [8, 6, 4, 3, 3, 2, 2, 2]


def test_a_slow_photo_does_not_hold_the_others(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, two_are_stored = PhotoDecoder.decode, threading.Event()

    def slow(self: PhotoDecoder, data: bytes, /, **keywords: Any) -> tuple[Image.Image, PhotoInfo]:
        if keywords["name"] == "green.png":
            assert two_are_stored.wait(60)
        return plain(self, data, **keywords)

    def watch(progress: Progress) -> None:
        if progress.done == 2:
            two_are_stored.set()

    monkeypatch.setattr(PhotoDecoder, "decode", slow)
    monkeypatch.setattr("vitsearch.collection.pipeline.PATIENCE", 0.05)
    report = index_folder(photos, encoder=ColourEncoder(), batch_size=1, workers=2, progress=watch)
    assert report.indexed == 4
    with Collection.open(photos) as collection:
        assert collection.search("green", 1)[0].path == "green.png"
