"""Plans: files beside what a collection knows, against the obvious way with dictionaries."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitsearch import CollectionError, VitsearchError
from vitsearch.collection.diff import DiskQueue, FolderDiff, StoredRows, diff_folder
from vitsearch.types import Found, State

PATHS = ["a", "a!.jpg", "a.jpg", "a/b.jpg", "a/c/d.jpg", "a0", "é", "\ue000", "\udcff", "😀/x", "z"]
STATS = st.tuples(st.integers(0, 2), st.integers(0, 2))
STAMPS = st.tuples(STATS, st.sampled_from(["", "", "a.xmp/1/1"])).map(
    lambda both: (*both[0], both[1])
)
FILES = st.dictionaries(
    st.sampled_from(PATHS), st.tuples(STAMPS, st.sampled_from([None, None, "a pipe"]))
)
PHOTOS = st.dictionaries(st.sampled_from(PATHS), STAMPS)
FAILURES = st.dictionaries(
    st.sampled_from(PATHS), st.tuples(st.sampled_from(["failed", "skipped"]), STATS, st.booleans())
)
REREAD = st.sampled_from([(), ("a.jpg", "z"), tuple(PATHS)])


def in_order(mapping: dict) -> list:  # type: ignore[type-arg]
    return sorted(mapping.items(), key=lambda item: os.fsencode(item[0]))


def facts(plan: FolderDiff) -> dict[str, object]:
    queues = {name: list(getattr(plan, name)) for name in ("todo", "videos", "refused")}
    return {**vars(plan), **queues}


def naive(
    files: list[Found],
    photos: dict,
    failures: dict,
    aside: dict,
    retry: bool,
    reread: tuple[str, ...],
) -> dict[str, object]:  # type: ignore[type-arg]
    plan = {
        "seen": len(files),
        "known": len(photos),
        "unchanged": 0,
        "skipped": 0,
        "still_failed": 0,
        "todo": [],
        "videos": [],
        "refused": [],
        "returning": [],
        "out_of_reach": {},
        "left_out": [],
    }
    for found in files:
        stat, failure = (found.size, found.mtime_ns), failures.get(found.path)
        stamp = (*stat, found.sidecars)
        is_new = found.path not in photos and failure is None
        if found.problem:
            plan["skipped"] += 1
            recorded = failure is not None and failure[:2] == ("skipped", stat)
            plan["refused"] += [] if recorded else [found]
        elif found.path in reread:
            plan["todo"].append(found)
        elif photos.get(found.path) == stamp:
            plan["unchanged"] += 1
        elif is_new and aside.get(found.path) == stamp:
            plan["returning"].append(found.path)
        elif failure == ("failed", stat, False) and not retry:
            plan["still_failed"] += 1
        else:
            plan["todo"].append(found)
    there = {found.path for found in files}
    return {
        **plan,
        "missing": set(photos) - there,
        "stale_failures": [path for path, _ in in_order(failures) if path not in there],
    }


@settings(max_examples=300, deadline=None)
@given(
    files=FILES, photos=PHOTOS, failures=FAILURES, aside=PHOTOS, retry=st.booleans(), reread=REREAD
)
@pytest.mark.slow
def test_a_plan_is_that_of_the_obvious_way(
    files: dict,
    photos: dict,
    failures: dict,
    aside: dict,
    retry: bool,
    reread: tuple[str, ...],
) -> None:  # type: ignore[type-arg]
    found = [
        Found(path, *stamp[:2], problem, stamp[2]) for path, (stamp, problem) in in_order(files)
    ]
    known = [(path, *stat) for path, stat in in_order(photos)]
    failed: list[tuple[str, State, int, int, bool]] = [
        (path, state, *stat, transient) for path, (state, stat, transient) in in_order(failures)
    ]
    before = [(path, *stat) for path, stat in in_order(aside)]
    stored = StoredRows(iter(known), iter(failed), iter(before))
    plan = diff_folder(iter(found), stored, retry=retry, reread=reread.__contains__)
    assert facts(plan) == naive(found, photos, failures, aside, retry, reread)


def test_files_out_of_order_are_refused() -> None:
    with pytest.raises(
        VitsearchError, match=r"out of order \('b' before 'a'\): run again; nothing was changed"
    ):
        diff_folder([Found("b", 1, 1), Found("a", 1, 1)], StoredRows())


@pytest.mark.parametrize("rows", [[("b", 1, 1, ""), ("a", 1, 1, "")], [("a", 1, 1, "")] * 2])
def test_rows_out_of_order_are_a_damaged_file(rows: list[tuple[str, int, int, str]]) -> None:
    with pytest.raises(CollectionError, match=r"photos.db is damaged \('a' is out of order\)"):
        diff_folder([Found("a", 1, 1)], StoredRows(rows))


def test_a_spool_gives_back_what_was_put_in_it_and_leaves_no_file(tmp_path: Path) -> None:
    spool = DiskQueue(tmp_path)
    assert (len(spool), list(spool), list(tmp_path.iterdir())) == (0, [], [])
    entries = [Found("a\n\udcff.jpg", 1, -(2**63)), Found('"é\\', 2**63 - 1, 0, "a pipe")]
    for entry in entries:
        spool.append(entry)
    assert (len(spool), list(spool), list(spool)) == (2, entries, entries)
    spool.close()
    assert (len(spool), list(spool), list(tmp_path.iterdir())) == (0, [], [])
