"""Videos in a collection: found by their best moment, and one file in everything else."""

import os
import shutil
from pathlib import Path

import pytest

pytest.importorskip("av")

from helpers.collections import counts
from helpers.photos import paint
from helpers.videos import Clip, make_video
from vitsearch import Collection, IndexReport, index_folder
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.interop import merge
from vitsearch.types import SearchResult


def index(folder: Path, **options: object) -> IndexReport:
    defaults = {"encoder": ColourEncoder(), "video_every": 1.0}
    return index_folder(folder, **{**defaults, **options})  # type: ignore[arg-type]


def hits(folder: Path, query: str, top_k: int = 10, **options: object) -> list[tuple[str, float]]:
    with Collection.open(folder, encoder=ColourEncoder()) as collection:
        results = collection.search(query, top_k, **options)  # type: ignore[arg-type]
    return [(result.path, result.time) for result in results]  # type: ignore[misc]


def rows(folder: Path) -> list[tuple[int, str, float | None]]:
    """Return id, stored path and time of every row."""
    with Collection.open(folder) as collection:
        photos = collection.store.photos(moments=True)
        return [(photo.photo_id, photo.path, photo.time) for photo in photos]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of two photos and two videos, indexed."""
    made = tmp_path / "photos"
    paint(made / "blue.png", "blue")
    paint(made / "orange.png", "orange")
    make_video(made / "clip.mp4", "red", "red", "green", "blue")
    make_video(made / "sub" / "holiday.mkv", "yellow", "purple")
    assert counts(index(made)) == {"indexed": 4}
    return made


MOMENTS = [
    (1, "blue.png", None),
    (3, "clip.mp4", 0.0),
    (4, "clip.mp4#t=2.000", 2.0),  # red again at 1 s looks like the moment before
    (5, "clip.mp4#t=3.000", 3.0),
    (2, "orange.png", None),
    (6, "sub/holiday.mkv", 0.0),
    (7, "sub/holiday.mkv#t=1.000", 1.0),
]


@pytest.mark.slow
def test_a_search_shows_each_file_once_by_its_best_moment(folder: Path) -> None:
    assert rows(folder) == MOMENTS
    assert hits(folder, "green", 1) == [("clip.mp4", 2.0)]
    assert hits(folder, "purple", 1) == [("sub/holiday.mkv", 1.0)]
    assert sorted(hits(folder, "blue", 2)) == [("blue.png", None), ("clip.mp4", 3.0)]
    with Collection.open(folder, encoder=ColourEncoder()) as collection:
        assert len(collection) == 4
        assert len(collection.search("green", 4)) == 4  # files, though a video has three moments
        assert [photo.path for photo in collection.photos()] == [
            "blue.png",
            "clip.mp4",
            "orange.png",
            "sub/holiday.mkv",
        ]
        (best,) = collection.search("green", 1)
        assert best == SearchResult("clip.mp4", best.score, 4, time=2.0)
        assert collection.info()["photos"] == 4
        assert collection.info()["moments"] == 3


@pytest.mark.slow
def test_a_result_has_the_picture_and_the_facts_of_its_moment(folder: Path) -> None:
    with Collection.open(folder, encoder=ColourEncoder()) as collection:
        best = collection.search("green", 1)
    assert (best[0].photo.path, best[0].photo.time) == ("clip.mp4#t=2.000", 2.0)
    red, green, blue = best[0].image().resize((1, 1)).getpixel((0, 0))  # type: ignore[misc]
    assert green > max(red, blue) + 60
    assert "0:02 clip.mp4" in best._repr_html_()


@pytest.mark.slow
def test_filters_know_the_moments(folder: Path) -> None:
    assert hits(folder, "red", where="time > 2.5") == [("clip.mp4", 3.0)]
    assert hits(folder, "red", where="duration < 3") == [("sub/holiday.mkv", 0.0)]
    assert sorted(hits(folder, "red", where="time is null")) == [
        ("blue.png", None),
        ("orange.png", None),
    ]


@pytest.mark.slow
def test_photos_like_a_video_leave_all_of_it_out(folder: Path) -> None:
    with Collection.open(folder, encoder=ColourEncoder()) as collection:
        similar = [hit.path for hit in collection.similar(folder / "clip.mp4")]
        assert sorted(similar) == ["blue.png", "orange.png", "sub/holiday.mkv"]
        assert collection.similar(folder / "blue.png", 1)[0].time == 3.0


@pytest.mark.slow
def test_nothing_is_read_twice_and_a_file_that_moves_keeps_its_moments(folder: Path) -> None:
    assert counts(index(folder)) == {"unchanged": 4}
    (folder / "clip.mp4").rename(folder / "other.mp4")
    os.utime(folder / "sub" / "holiday.mkv", ns=(1, 1))
    assert counts(index(folder)) == {"unchanged": 3, "moved": 1}
    assert [row for row in rows(folder) if row[0] in (3, 4, 5)] == [
        (3, "other.mp4", 0.0),
        (4, "other.mp4#t=2.000", 2.0),
        (5, "other.mp4#t=3.000", 3.0),
    ]
    assert hits(folder, "green", 1) == [("other.mp4", 2.0)]


@pytest.mark.slow
def test_a_copy_and_a_changed_file(folder: Path) -> None:
    shutil.copy(folder / "clip.mp4", folder / "copy.mp4")
    make_video(folder / "sub" / "holiday.mkv", "cyan")
    assert counts(index(folder)) == {"indexed": 2, "unchanged": 3}
    assert rows(folder)[4:] == [
        (8, "copy.mp4", 0.0),
        (9, "copy.mp4#t=2.000", 2.0),
        (10, "copy.mp4#t=3.000", 3.0),
        (2, "orange.png", None),
        (6, "sub/holiday.mkv", 0.0),
    ]
    with Collection.open(folder) as collection:
        same = [[photo.path for photo in group] for group in collection.duplicates()]
        alike = [
            [group.photo.path, *(photo.path for photo, _ in group.others)]
            for group in collection.lookalikes()
        ]
    assert same == [["clip.mp4", "copy.mp4"]]
    assert alike == []


@pytest.mark.slow
def test_a_video_that_is_gone_comes_back(folder: Path, tmp_path: Path) -> None:
    away = shutil.move(folder / "clip.mp4", tmp_path / "clip.mp4")
    assert counts(index(folder)) == {"unchanged": 3, "removed": 1}
    assert [path for _, path, _ in rows(folder)] == [
        "blue.png",
        "orange.png",
        "sub/holiday.mkv",
        "sub/holiday.mkv#t=1.000",
    ]
    with Collection.open(folder) as collection:
        assert collection.info()["put_aside"] == 1
    shutil.move(away, folder / "clip.mp4")
    assert counts(index(folder)) == {"unchanged": 3, "restored": 1}
    assert rows(folder) == MOMENTS
    shutil.move(folder / "clip.mp4", tmp_path / "clip.mp4")
    index(folder)
    shutil.move(away, folder / "renamed.mp4")
    assert counts(index(folder)) == {"unchanged": 3, "restored": 1}
    assert hits(folder, "green", 1) == [("renamed.mp4", 2.0)]
    (folder / "renamed.mp4").unlink()
    index(folder)
    with Collection.open(folder) as collection:
        assert collection.forget() == 1
        assert collection.info()["put_aside"] == 0


@pytest.mark.slow
def test_a_video_that_cannot_be_read_any_more(folder: Path) -> None:
    whole = (folder / "clip.mp4").read_bytes()
    (folder / "clip.mp4").write_bytes(whole[: len(whole) // 2])
    assert counts(index(folder)) == {"unchanged": 3, "failed": 1}
    assert [time for _, path, time in rows(folder) if path.startswith("clip")] == []
    with Collection.open(folder) as collection:
        (failure,) = collection.failures()
        assert (failure.path, failure.reason.partition(":")[0]) == ("clip.mp4", "it is cut off")


@pytest.mark.slow
def test_a_label_is_of_the_whole_video(folder: Path) -> None:
    make_video(folder / "green.mp4", "red", "green", "lime", "green", "lime")
    index(folder)
    with Collection.open(folder, encoder=ColourEncoder()) as collection:
        predictions = collection.label(["red", "green", "blue", "orange", "purple", "yellow"])
        labels = {prediction.path: prediction.label for prediction in predictions}
        assert labels["blue.png"] == "blue"
        assert labels["green.mp4"] == "green"  # its first moment is red
        assert len(predictions) == 5
        collection.store_labels(predictions)
    found = hits(folder, "green", where="label = 'green' and path like 'g%'")
    assert found == [("green.mp4", 1.0)]
    found = hits(folder, "red", where="label = 'green' and path like 'g%'")
    assert found == [("green.mp4", 0.0)]


def test_photos_and_videos_under_names_of_the_other(tmp_path: Path) -> None:
    paint(tmp_path / "photo.mp4", "green")
    make_video(tmp_path / "a.mp4", "red").rename(tmp_path / "video.png")
    assert counts(index(tmp_path)) == {"indexed": 1, "failed": 1}
    with Collection.open(tmp_path) as collection:
        (failure,) = collection.failures()
    assert failure.reason == "a video under the name of a photo: give it its suffix, such as mp4"


@pytest.mark.slow
def test_moments_are_merged_and_verified(folder: Path, tmp_path: Path) -> None:
    above = tmp_path
    paint(above / "one.png", "red")
    index(above, exclude=["photos"])
    with Collection.open(folder) as source, Collection.open(above) as target:
        merge(source, target)
    with Collection.open(above, encoder=ColourEncoder()) as collection:
        assert len(collection) == 5
        assert collection.search("green", 1)[0].path == "photos/clip.mp4"
        assert [check.name for check in collection.verify(content=True) if not check.ok] == []


def test_a_limit_of_time_and_the_least_distance(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", "red", "green", "blue", clip=Clip(key_every=5))
    paint(tmp_path / "b.png", "red")
    assert counts(index(tmp_path, video_every=2.0)) == {"indexed": 2}
    assert [time for _, path, time in rows(tmp_path) if path != "b.png"] == [0.0, 2.0]
    with pytest.raises(Exception, match=r"at least 0\.1 seconds apart"):
        index(tmp_path, video_every=0)


@pytest.mark.slow
def test_the_clip_of_a_live_photo_belongs_to_its_photo(tmp_path: Path) -> None:
    paint(tmp_path / "IMG_1.jpg", "red")  # a PNG by its content, a photo all the same
    make_video(tmp_path / "IMG_1.MOV", "green", clip=Clip(demuxer="mov"))
    make_video(tmp_path / "IMG_2.MOV", "blue", clip=Clip(demuxer="mov"))
    motion = make_video(tmp_path / "x.mp4", "yellow").read_bytes()
    (tmp_path / "x.mp4").unlink()
    still = paint(tmp_path / "IMG_3.png", "purple").read_bytes()
    (tmp_path / "IMG_3.png").write_bytes(still + motion)  # a motion photo: the clip is appended
    assert counts(index(tmp_path)) == {"indexed": 3}
    assert [path for _, path, _ in rows(tmp_path)] == ["IMG_1.jpg", "IMG_2.MOV", "IMG_3.png"]
    with Collection.open(tmp_path) as collection:
        assert collection.companions(["IMG_1.jpg"]) == {"IMG_1.jpg": ["IMG_1.MOV"]}
    (tmp_path / "IMG_1.jpg").unlink()
    index(tmp_path)
    assert [path for _, path, _ in rows(tmp_path)] == ["IMG_1.MOV", "IMG_2.MOV", "IMG_3.png"]
