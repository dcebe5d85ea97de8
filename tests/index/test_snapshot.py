"""What a killed build leaves beside an index folder, and where its rows are."""

import os
from pathlib import Path

import numpy as np
import pytest

from vitsearch.errors import IndexDamaged
from vitsearch.index.recipe import Recipe
from vitsearch.index.snapshot import (
    build_snapshot,
    finish_replacing,
    open_snapshot,
    remove_snapshot,
)


def built(folder: Path, generation: int, ids: tuple[int, ...] = (1, 2)) -> Path:
    rows = np.eye(4, dtype=np.float16)[: len(ids)]
    build_snapshot(
        folder,
        [(np.array(ids, dtype=np.int64), rows)],
        recipe=Recipe("exact", "exact"),
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
