"""Files of strangers, read within bounds: whatever is wrong with one becomes one error of one line.

`guarded` is the guard that every parser of such a file runs in; `parse_json` and `parse_toml` bound
size and depth, and `run_in_child` runs native code that trusts its input in a process of its own.
"""

import json
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

MAX_JSON_BYTES = 16 * 1024 * 1024  # a classifier of 22,000 classes has 1 MB
MAX_TOML_BYTES = 64 * 1024
MAX_DEPTH = 100  # of nested lists and objects
BYTES_PER_CONTAINER = 16  # at least, on average: a list or an object takes 60 and more in memory
MAX_REASON = 160  # letters
CHILD_SECONDS = 120.0
CHILD_MEMORY = 2_000_000_000  # bytes of addresses; the libraries alone map about half

# -- The guard -------------------------------------------------------------------------------------


@contextmanager
def guarded(
    error: type[Exception],
    where: object,
    repair: str,
    *,
    problem: str = "is damaged",
    passing: tuple[type[BaseException], ...] = (ImportError,),
) -> Iterator[None]:
    """Turn any exception of the block into ``error``: "``where`` ``problem`` (reason): ``repair``".

    An ``error`` that the block raises itself passes as it is, as do those in ``passing``.
    """
    try:
        yield
    except (error, *passing):
        raise
    except Exception as failure:
        raise error(f"{where} {problem} ({reason(failure)}): {repair}") from failure


def reason(failure: BaseException) -> str:
    """Return why something failed, in one line of at most 160 letters without control characters
    and without a full stop.
    """
    match failure:
        case MemoryError():
            text = "it needs more memory than there is"
        case RecursionError():
            text = "it is nested too deeply"
        case OSError(strerror=str(words)):
            text = words
        case KeyError(args=[name]):
            text = f"no {name!r}"
        case _:
            text = str(failure)
    shown = "".join(letter if letter.isprintable() else " " for letter in text[: 4 * MAX_REASON])
    return " ".join(shown.split())[:MAX_REASON].rstrip(".") or type(failure).__name__


# -- Texts -----------------------------------------------------------------------------------------


def read_bounded(file: Path, max_bytes: int = MAX_JSON_BYTES) -> bytes:
    """Return the content of a regular file; raises OSError, and ValueError for a larger one.

    A pipe or a device, which may never end, is a ValueError too.
    """
    if file.exists() and not file.is_file() and not file.is_dir():
        raise ValueError("it is not a regular file")
    with open(file, "rb") as opened:
        data = opened.read(max_bytes + 1)
    _check_size(data, max_bytes)
    return data


def parse_json(data: bytes | str, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """Return the value of a JSON text; raises ValueError for whatever is wrong with it.

    That is also more than ``max_bytes``, more lists and objects than these can be thought to hold,
    nesting beyond 100, and half of a surrogate pair that stands for no byte of a file name.
    """
    try:
        _check_size(data, max_bytes)
        marks = ("[", "{") if isinstance(data, str) else (b"[", b"{")
        if sum(map(data.count, marks)) > max_bytes // BYTES_PER_CONTAINER:  # type: ignore[arg-type]
            raise ValueError("it has too many lists and objects")
        return _checked(json.loads(data))
    except (RecursionError, MemoryError) as failure:
        raise ValueError(reason(failure)) from failure


def parse_toml(data: bytes | str) -> dict[str, Any]:
    """Return the table of a TOML text; raises ValueError for whatever is wrong with it."""
    try:
        _check_size(data, MAX_TOML_BYTES)
        text = data.decode("utf-8") if isinstance(data, bytes) else data
        facts: dict[str, Any] = _checked(tomllib.loads(text))
        return facts
    except (RecursionError, MemoryError) as failure:
        raise ValueError(reason(failure)) from failure


def _check_size(data: bytes | str, max_bytes: int) -> None:
    if len(data) > max_bytes:
        raise ValueError(f"it is larger than {max_bytes:,} bytes")


def _checked(value: Any) -> Any:
    """Return a parsed value; raises ValueError where it is nested too deeply or holds a text that
    cannot be written as UTF-8.
    """
    level = [value]
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                _check_texts(item)
                inner.extend(item.values())
            else:
                inner.extend(item if isinstance(item, list) else ())
        _check_texts(item for item in level if isinstance(item, str))
        if not inner:
            return value
        level = inner
    raise ValueError(f"it is nested more than {MAX_DEPTH} deep")


def _check_texts(texts: Any) -> None:
    "".join(texts).encode("utf-8", "surrogateescape")  # UnicodeEncodeError is a ValueError


# -- Native code that trusts what it reads ---------------------------------------------------------

_STATEMENT = "from vitsearch.untrusted import _serve; _serve(sys.argv[1])"
_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def python_command(statement: str, *arguments: str) -> list[str]:
    """Return the command of a child process that runs a statement of Python with these arguments.

    It imports from where this process does: ``-m`` would put the working folder first, and run a
    json.py that lies among a stranger's photos.
    """
    program = (
        "import sys; end = 2 + int(sys.argv[1]); sys.path[:] = sys.argv[2:end]; "
        f"sys.argv[1:] = sys.argv[end:]; {statement}"
    )
    return [sys.executable, "-c", program, str(len(sys.path)), *sys.path, *arguments]


def run_in_child(
    task: str,
    facts: Mapping[str, Any],
    *,
    error: type[Exception],
    where: object,
    repair: str,
    problem: str = "cannot be read",
    seconds: float = CHILD_SECONDS,
    memory: int = CHILD_MEMORY,
) -> dict[str, Any]:
    """Return what ``task``, "module:function", makes of ``facts`` in a process of its own; both are
    JSON objects.

    Raises ``error`` where it fails, crashes, takes longer than ``seconds`` or, on POSIX, more than
    ``memory`` bytes. The function's own ``ValueError`` is the reason shown.
    """
    request = json.dumps({"facts": dict(facts), "seconds": seconds, "memory": memory})

    def refuse(because: str) -> NoReturn:
        raise error(f"{where} {problem} ({because}): {repair}")

    with tempfile.TemporaryFile() as answer:
        try:
            done = subprocess.run(
                python_command(_STATEMENT, task),
                input=request.encode("ascii"),
                stdout=answer,
                stderr=subprocess.DEVNULL,
                env=os.environ | _ENVIRONMENT,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            refuse(f"it takes longer than {seconds:g} s")
        except OSError as failure:
            refuse(f"no process can be started: {reason(failure)}")
        answer.seek(0)
        with suppress(ValueError):
            reply = parse_json(answer.read(MAX_JSON_BYTES))
            if isinstance(reply, dict) and isinstance(reply.get("result"), dict):
                result: dict[str, Any] = reply["result"]
                return result
            if isinstance(reply, dict) and isinstance(reply.get("reason"), str):
                refuse(reply["reason"])
    refuse(f"its reader crashed, exit code {done.returncode}")


def _serve(task: str) -> None:
    """Do one task: all that a child does."""
    request = json.loads(sys.stdin.buffer.read())
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not get between
    _limit(request["memory"], request["seconds"])
    module, _, name = task.partition(":")
    try:
        function: Callable[[Mapping[str, Any]], Mapping[str, Any]] = getattr(
            __import__(module, fromlist=[name]), name
        )
        reply: dict[str, Any] = {"result": dict(function(request["facts"]))}
    except Exception as failure:
        reply = {"reason": reason(failure)}
    answers.write(json.dumps(reply).encode("ascii"))
    answers.flush()


def _limit(memory: int, seconds: float) -> None:
    """Bound what this process may use, where the system can."""
    try:
        import resource
    except ImportError:  # Windows: the parent's limit of time remains
        return
    limits: Sequence[tuple[int, int]] = (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, int(seconds) + 1),
        (resource.RLIMIT_CORE, 0),
    )
    for what, value in limits:
        with suppress(OSError, ValueError):  # macOS knows no limit of addresses
            resource.setrlimit(what, (value, value))
