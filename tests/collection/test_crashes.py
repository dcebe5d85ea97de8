"""Runs that are killed, or whose disk fails, in the middle of a change of a file."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.crash_sweep import ERRORS, SCENARIOS, Sweep
from helpers.faults import FaultyDisk, faulty_disk


@pytest.fixture(scope="module")
def faulty() -> Iterator[FaultyDisk]:
    with faulty_disk() as disk:
        yield disk


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
def test_the_run_after_a_stopped_one_equals_one_that_nothing_disturbed(
    faulty: FaultyDisk, tmp_path: Path, name: str
) -> None:
    """A sample; benchmarks/crashes.py stops at every change."""
    sweep = Sweep(SCENARIOS[name], faulty, tmp_path)
    killed = range(2, sweep.changes + 1, -(-sweep.changes // 4))
    points = [(at, 0) for at in killed]
    points += [
        (sweep.changes * part // 5, error) for part, error in enumerate(ERRORS, start=1) if error
    ]
    problems = {
        f"change {at}, {ERRORS[error]}": wrong
        for at, error in points
        if (wrong := sweep.problems_at(at, error))
    }
    assert problems == {}
