"""What the library remarks through its logger."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def logged_remarks() -> Iterator[list[str]]:
    """Yield what the library remarks in the block."""
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    logger, handler = logging.getLogger("vitsearch"), Keep()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
