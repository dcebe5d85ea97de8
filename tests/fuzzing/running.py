"""Runs cases in forked children: what one does to its process is seen, and costs a batch."""

import faulthandler
import os
import resource
import select
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from random import Random

from vitsearch.errors import VitsearchError

SECONDS = 30.0  # of a case, after which it counts as endless
BATCH = 100
MEMORY = 12_000_000_000  # bytes of addresses; PyTorch alone maps several

Run = Callable[[Random], None]


@dataclass(frozen=True)
class Target:
    """A reader to attack.

    ``prepare`` is called once in each child with an empty folder, and returns what runs one case;
    a case ends well, or with a VitsearchError of one line. ``weight`` is its share of the cases,
    ``modules`` what is imported once, before the children are forked.
    """

    name: str
    weight: int
    prepare: Callable[[Path], Run]
    batch: int = BATCH
    modules: tuple[str, ...] = ()


@dataclass
class Outcome:
    """How many cases ended how; ``problems`` tells the others by target and case, with the end of
    the traceback.
    """

    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    @property
    def cases(self) -> int:
        return sum(self.counts.values())


def fuzz(target: Target, cases: int, seed: int, folder: Path) -> Outcome:
    """Run ``cases`` cases of a target; the same seed gives the same cases."""
    for module in target.modules:
        import_module(module)
    outcome, case = Outcome(), 0
    while case < cases:
        end = min(cases, case - case % target.batch + target.batch)
        case = _batch(target, range(case, end), seed, folder, outcome)
    return outcome


def _batch(target: Target, cases: range, seed: int, folder: Path, outcome: Outcome) -> int:
    """Run cases in one child, and return the first that was not run."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        _work(target, cases, seed, folder / f"{target.name}-{cases.start}", writing)
    os.close(writing)
    case, last, late = cases.start, "", False
    with os.fdopen(reading, "rb", buffering=0) as answers:
        limit = 10 * SECONDS  # for the preparation
        buffer = b""
        while case < cases.stop:
            if not select.select([answers], [], [], limit)[0]:
                late = True
                os.kill(child, signal.SIGKILL)
                break
            data = answers.read(65_536)
            if not data:
                break
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                kind, _, last = line.decode().partition(" ")
                if kind == "ready":
                    limit = SECONDS
                    continue
                outcome.counts[kind] += 1
                if kind == "traceback":
                    outcome.problems.append(f"{target.name} {case}: {last}")
                case += 1
    _, status = os.waitpid(child, 0)
    if case < cases.stop:
        kind = "endless" if late else "crash"
        outcome.counts[kind] += 1
        outcome.problems.append(f"{target.name} {case}: {kind}, status {status}")
        case += 1
    return case


def _work(target: Target, cases: range, seed: int, folder: Path, writing: int) -> None:
    """Prepare and run the cases: all that a child does."""
    code = 1
    faulthandler.disable()  # a crash is counted, not printed
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(null, number)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        folder.mkdir(parents=True)
        os.chdir(folder)
        run = target.prepare(folder)
        os.write(writing, b"ready\n")
        for case in cases:
            os.write(writing, f"{_one(run, Random(f'{seed} {target.name} {case}'))}\n".encode())
        code = 0
    except BaseException:
        text = traceback.format_exc().strip().replace("\n", " | ")
        os.write(writing, f"traceback preparing: {text[-600:]}\n".encode("utf-8", "replace"))
    finally:
        os._exit(code)


def _one(run: Run, random: Random) -> str:
    try:
        run(random)
        return "taken"
    except VitsearchError as error:
        if "\n" in str(error) or not str(error):
            return f"traceback not one line: {ascii(str(error))[:300]}"
        return "refused"
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in frames if "/vitsearch/" in frame.filename][-3:]
        where = " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(ours))
        return f"traceback {type(error).__name__}: {ascii(str(error))[:160]} at {where}"


def fuzz_all(targets: list[Target], cases: int, seed: int, folder: Path) -> dict[str, Outcome]:
    """Share the cases among targets by their weights, and say on stderr how it goes."""
    total = sum(target.weight for target in targets)
    found = {}
    for target in targets:
        share, started = max(1, round(cases * target.weight / total)), time.monotonic()
        found[target.name] = outcome = fuzz(target, share, seed, folder)
        seconds = time.monotonic() - started
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(outcome.counts.items()))
        sys.stderr.write(f"{target.name}: {outcome.cases} cases in {seconds:.0f} s: {counts}\n")
        for problem in outcome.problems[:10]:
            sys.stderr.write(f"    {problem}\n")
        with suppress(OSError):
            sys.stderr.flush()
    return found
