"""The progress of indexing on a terminal."""

import sys
from typing import Any

from vitsearch.indexing import Progress


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
        if step.stage != "embedding":
            return
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(total=step.total, unit=" photos", desc="indexing", disable=None, file=sys.stderr, dynamic_ncols=True)
        self._bar.set_postfix_str(f"{step.failed} failed" if step.failed else "", refresh=False)
        self._bar.update(step.done - self._bar.n)
