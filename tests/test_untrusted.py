"""The guard of parsers, its bounds, and native code in a process of its own."""

import os
import struct
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from vitsearch.errors import CollectionError
from vitsearch.untrusted import (
    guarded,
    parse_json,
    parse_toml,
    read_bounded,
    reason,
    run_in_child,
)

# -- The guard -------------------------------------------------------------------------------------


def deep(_: int = 0) -> int:
    return deep() + 1


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (lambda: {}["a"], "no 'a'"),
        (lambda: int("x"), "invalid literal for int() with base 10: 'x'"),
        (lambda: 1 / 0, "division by zero"),
        (lambda: float(10**400), "int too large to convert to float"),
        (lambda: struct.unpack(">I", b""), "unpack requires a buffer of 4 bytes"),
        (lambda: b"\xff".decode(), "'utf-8' codec can't decode byte 0xff in position 0"),
        (deep, "it is nested too deeply"),
        (lambda: bytearray(2**60), "it needs more memory than there is"),
        (lambda: os.stat("/no/such"), "No such file or directory"),
        (lambda: None + 1, "unsupported operand type(s) for +"),  # type: ignore[operator]
        (lambda: sys.intern(1), "intern() argument must be str, not int"),  # type: ignore[arg-type]
    ],
)
def test_any_exception_is_the_products_error_in_one_line(cause: Any, words: str) -> None:
    with pytest.raises(CollectionError) as caught:
        with guarded(CollectionError, "a.json", "write it again"):
            cause()
    text = str(caught.value)
    assert text.startswith(f"a.json is damaged ({words}")
    assert text.endswith("): write it again")
    assert len(text) < 220
    assert caught.value.__cause__ is not None


def test_its_own_error_and_those_named_pass() -> None:
    own = CollectionError("as it is")
    for failure, passing in ((own, ()), (ImportError("x"), (ImportError,))):
        with pytest.raises(type(failure)) as caught:
            with guarded(CollectionError, "a", "b", passing=passing):
                raise failure
        assert caught.value is failure
    with pytest.raises(KeyboardInterrupt), guarded(CollectionError, "a", "b"):
        raise KeyboardInterrupt


def test_a_reason_has_one_line_without_control_characters() -> None:
    assert reason(ValueError("a\nb\x1b[31m\u202e\ud800 c.")) == "a b [31m c"
    assert reason(ValueError("x" * 10_000)) == "x" * 160
    assert reason(ValueError()) == "ValueError"


# -- Texts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 20_000, "it is nested too deeply"),
        ("[" * 101 + "]" * 101, "it is nested more than 100 deep"),
        ('{"a":' * 101 + "1" + "}" * 101, "it is nested more than 100 deep"),
        ("[" + "[]," * 2_000_000 + "[]]", "it has too many lists and objects"),
        (" " * 17_000_000, "it is larger than 16,777,216 bytes"),
        ('"\\ud800"', "surrogates not allowed"),
        ('{"\\ud800": 1}', "surrogates not allowed"),
        ("1" * 5000, "Exceeds the limit"),
        (b"\xff\xff{}", "codec can't decode"),
        ("", "Expecting value"),
    ],
    ids=range(10),
)
def test_json_has_bounds(text: str | bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_json(text)


def test_good_json_and_toml_are_taken() -> None:
    value = {"a": [1, 2.5, None, {"b": "\u00e9\udcff"}], "c": True}
    assert parse_json('{"a": [1, 2.5, null, {"b": "\\u00e9\\udcff"}], "c": true}') == value
    assert parse_json(b'{"a": 1}') == {"a": 1}
    nested = parse_json("[" * 100 + "]" * 100)
    assert isinstance(nested, list)
    assert parse_toml(b"a = [1]\n[b]\nc = 'x'") == {"a": [1], "b": {"c": "x"}}
    with pytest.raises(ValueError, match="Invalid"):
        parse_toml("a = ")


def test_a_file_is_read_up_to_its_bound(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"x" * 10)
    assert read_bounded(file, 10) == b"x" * 10
    with pytest.raises(ValueError, match="it is larger than 9 bytes"):
        read_bounded(file, 9)
    with pytest.raises(IsADirectoryError):
        read_bounded(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_bounded(tmp_path / "none")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(ValueError, match="it is not a regular file"):
            read_bounded(tmp_path / "pipe")


# -- A process of its own --------------------------------------------------------------------------


def task(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What a child is asked to do here."""
    match facts["do"]:
        case "crash":
            os.kill(os.getpid(), 11)
        case "wait":
            time.sleep(60)
        case "fill":
            return {"size": len(bytearray(facts["size"]))}
        case "raise":
            raise ValueError("a\nreason")
        case "print":
            os.write(1, b"printed by a library\n")
        case "no object":
            return 7  # type: ignore[return-value]
    return {"took": facts["do"]}


def ask(do: str, **options: Any) -> dict[str, Any]:
    size = options.pop("size", 0)
    given: dict[str, Any] = {
        "error": CollectionError,
        "where": "a.faiss",
        "repair": "write it again",
    }
    sys.path.insert(0, str(Path(__file__).parent))
    try:
        return run_in_child(
            f"{Path(__file__).stem}:task", {"do": do, "size": size}, **given | options
        )
    finally:
        sys.path.pop(0)


@pytest.mark.slow
def test_a_child_answers_whatever_a_library_prints() -> None:
    assert ask("print") == {"took": "print"}


@pytest.mark.skipif(os.name != "posix", reason="limits of a process")
@pytest.mark.parametrize(
    ("do", "options", "words"),
    [
        ("crash", {}, "its reader crashed, exit code -11"),
        ("wait", {"seconds": 2.0}, "it takes longer than 2 s"),
        ("raise", {}, "a reason"),
        ("fill", {"size": 3_000_000_000}, "it needs more memory than there is"),
        ("no object", {}, "'int' object is not iterable"),
    ],
)
def test_what_a_child_does_wrong_is_one_line(do: str, options: Any, words: str) -> None:
    with pytest.raises(CollectionError) as caught:
        ask(do, **options)
    assert str(caught.value) == f"a.faiss cannot be read ({words}): write it again"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files")
def test_a_child_leaves_no_open_file() -> None:
    before = len(os.listdir("/proc/self/fd"))
    ask("x")
    assert len(os.listdir("/proc/self/fd")) == before
