"""Plans: files beside what a collection knows, against the obvious way with dictionaries."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitsearch import CollectionError, VitsearchError
from vitsearch.collection.diff import DiskQueue, FolderDiff, diff_folder
from vitsearch.types import Found, State

PATHS = ["a", "a!.jpg", "a.jpg", "a/b.jpg", "a/c/d.jpg", "a0", "é", "\ue000", "\udcff", "😀/x", "z"]
STATS = st.tuples(st.integers(0, 2), st.integers(0, 2))
FILES = st.dictionaries(
    st.sampled_from(PATHS), st.tuples(STATS, st.sampled_from([None, None, "a pipe"]))
)
PHOTOS = st.dictionaries(st.sampled_from(PATHS), STATS)
FAILURES = st.dictionaries(
    st.sampled_from(PATHS), st.tuples(st.sampled_from(["failed", "skipped"]), STATS)
)


UNREADABLE = st.lists(st.sampled_from(["a", "é", "a/c"]), max_size=2)


def in_order(mapping: dict) -> list:  # type: ignore[type-arg]
    return sorted(mapping.items(), key=lambda item: os.fsencode(item[0]))


def facts(plan: FolderDiff) -> dict[str, object]:
    return {**vars(plan), "todo": list(plan.todo), "refused": list(plan.refused)}


def naive(
    files: list[Found], photos: dict, failures: dict, unreadable: list[str], retry: bool
) -> dict[str, object]:  # type: ignore[type-arg]
    plan = {
        "seen": len(files),
        "known": len(photos),
        "unchanged": 0,
        "skipped": 0,
        "still_failed": 0,
        "todo": [],
        "refused": [],
    }
    for found in files:
        stat, failure = (found.size, found.mtime_ns), failures.get(found.path)
        if found.problem:
            plan["skipped"] += 1
            plan["refused"] += [found] if failure != ("skipped", stat) else []
        elif photos.get(found.path) == stat:
            plan["unchanged"] += 1
        elif failure == ("failed", stat) and not retry:
            plan["still_failed"] += 1
        else:
            plan["todo"].append(found)
    there = {found.path for found in files}

    def gone(path: str) -> bool:
        return path not in there and not any(
            path == folder or path.startswith(folder + "/") for folder in unreadable
        )

    return {
        **plan,
        "missing": set(filter(gone, photos)),
        "stale_failures": [path for path, _ in in_order(failures) if gone(path)],
    }


@settings(max_examples=300, deadline=None)
@given(files=FILES, photos=PHOTOS, failures=FAILURES, unreadable=UNREADABLE, retry=st.booleans())
def test_a_plan_is_that_of_the_obvious_way(
    files: dict, photos: dict, failures: dict, unreadable: list[str], retry: bool
) -> None:  # type: ignore[type-arg]
    found = [Found(path, *stat, problem) for path, (stat, problem) in in_order(files)]
    known = [(path, *stat) for path, stat in in_order(photos)]
    failed: list[tuple[str, State, int, int]] = [
        (path, state, *stat) for path, (state, stat) in in_order(failures)
    ]
    plan = diff_folder(iter(found), iter(known), iter(failed), unreadable=unreadable, retry=retry)
    assert facts(plan) == naive(found, photos, failures, unreadable, retry)


def test_files_out_of_order_are_refused() -> None:
    with pytest.raises(
        VitsearchError, match=r"out of order \('b' before 'a'\): run again; nothing was changed"
    ):
        diff_folder([Found("b", 1, 1), Found("a", 1, 1)], [], [])


@pytest.mark.parametrize("rows", [[("b", 1, 1), ("a", 1, 1)], [("a", 1, 1), ("a", 1, 1)]])
def test_rows_out_of_order_are_a_damaged_file(rows: list[tuple[str, int, int]]) -> None:
    with pytest.raises(CollectionError, match=r"photos.db is damaged \('a' is out of order\)"):
        diff_folder([Found("a", 1, 1)], rows, [])


def test_a_spool_gives_back_what_was_put_in_it_and_leaves_no_file(tmp_path: Path) -> None:
    spool = DiskQueue(tmp_path)
    assert (len(spool), list(spool), list(tmp_path.iterdir())) == (0, [], [])
    entries = [Found("a\n\udcff.jpg", 1, -(2**63)), Found('"é\\', 2**63 - 1, 0, "a pipe")]
    for entry in entries:
        spool.append(entry)
    assert (len(spool), list(spool), list(spool)) == (2, entries, entries)
    spool.close()
    assert (len(spool), list(spool), list(tmp_path.iterdir())) == (0, [], [])
