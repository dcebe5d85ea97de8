"""A few cases of every target of `make fuzz`: no crash, no traceback, none that does not end."""

import os
import signal
from pathlib import Path

import pytest

from vitsearch.errors import VitsearchError

if not hasattr(os, "fork"):
    pytest.skip("cases run in forked processes", allow_module_level=True)

from fuzzing.running import Target, fuzz
from fuzzing.targets import TARGETS

SLOW = {"encoders", "classifiers of photos", "FAISS folders"}  # seconds for each case
CASES = 40


def run_cases(target: Target, cases: int, folder: Path) -> None:
    outcome = fuzz(target, cases, 11, folder)
    assert outcome.problems == []
    assert outcome.cases == cases
    assert set(outcome.counts) <= {"taken", "refused"}


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_hostile_input_is_taken_or_refused_in_one_line(target: Target, tmp_path: Path) -> None:
    for module in target.modules:
        pytest.importorskip(module)
    run_cases(target, 8 if target.name in SLOW else CASES, tmp_path)


def test_what_goes_wrong_is_seen(tmp_path: Path) -> None:
    """The harness itself: a crash, a traceback and an error of two lines are told apart."""
    ends = [lambda: None, lambda: 1 / 0, lambda: os.kill(os.getpid(), signal.SIGSEGV)]

    def refuse() -> None:
        raise VitsearchError("one\ntwo")

    ends += [refuse, lambda: None]

    def prepare(folder: Path) -> object:
        numbers = iter(range(100))
        started = int(folder.name.rpartition("-")[2])
        return lambda random: ends[started + next(numbers)]()

    outcome = fuzz(Target("harness", 1, prepare), len(ends), 0, tmp_path)  # type: ignore[arg-type]
    assert outcome.counts == {"taken": 2, "traceback": 2, "crash": 1}
    assert [problem.partition(":")[0] for problem in outcome.problems] == [
        "harness 1",
        "harness 2",
        "harness 3",
    ]
