"""What the library remarks through its logger."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def logged_remarks() -> Iterator[list[str]]:
    """Yield what the library remarks in the block."""
    lines: list[str] = []
    with on_remark(lines.append):
        yield lines


@contextmanager
def on_remark(function: Callable[[str], object]) -> Iterator[None]:
    """Call a function with every remark of the block; what it raises ends what remarked."""

    class Call(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            function(record.getMessage())

    logger, handler = logging.getLogger("vitsearch"), Call()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
