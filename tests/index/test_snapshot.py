"""What a killed build leaves beside an index folder, and where its rows are."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from vitsearch.errors import IndexDamaged
from vitsearch.index import SelectiveIndex
from vitsearch.index.backends import FaissBackend
from vitsearch.index.recipe import Recipe, load_recipe
from vitsearch.index.snapshot import (
    IndexSnapshot,
    build_snapshot,
    finish_replacing,
    open_snapshot,
    remove_snapshot,
)


def built(
    folder: Path, generation: int, ids: tuple[int, ...] = (1, 2), *, recipe: str = ""
) -> Path:
    rows = np.eye(4, dtype=np.float16)[: len(ids)]
    build_snapshot(
        folder,
        [(np.array(ids, dtype=np.int64), rows)],
        recipe=load_recipe(recipe) if recipe else Recipe("exact", "exact"),
        dim=4,
        generation=generation,
        fingerprint="f",
    )
    return folder


def test_between_the_two_renames_the_new_index_is_complete_and_takes_its_place(
    tmp_path: Path,
) -> None:
    os.rename(built(tmp_path / "index", 1), tmp_path / "index.old")
    os.rename(built(tmp_path / "other", 2), tmp_path / "index.new")
    finish_replacing(tmp_path / "index")
    assert [file.name for file in tmp_path.iterdir()] == ["index"]
    assert open_snapshot(tmp_path / "index").generation == 2


@pytest.mark.parametrize("unfinished", [True, False])
def test_an_index_that_was_only_put_aside_comes_back(tmp_path: Path, unfinished: bool) -> None:
    os.rename(built(tmp_path / "index", 1), tmp_path / "index.old")
    if unfinished:
        (built(tmp_path / "other", 2) / "manifest.json").unlink()
        os.rename(tmp_path / "other", tmp_path / "index.new")
    finish_replacing(tmp_path / "index")
    assert [file.name for file in tmp_path.iterdir()] == ["index"]
    assert open_snapshot(tmp_path / "index").generation == 1


def test_leftovers_beside_a_sound_index_are_removed(tmp_path: Path) -> None:
    index = built(tmp_path / "index", 3)
    os.rename(built(tmp_path / "a", 1), tmp_path / "index.old")
    os.rename(built(tmp_path / "b", 2), tmp_path / "index.new")
    (index / ".manifest.json.0011aabb.new").write_text("{")
    finish_replacing(index)
    assert [file.name for file in tmp_path.iterdir()] == ["index"]
    assert open_snapshot(index).generation == 3
    assert not list(index.glob(".*"))


def test_removing_an_index_that_is_not_there_or_was_half_removed(tmp_path: Path) -> None:
    remove_snapshot(tmp_path / "index")
    built(tmp_path / "index", 1)
    (tmp_path / "index.old").mkdir()
    remove_snapshot(tmp_path / "index")
    finish_replacing(tmp_path / "index")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ids", [(3, 4, 5), (3, 7, 9), (3, 7, 10**12)])
def test_rows_are_found_by_their_ids_however_far_these_lie_apart(
    tmp_path: Path, ids: tuple[int, ...]
) -> None:
    snapshot = open_snapshot(built(tmp_path / "index", 1, ids))
    assert snapshot.positions(np.array([ids[2], ids[0]])).tolist() == [2, 0]
    assert snapshot.positions(np.array([], dtype=np.int64)).tolist() == []
    for other in (0, 6, 10**13):
        with pytest.raises(IndexDamaged, match="ids that are not of its rows"):
            snapshot.positions(np.array([ids[0], other]))


# -- An index that is loaded after some searches ---------------------------------------------------


@pytest.fixture
def flat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a small index of FAISS, in a process that has not imported that."""
    pytest.importorskip("faiss")
    folder = built(tmp_path / "index", 1, (3, 5, 9), recipe="flat")
    monkeypatch.delitem(sys.modules, "faiss")
    return folder


def nearest(snapshot: IndexSnapshot) -> list[tuple[list[int], list[float]]]:
    query = np.array([0.6, 0.8, 0, 0], dtype=np.float32)
    found = [snapshot.search(query, 3) for _ in range(6)]
    return [(each.ids.tolist(), [round(float(x), 6) for x in each.scores]) for each in found]


def test_few_rows_are_compared_until_an_index_is_worth_loading(
    flat: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[Path] = []
    load = FaissBackend.open

    def counted(self: FaissBackend, folder: Path, recipe: Recipe) -> SelectiveIndex:
        loaded.append(folder)
        return load(self, folder, recipe)

    monkeypatch.setattr(FaissBackend, "open", counted)
    snapshot = open_snapshot(flat)
    assert nearest(snapshot) == [([5, 3, 9], [0.8, 0.6, 0.0])] * 6
    assert loaded == [flat]
    many = open_snapshot(flat)  # a batch is worth it
    queries = np.tile(np.eye(4)[:3], (2, 1))
    assert [each.ids.tolist() for each in many.search_batch(queries, 1)] == [[3], [5], [9]] * 2
    assert loaded == [flat, flat]


def test_an_index_that_is_loaded_late_is_checked_then(flat: Path) -> None:
    snapshot = open_snapshot(flat)
    file = flat / "index.faiss"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(IndexDamaged, match="index.faiss cannot be read or was altered; index"):
        nearest(snapshot)


def test_rows_go_on_to_be_compared_where_the_index_was_replaced(flat: Path) -> None:
    snapshot = open_snapshot(flat)
    built(flat, 2, (1, 2, 4), recipe="flat")
    assert nearest(snapshot) == [([5, 3, 9], [0.8, 0.6, 0.0])] * 6


def test_what_a_gpu_is_to_search_is_loaded_at_once(tmp_path: Path, flat: Path) -> None:
    folder = built(tmp_path / "gpu", 1, (3, 5, 9), recipe="gpu-flat")
    kinds = [type(open_snapshot(flat, device=name).index).__name__ for name in ("cpu", "auto")]
    assert kinds == ["LateIndex", "LateIndex"]
    assert type(open_snapshot(folder, device="auto").index).__name__ == "FaissIndex"
