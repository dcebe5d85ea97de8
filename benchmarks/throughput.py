"""Photos a second from files on disk to stored vectors, beside rclip, clip-retrieval,
sentence-transformers, open_clip, transformers and a loop like immich's.

python benchmarks/throughput.py --work DIR [--against rclip,clip-retrieval,open_clip] [--count 200]
[--rounds 3] [--sets jpeg-12mp jpeg-2mp jpeg-640 png-640 heic-2mp] [--ours="--runtime onnx"]
[--ours="--dtype int8"] [--model mini]

All read the same photos and run the same ViT-B-32-256 with random weights (speed does not depend on
them) in float32 on the CPU, batches of 32, and as many decoding workers as cores where a program
has workers. The photos are cut from the large photographs of Debian's package `mate-backgrounds`,
fetched with apt-get, or of the folder given by --sources. With ``--model mini`` it is the model
that comes with vitsearch, beside a plain loop of PIL and that model. Each peer has a virtual
environment of its own. DIR keeps environments (about 2 GB; torch is linked from this Python's),
model (1.8 GB) and photos (1.5 MB each of 12 megapixels). rclip needs a ``python3.12`` on the PATH.

Counted are the seconds from the first look at the folder until the last vector is stored, without
starting Python and loading the model: `vitsearch index` reports them as ``seconds`` (finding,
hashing, SQLite and the index are in it), clip-retrieval in its own statistics (without listing
files and the last flush), rclip with a clock around its call that indexes, the loops of open_clip,
transformers, sentence-transformers and the one like immich's with a clock, up to ``numpy.save``.
The programs take turns, in another order each round; the table has medians. Photos lie in the page
cache. The bound is what two idle cores could do if only scaled decode, resize and the forward pass
cost time (benchmarks/peers/bound.py). A program that does not run is listed with its error.
"""

import argparse
import os
import shlex
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from machine import machine
from peers.environments import PINS, NotInstalled, environment
from peers.measured import Failed, Run, run

PEERS = Path(__file__).parent / "peers"
SETS = {
    "jpeg-12mp": "12 MP JPEG",
    "jpeg-2mp": "2 MP JPEG",
    "jpeg-640": "640x480 JPEG",
    "png-640": "640x480 PNG",
    "heic-2mp": "2 MP HEIC",
}
BATCH = 32
QUIET = {
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
    "WANDB_MODE": "disabled",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONWARNINGS": "ignore",
}


@dataclass
class Entry:
    """One program of the table: how to start it on a folder of photos, and its runs there or the
    error of the first that failed.
    """

    name: str
    command: Callable[[Path, Path], list[str | Path]]
    error: str = ""
    runs: list[Run] = field(default_factory=list)

    def rate(self) -> float:
        """Return the median photos a second."""
        return statistics.median(run.report["count"] / run.report["seconds"] for run in self.runs)


def ours(work: Path, options: str, model: str) -> Entry:
    """Return `vitsearch index` with these options."""
    start = [sys.executable, "-c", "from vitsearch.cli import main; main()", "index"]
    model = "mini" if model == "mini" else f"local-dir:{work / 'model' / 'open_clip'}"

    def command(photos: Path, out: Path) -> list[str | Path]:
        return [
            *start,
            photos,
            "--json",
            "--encoder",
            model,
            "--collection",
            out / "collection",
            "--device",
            "cpu",
            *shlex.split(options),
        ]

    return Entry(f"vitsearch {options}".strip(), command)


def peer(work: Path, name: str, workers: int) -> Entry:
    """Return a peer's program in its environment."""
    program = PEERS / f"run_{name.replace('-', '_')}.py"
    try:
        python = environment(work, name)
    except NotInstalled as problem:
        return Entry(name, lambda photos, out: [], error=f"pip: {problem}")
    sizes = [str(BATCH), str(workers)]
    return Entry(
        f"{name} {PINS[name][0].partition('==')[2]}",
        lambda photos, out: [python, program, work / "model", photos, out, *sizes],
    )


def plain_loop() -> Entry:
    """Return a loop of PIL and `mini`."""
    program = PEERS / "run_plain_loop.py"
    return Entry(
        "plain loop, PIL + mini",
        lambda photos, out: [sys.executable, program, photos, out, str(BATCH)],
    )


def prepare(chosen: argparse.Namespace) -> None:
    """Fetch the photographs, cut the photos and save the model, each once."""
    work, sources = chosen.work, chosen.sources
    if sources is None and not (sources := work / "photographs").exists():
        aside = work / "package"
        aside.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", "mate-backgrounds"], cwd=aside, check=True)
        subprocess.run(
            ["dpkg", "-x", *aside.glob("mate-backgrounds*.deb"), work / "photographs"], check=True
        )
    cutting = [
        PEERS / "photos.py",
        sources,
        work / "photos",
        "--count",
        str(chosen.count),
        "--sets",
        *chosen.sets,
    ]
    subprocess.run([sys.executable, *cutting], check=True)
    subprocess.run(
        [sys.executable, PEERS / "model.py", work / "model"], check=True, env=os.environ | QUIET
    )


def once(entry: Entry, photos: Path, chosen: argparse.Namespace) -> Run:
    """Run a program on a folder, with nothing left of earlier runs; raises Failed, also where it
    did not embed every photo.
    """
    out = chosen.work / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    cache_dir, extra = (
        {"VITSEARCH_HOME": str(chosen.work / "home")},
        here() if entry.command(photos, out)[0] == sys.executable else {},
    )
    done = run(
        entry.command(photos, out), env=os.environ | QUIET | cache_dir | extra, limit=chosen.limit
    )
    count = done.report.setdefault("count", done.report.get("indexed"))
    if count != len(list(photos.iterdir())):
        raise Failed(f"it embedded {count} photos of {len(list(photos.iterdir()))}")
    return done


def measure(entries: list[Entry], photos: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    """Let the programs take turns on a folder, and return what bound.py says of it."""
    for file in photos.iterdir():
        file.read_bytes()  # into the page cache
    for round_ in range(chosen.rounds):
        turn = round_ % len(entries)
        for entry in entries[turn:] + entries[:turn]:
            if entry.error:
                continue
            try:
                entry.runs.append(once(entry, photos, chosen))
                print(
                    f"  {photos.name} {round_ + 1}: {entry.name}: {entry.rate():.2f} photos/s",
                    file=sys.stderr,
                    flush=True,
                )
            except Failed as problem:
                entry.error = str(problem)
                print(
                    f"  {photos.name} {round_ + 1}: {entry.name}: {problem}",
                    file=sys.stderr,
                    flush=True,
                )
    source = "mini" if chosen.model == "mini" else chosen.work / "model"
    return run(
        [sys.executable, PEERS / "bound.py", source, photos],
        env=os.environ | QUIET | here(),
        limit=chosen.limit,
    ).report


def here() -> dict[str, str]:
    """Return the environment in which the vitsearch of this checkout is imported."""
    return {"PYTHONPATH": str(PEERS.parents[1])}


def line(entry: Entry, first: Entry, bound_rate: float, kind: str) -> str:
    """Return a program's line of the table."""
    if not entry.runs:
        return f"| {kind} | {entry.name} | does not run: {entry.error} | | | | | |"
    rate, middle = (
        entry.rate(),
        sorted(entry.runs, key=lambda run: run.report["seconds"])[len(entry.runs) // 2],
    )
    ratio = f"{rate / first.rate():.2f}" if first.runs else "-"
    memory = [
        statistics.median(getattr(run, name) for run in entry.runs) / 1e9
        for name in ("largest", "together")
    ]
    total = statistics.median(run.total for run in entry.runs)
    share = f"{100 * rate / bound_rate:.0f} %" if bound_rate else "-"
    note = f"; later: {entry.error}" if entry.error else ""
    costs = f"{total:.0f} s | {memory[0]:.2f} / {memory[1]:.2f} GB | {stages(middle.report)}{note}"
    return f"| {kind} | {entry.name} | {rate:.1f} | {ratio} | {share} | {costs} |"


def bound_line(limits: dict[str, Any], kind: str) -> str:
    """Return the bound's line of the table."""
    if "error" in limits:
        return f"| {kind} | bound | not measured: {limits['error']} | | | | | |"
    cost = ", ".join(
        f"{stage.replace('_', ' ')} {1000 * seconds:.1f} ms"
        for stage, seconds in limits["stages"].items()
    )
    return f"| {kind} | bound | {limits['rate']:.1f} | | 100 % | | | a photo: {cost} |"


def stages(report: dict[str, Any]) -> str:
    """Return the seconds of work in each stage, as a program reports them."""
    seconds_of = {
        name: value
        for name, value in (report.get("stages") or {}).items()
        if isinstance(value, int | float) and name != "wall"
    }
    words = [f"{name} {value:.1f}" for name, value in seconds_of.items()]
    limit = (report.get("stages") or {}).get("bound")
    return ", ".join(words) + (f"; bound by {limit}" if limit else "") or "-"


def table(chosen: argparse.Namespace) -> None:
    """Measure every set and print its lines as they come."""
    workers = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    print(
        f"{machine()}; {chosen.count} photos a set, {chosen.rounds} rounds, batches of {BATCH}, "
        f"{chosen.model} in float32 unless stated\n"
    )
    print(
        "| photos | program | photos/s | times the first | of the bound | whole process | memory: "
        "largest / all processes | s in stages |"
    )
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for name in chosen.sets:
        entries = [ours(chosen.work, options, chosen.model) for options in chosen.ours or [""]]
        entries += (
            [plain_loop()]
            if chosen.model == "mini"
            else [peer(chosen.work, program, workers) for program in chosen.against]
        )
        limits = measure(entries, chosen.work / "photos" / name, chosen)
        print(bound_line(limits, SETS[name]))
        for entry in entries:
            print(line(entry, entries[0], limits["rate"], SETS[name]), flush=True)


def warm_up(chosen: argparse.Namespace) -> None:
    """Let vitsearch make what it makes once for a model, such as an export, on one photo that is
    not counted.
    """
    single = chosen.work / "one"
    shutil.rmtree(single, ignore_errors=True)
    single.mkdir()
    first = min((chosen.work / "photos" / chosen.sets[-1]).iterdir())
    shutil.copy(first, single)
    for options in chosen.ours or [""]:
        try:
            once(ours(chosen.work, options, chosen.model), single, chosen)
        except Failed as problem:
            print(f"  vitsearch {options}: {problem}", file=sys.stderr, flush=True)


def main() -> None:
    """Prepare all and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=["ViT-B-32-256", "mini"], default="ViT-B-32-256")
    parser.add_argument(
        "--against",
        type=lambda text: [name for name in text.split(",") if name],
        default=list(PINS),
        metavar="NAMES",
    )
    parser.add_argument("--count", type=int, default=200, help="photos in each set")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sets", nargs="*", choices=list(SETS), default=list(SETS))
    parser.add_argument(
        "--ours",
        action="append",
        metavar="OPTIONS",
        help="options of `vitsearch index`, a line of the table each",
    )
    parser.add_argument(
        "--work",
        type=lambda text: Path(text).resolve(),
        required=True,
        help="folder that keeps what is made once",
    )
    parser.add_argument(
        "--sources", type=Path, help="folder of large photographs instead of mate-backgrounds"
    )
    parser.add_argument(
        "--limit", type=float, default=1800, help="seconds after which a run is given up"
    )
    chosen = parser.parse_args()
    if unknown := set(chosen.against) - set(PINS):
        parser.error(
            f"no peer is called {', '.join(sorted(unknown))}: the peers are {', '.join(PINS)}"
        )
    prepare(chosen)
    warm_up(chosen)
    table(chosen)


if __name__ == "__main__":
    main()
