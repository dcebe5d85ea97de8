"""What attention costs as photos grow.

python examples/attention_cost.py [-o FILE.png] [--tokens 196,576,1024,4096] [--repeat 5]

Every token attends to every other, so t tokens make t x t weights per head: twice the tokens, four
times the weights. Plain attention stores them all; fused attention (Dao et al. 2022,
arXiv:2205.14135) computes the same sums tile by tile and stores none.

Time is the median processor time of one thread, so that other programs do not affect it. Memory is
the peak of what torch's allocator hands out during the call, on top of queries, keys and values.
Needs vitsearch[clip,examples].
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from math import isqrt
from pathlib import Path

try:
    import matplotlib
    import torch
except ModuleNotFoundError as error:
    raise SystemExit(f"this needs {error.name}: pip install '.[clip,examples]'") from None

matplotlib.use("Agg")
os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's own notes

import matplotlib.pyplot as plt
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from vitsearch.vit.model import attend

HEADS, HEAD_WIDTH, PATCH = 12, 64, 16  # of ViT-B/16
COLOURS = {"plain": "#d1495b", "fused": "#00798c"}


@dataclass(frozen=True, slots=True)
class Cost:
    """What attention over so many tokens costs in one layer, for one photo."""

    tokens: int
    milliseconds: float
    megabytes: float


def measure(tokens: int, kind: str, repeat: int) -> Cost:
    """Return the cost of ``plain`` or ``fused`` attention in one layer of ViT-B."""
    q, k, v = torch.randn(
        3, 1, HEADS, tokens, HEAD_WIDTH, generator=torch.Generator().manual_seed(0)
    ).unbind(0)
    with torch.inference_mode():
        megabytes = peak_bytes(q, k, v, kind == "plain") / 1e6  # also warms up
        times = [seconds(q, k, v, kind == "plain") for _ in range(repeat)]
    return Cost(tokens, statistics.median(times) * 1e3, megabytes)


def seconds(q: Tensor, k: Tensor, v: Tensor, with_weights: bool) -> float:
    """Return the processor time of one call, averaged over as many calls as fill a few
    milliseconds.
    """
    calls = max(1, 1_000_000 // q.shape[2] ** 2)
    start = time.process_time()
    for _ in range(calls):
        attend(q, k, v, with_weights)
    return (time.process_time() - start) / calls


def peak_bytes(q: Tensor, k: Tensor, v: Tensor, with_weights: bool) -> int:
    """Return the most memory that one call holds at once, from torch's record of each allocation
    and release.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as record:
        attend(q, k, v, with_weights)
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        record.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    held = peak = 0
    for event in sorted(
        (event for event in events if event["name"] == "[memory]"), key=lambda event: event["ts"]
    ):
        held += event["args"]["Bytes"]
        peak = max(peak, held)
    return peak


def table(costs: dict[str, list[Cost]]) -> list[str]:
    """Return the costs as lines of text."""
    lines = ["tokens  photo        plain: time   memory    fused: time   memory"]
    for plain, fused in zip(costs["plain"], costs["fused"], strict=True):
        side = isqrt(plain.tokens) * PATCH
        lines.append(
            f"{plain.tokens:6}  {f'{side}x{side}':9}  {plain.milliseconds:9.1f} ms "
            f"{plain.megabytes:6.1f} MB   {fused.milliseconds:9.1f} ms {fused.megabytes:6.1f} MB"
        )
    return lines


def growth(costs: dict[str, list[Cost]]) -> list[str]:
    """Return what the table teaches."""
    lines = []
    for kind, (first, *_, last) in costs.items():
        lines.append(
            f"{kind}: {last.tokens / first.tokens:.1f} times the tokens take "
            f"{last.milliseconds / first.milliseconds:.0f} times the time and "
            f"{last.megabytes / first.megabytes:.0f} times the memory"
        )
    return [
        *lines,
        f"({last.tokens / first.tokens:.1f} squared is {(last.tokens / first.tokens) ** 2:.0f})",
    ]


def draw(costs: dict[str, list[Cost]], file: Path) -> None:
    """Draw time and memory against tokens, both axes logarithmic, with the slopes of t and t
    squared for comparison.
    """
    plt.rcParams.update(
        {
            "font.size": 11,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titleweight": "bold",
        }
    )
    figure, panels = plt.subplots(1, 2, figsize=(12, 5.2), dpi=110, layout="constrained")
    for panel, measure_name, title in zip(
        panels,
        ("milliseconds", "megabytes"),
        ("Time of one layer, ms", "Peak memory of one layer, MB"),
        strict=True,
    ):
        for kind, series in costs.items():
            tokens = [cost.tokens for cost in series]
            values = [getattr(cost, measure_name) for cost in series]
            panel.plot(tokens, values, "o-", color=COLOURS[kind], linewidth=2.2, markersize=7)
            panel.annotate(
                f"{kind}\n{values[-1]:,.0f}",
                (tokens[-1], values[-1]),
                (8, -9),
                textcoords="offset points",
                color=COLOURS[kind],
                weight="bold",
            )
            for power, label in ((1, "t"), (2, "t²")) if kind == "fused" else ():
                reference = [values[0] * 0.45 * (count / tokens[0]) ** power for count in tokens]
                panel.plot(tokens, reference, ":", color="#888888", linewidth=1.2, zorder=0)
                panel.annotate(
                    label,
                    (tokens[-1], reference[-1]),
                    (8, -4),
                    textcoords="offset points",
                    color="#888888",
                )
        panel.set(
            title=title, xlabel="tokens t (photo at 16 pixels a patch)", xscale="log", yscale="log"
        )
        panel.set_xticks(tokens, [f"{count}\n{isqrt(count) * PATCH}²" for count in tokens])
        panel.minorticks_off()
        panel.grid(True, color="#dddddd", linewidth=0.8)
        panel.margins(x=0.12)
    figure.suptitle(
        "Attention of ViT-B (12 heads of 64), one photo: every token looks at every other",
        fontsize=13,
    )
    figure.savefig(file)


def main() -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(
        description="Time and memory of plain and fused attention against the number of tokens."
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("attention_cost.png"),
        help="the picture (default: attention_cost.png)",
    )
    parser.add_argument(
        "--tokens",
        default="196,576,1024,4096",
        help="numbers of tokens, rising (default: 196,576,1024,4096)",
    )
    parser.add_argument(
        "--repeat", type=int, default=5, help="measurements whose median is taken (default: 5)"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    counts = [int(count) for count in options.tokens.split(",")]
    costs = {kind: [measure(count, kind, options.repeat) for count in counts] for kind in COLOURS}
    print(*table(costs), "", *growth(costs), sep="\n")
    draw(costs, options.output)
    print(f"drawn: {options.output}")


if __name__ == "__main__":
    main()
