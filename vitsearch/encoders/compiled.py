"""The image tower in batches of one size, compiled by torch.compile where that is measured to be faster than running it as it is."""

import os
import time
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from vitsearch.encoders.model_files import one_line
from vitsearch.encoders.weights_hash import home

Way = Literal["eager", "default", "reduce-overhead"]  # the last two are modes of torch.compile; reduce-overhead replays CUDA graphs
Run = Callable[[Tensor], Tensor]

WAYS: tuple[Way, ...] = ("eager", "default", "reduce-overhead")
ROUNDS = 5
ALIKE = 0.999  # the least cosine to the vectors of the tower as it is; another order of sums in float16 stays above


def compiled(run: Run, way: Way) -> Run:
    """Return a tower's function for pictures ``(n, 3, h, w)`` of one n, compiled at its first call; "eager" is the function itself.

    What the compiler makes is kept under ``$VITSEARCH_HOME/compiled``, or where ``TORCHINDUCTOR_CACHE_DIR`` says.
    """
    if way == "eager":
        return run
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(home() / "compiled"))
    return torch.compile(run, mode=way, dynamic=False)


def in_fixed_batches(run: Run, pixels: Tensor, size: int) -> Tensor:
    """Return ``run``'s rows for pictures ``(n, 3, h, w)``, given to it in batches of exactly ``size``; the last is filled up with zeros."""
    rows = []
    for start in range(0, len(pixels), size):
        part = pixels[start : start + size]
        whole = torch.cat([part, part.new_zeros(size - len(part), *part.shape[1:])]) if len(part) < size else part.contiguous()
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        rows.append(run(whole)[: len(part)].clone())  # a CUDA graph writes its next answer over this one
    return torch.cat(rows)


class TunedTower:
    """A tower that measures, at the first batch of ``size`` pictures, which of ``ways`` is the fastest here, and stays with it.

    Until then, and after a compiled way has failed (``tell`` is given one line), the tower runs as it is. CUDA graphs belong to the thread
    that made them: call it from one thread, as a pipeline does. A way whose vectors differ is not taken.
    """

    def __init__(self, run: Run, size: int, *, ways: Sequence[Way] = WAYS, tell: Callable[[str], None]) -> None:
        self.size = size
        self.way: Way | None = None
        self._eager, self._run = run, run
        self._ways, self._tell = ways, tell

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return the rows ``(n, dim)`` of pictures ``(n, 3, h, w)``, n at least 1."""
        if self.way is None and len(pixels) >= self.size:
            self._choose(pixels[: self.size])
        if self.way in (None, "eager"):
            return self._eager(pixels)
        rows = self._tried(lambda: in_fixed_batches(self._run, pixels, self.size))
        if rows is None:
            self.way, self._run = "eager", self._eager
            return self._eager(pixels)
        return rows

    def _choose(self, pixels: Tensor) -> None:
        runs = {way: compiled(self._eager, way) for way in self._ways}
        expected = self._eager(pixels)
        times = {way: took for way, run in runs.items() if (took := self._measured(run, pixels, expected)) is not None}
        best: Way = min(times, key=times.__getitem__) if times else "eager"
        self.way, self._run = best, runs.get(best, self._eager)

    def _measured(self, run: Run, pixels: Tensor, expected: Tensor) -> float | None:
        """Return the least seconds of a batch, the compilation left out; None where it fails or gives other vectors."""
        rows = self._tried(
            lambda: [in_fixed_batches(run, pixels, self.size) for _ in range(3)][-1]
        )  # CUDA graphs are recorded at the second
        if rows is None or not bool((torch.cosine_similarity(rows.float(), expected.float()) >= ALIKE).all()):
            return None
        return min(seconds(lambda: in_fixed_batches(run, pixels, self.size), pixels.device) for _ in range(ROUNDS))

    def _tried(self, call: Callable[[], Tensor]) -> Tensor | None:
        """Return the rows, or None where a compiled way fails; memory that ran out shows again when the tower runs as it is."""
        try:
            return call()
        except Exception as error:  # the compilers behind torch.compile each raise their own
            self._tell(f"the image tower runs uncompiled: {one_line(error)}")
            return None


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of one call, all work of a GPU done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began
