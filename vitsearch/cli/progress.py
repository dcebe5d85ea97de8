"""Progress on a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from vitsearch.cli import show
from vitsearch.types import Progress


def photo_bar(total: int | None, what: str) -> Any:
    """Return a bar that shows photos, rate and time left on stderr, silent where that is no terminal."""
    from tqdm import tqdm

    return tqdm(total=total, unit=" photos", desc=what, disable=None, file=sys.stderr, dynamic_ncols=True)


@contextmanager
def counted_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar for the block; what is yielded is called with the photos done and their number."""
    with photo_bar(None, what) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield progress


class ProgressBar:
    """Shows photos, rate and time left on stderr; silent where that is no terminal."""

    def __init__(self) -> None:
        self._bar: Any = None

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, step: Progress) -> None:
        if step.note:
            show.note(f"vitsearch: {step.note}")
        if step.stage != "embedding":
            return
        if self._bar is None:
            self._bar = photo_bar(step.total, "indexing")
        self._bar.set_postfix_str(f"{step.failed} failed" if step.failed else "", refresh=False)
        self._bar.update(step.done - self._bar.n)
