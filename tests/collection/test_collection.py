"""The collection end to end: every recipe gives the results of the exact search, whatever became of
its index.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.cli import environment
from helpers.collections import content, found_paths
from helpers.photos import paint, shade
from vitsearch import Collection, PhotoError, QueryError, Term, index_folder
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.labels import LinearClassifier, zero_shot_classifier
from vitsearch.types import SearchResult

QUERIES = ("red", "blue - green", "2:yellow + purple", "no colour at all")
RECIPES = ("flat", "hnsw", "ivf", "sq8")
TOP_KS = (700, 1500, 5000)


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 400 photos, 40 of which look the same, with one collection for each recipe beside
    it.
    """
    folder = tmp_path_factory.mktemp("crowd") / "photos"
    for number in range(360):
        paint(folder / f"{number:03}.png", shade(number), shade(7 * number + 1), size=(4, 2))
    for number in range(40):
        paint(folder / f"red {number:02}.png", "red", size=(4, 3 + number))
    for recipe in RECIPES:
        index_folder(
            folder, encoder=ColourEncoder(), recipe=recipe, collection=folder.parent / recipe
        )
    return folder


def searched(folder: Path, query: Any, top_k: int, **options: Any) -> list[SearchResult]:
    with Collection.open(folder, encoder=ColourEncoder(), **options) as found:
        return found.search(query, top_k)


def exact(folder: Path, text: str, top_k: int) -> list[tuple[str, float]]:
    """Return what a sort of all cosines by (score, path) gives."""
    with Collection.open(folder, collection=folder.parent / "flat") as found:
        photos, vectors = found.vectors()
        rows = found.encoder.encode_texts([text])
    scores = (vectors.astype(np.float64) @ rows[0].astype(np.float64)).round(6)
    return sorted(
        ((photo.path, float(score)) for photo, score in zip(photos, scores, strict=True)),
        key=lambda one: (-one[1], one[0]),
    )[:top_k]


@pytest.mark.parametrize("recipe", RECIPES[1:])
@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("top_k", [1, 10, 45, 400, 10_000])
def test_every_recipe_gives_the_same_results(
    crowd: Path, recipe: str, query: str, top_k: int
) -> None:
    expected = searched(crowd, query, top_k, collection=crowd.parent / "flat")
    assert len(expected) == min(top_k, 400)
    assert searched(crowd, query, top_k, collection=crowd.parent / recipe) == expected


@pytest.mark.parametrize("top_k", [5, 41, 400])
def test_results_are_those_of_a_plain_sort_ties_by_path(crowd: Path, top_k: int) -> None:
    hits = searched(crowd, "red", top_k, collection=crowd.parent / "flat")
    assert [(hit.path, round(hit.score, 6)) for hit in hits][:40] == exact(crowd, "red", top_k)[:40]
    assert [hit.path for hit in hits[:40] if hit.path.startswith("red")] == [
        f"red {number:02}.png" for number in range(min(top_k, 40))
    ]


@pytest.mark.slow
def test_more_results_than_an_index_can_reach(tmp_path: Path) -> None:
    folder, flat = tmp_path / "photos", tmp_path / "flat"
    # many lists of which few are read, and many equal rows, which part a graph
    for number in range(1500):
        paint(
            folder / f"{number:04}.png",
            shade(number // 2 if number < 1000 else 0),
            size=(2, 1 + number % 2),
        )
    index_folder(folder, encoder=ColourEncoder(), collection=flat, batch_size=256)
    expected = {top_k: searched(folder, "blue", top_k, collection=flat) for top_k in TOP_KS}
    for recipe in ("hnsw", "ivf"):
        other = shutil.copytree(flat, tmp_path / recipe)
        index_folder(folder, encoder=ColourEncoder(), collection=other, recipe=recipe)
        assert {
            top_k: searched(folder, "blue", top_k, collection=other) for top_k in TOP_KS
        } == expected


@pytest.mark.slow
def test_without_faiss_the_results_are_the_same(crowd: Path) -> None:
    program = (
        "import sys; sys.modules['faiss'] = None\nfrom vitsearch import Collection\n"
        "for name in sys.argv[2:]:\n    with Collection.open(sys.argv[1], collection=name) as "
        "found:\n"
        f"        for query in {QUERIES!r}:\n            print([(h.path, h.score, h.photo_id) for "
        "h in found.search(query, 45)])\n"
    )
    command = [
        sys.executable,
        "-c",
        program,
        str(crowd),
        str(crowd.parent / "flat"),
        str(crowd.parent / "hnsw"),
    ]
    ended = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=60, check=True
    )
    flat = [
        [
            (h.path, h.score, h.photo_id)
            for h in searched(crowd, query, 45, collection=crowd.parent / "flat")
        ]
        for query in QUERIES
    ]
    assert ended.stdout.splitlines() == [str(hits) for hits in flat + flat]


@pytest.mark.parametrize("recipe", RECIPES)
def test_an_older_index_gives_right_results(indexed: Path, recipe: str, tmp_path: Path) -> None:
    index_folder(indexed, encoder=ColourEncoder(), recipe=recipe)
    shutil.copytree(indexed / ".vitsearch" / "index", tmp_path / "older")
    os.remove(indexed / "green.png")
    paint(indexed / "yellow.png", "purple", size=(9, 9))
    paint(indexed / "pink.png", "pink")
    index_folder(indexed, encoder=ColourEncoder())
    expected = {
        query: searched(indexed, query, 10)
        for query in ("red", "green", "purple", "pink", "yellow")
    }
    shutil.rmtree(indexed / ".vitsearch" / "index")
    assert {query: searched(indexed, query, 10) for query in expected} == expected
    shutil.copytree(tmp_path / "older", indexed / ".vitsearch" / "index")
    assert {query: searched(indexed, query, 10) for query in expected} == expected
    assert found_paths(indexed, "purple", 1) == ["yellow.png"]
    assert "green.png" not in found_paths(indexed, "green")


def spoil(file: Path, how: str) -> None:
    data = file.read_bytes()
    if how == "gone":
        file.unlink()
    else:
        file.write_bytes(
            {
                "cut": data[: len(data) // 2],
                "empty": b"",
                "garbage": b"garbage" * (len(data) // 7 + 1),
            }.get(how, flipped(data))
        )


def flipped(data: bytes) -> bytes:
    return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 255]) + data[len(data) // 2 + 1 :]


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", ["manifest.json", "vectors.f16", "ids.i64", "index.faiss"])
@pytest.mark.parametrize("how", ["gone", "cut", "empty", "garbage", "flip"])
def test_a_damaged_index_changes_no_result_and_is_built_again(
    indexed: Path, recipe: str, name: str, how: str, remarks: list[str]
) -> None:
    index_folder(indexed, encoder=ColourEncoder(), recipe=recipe)
    expected = searched(indexed, "red", 10)
    spoil(indexed / ".vitsearch" / "index" / name, how)
    remarks.clear()  # of building the index
    with Collection.open(indexed) as found:
        assert found.search("red", 10) == expected
        assert len(remarks) == (0 if (name, how) == ("manifest.json", "gone") else 1)
    index_folder(indexed, encoder=ColourEncoder())
    with Collection.open(indexed) as found:
        remarks.clear()
        assert (found.search("red", 10), remarks) == (expected, [])


def test_what_a_query_may_be(
    indexed: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    outside = paint(tmp_path / "out" / "a + b.png", "red", "red", "blue")
    monkeypatch.chdir(outside.parent)
    words = found_paths(indexed, "red")
    assert words[0] == "red.png"
    assert (
        found_paths(indexed, '"./a + b.png"')
        == found_paths(indexed, outside)
        == found_paths(indexed, [Term(Path("a + b.png"))])
    )
    assert found_paths(indexed, '"./a + b.png"', 2) == ["red.png", "sub/blue.png"]
    assert found_paths(indexed, Image.open(outside), 2) == ["red.png", "sub/blue.png"]
    assert found_paths(indexed, ColourEncoder().encode_texts(["red"])[0]) == words
    assert found_paths(indexed, [Term("blue", 2.0), Term("red", 1.0)], 2) == [
        "sub/blue.png",
        "red.png",
    ]
    assert found_paths(indexed, "2:blue + red", 2) == ["sub/blue.png", "red.png"]
    assert found_paths(indexed, "blue + red - 3:blue", 1) == ["red.png"]


def test_photos_of_the_query_are_left_out(indexed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(indexed / "sub")
    assert found_paths(indexed, "./blue.png + ../red.png") == ["green.png", "yellow.png"]
    assert "red.png" not in found_paths(indexed, "blue - ../red.png")
    with Collection.open(indexed) as found:
        assert "sub/blue.png" not in [hit.path for hit in found.similar("blue.png")]
        assert "red.png" not in [
            hit.path for hit in found.similar("red.png")
        ]  # not here, but below the root


@pytest.mark.parametrize("top_k", [0, -1, 1.5, True, "3", None])
def test_a_number_of_results_that_is_none(indexed: Path, top_k: Any) -> None:
    with Collection.open(indexed) as found, pytest.raises(QueryError, match="at least 1"):
        found.search("red", top_k)


@pytest.mark.parametrize(
    "query",
    [
        "",
        " ",
        [],
        np.zeros(27),
        np.ones(26),
        np.full(27, np.nan),
        5,
        None,
        [Term("red"), Term("red", -1.0)],
    ],
)
def test_queries_that_mean_nothing(indexed: Path, query: Any) -> None:
    with Collection.open(indexed) as found, pytest.raises(QueryError):
        found.search(query)


def test_a_query_photo_that_cannot_be_read_is_named(indexed: Path) -> None:
    with Collection.open(indexed) as found, pytest.raises(PhotoError, match="gone"):
        found.search(Path("gone.png"))


def test_labels_of_stored_vectors(indexed: Path) -> None:
    shutil.copytree(
        indexed,
        indexed.parent / "only",
        ignore=lambda *_: ["red.png", "green.png", "yellow.png", "sub"],
    )
    names = ["red", "green", "blue", "yellow"]
    classifier = zero_shot_classifier(ColourEncoder(), names)
    with Collection.open(indexed) as found:
        best = [(one.path, one.label) for one in found.label(names)]
        assert best == [
            ("green.png", "green"),
            ("red.png", "red"),
            ("sub/blue.png", "blue"),
            ("yellow.png", "yellow"),
        ]
        assert [(one.path, one.label) for one in found.label(classifier)] == best
        every = found.label(names, top=4)
        assert [one.label for one in every[:1]] == ["green"]
        assert sum(one.score for one in every[:4]) == pytest.approx(1, abs=1e-5)
        assert [
            (one.path, one.label) for one in found.label(names, templates=["{} thing", "all {}"])
        ] == best
        found.store_labels(every)
        assert [(photo.path, photo.label) for photo in found.photos()] == best
    bias = LinearClassifier(
        ("no", "yes"), np.zeros((2, 27), np.float32), np.array([0, 1], np.float32)
    )
    with Collection.open(indexed.parent / "only") as found:
        assert {one.label for one in found.label(bias)} == {"yes"}


def test_the_moved_photo_keeps_its_label_and_the_changed_one_loses_it(indexed: Path) -> None:
    with Collection.open(indexed) as found:
        found.store_labels(found.label(["red", "green"]))
    os.rename(indexed / "red.png", indexed / "moved.png")
    paint(indexed / "green.png", "pink", size=(7, 7))
    index_folder(indexed, encoder=ColourEncoder())
    with Collection.open(indexed) as found:
        labels = {photo.path: photo.label for photo in found.photos()}
    assert (labels["moved.png"], labels["green.png"]) == ("red", None)
    assert len(content(indexed)) == 4


def test_a_picture_is_prepared_like_its_file(indexed: Path, tmp_path: Path) -> None:
    from helpers.odd_files import oriented, picture

    (tmp_path / "turned.png").write_bytes(oriented(picture(5), 6, "PNG"))
    Image.new("RGBA", (20, 20), (255, 0, 0, 60)).save(tmp_path / "glass.png")
    with Collection.open(indexed) as found:
        for name in ("turned.png", "glass.png"):
            assert found.search(Image.open(tmp_path / name)) == found.search(tmp_path / name)


@pytest.mark.parametrize(
    "query",
    [
        [Term(5)],
        [Term("")],
        [Term("red", 0)],
        [Term("red", float("nan"))],
        [Term("red", float("inf"))],
        Path("~nobody-here/a.jpg"),
        "~nobody-here/a.jpg",
    ],  # type: ignore[arg-type]
)
def test_terms_that_mean_nothing(indexed: Path, query: object) -> None:
    with Collection.open(indexed) as found, pytest.raises(QueryError):
        found.search(query)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_huge_weight_and_bytes_that_are_no_text(indexed: Path) -> None:
    with Collection.open(indexed) as found:
        assert found.search("9" * 60 + ":red", 1)[0].path == "red.png"
    index_folder(indexed, collection=indexed / "m", encoder="mini")
    with Collection.open(indexed, collection=indexed / "m") as found:
        assert len(found.search("caf\udce9", min_relevance=0)) == 4
        assert len(found.label(["caf\udce9", "red"])) == 4
