"""Makes hostile content of good content, from a seeded generator."""

import json
from random import Random
from typing import Any

UNCHANGED = 0.03  # of the cases: they show that a target works
ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 2**31, 2**40, 2**63, 2**64, -(2**63), 10**30, 0.5, -0.0,
    1e308, float("inf"), float("nan"), "", "a", "\0", "\ud800", "\udcff", "é" * 50, "x" * 5000,
    "../../etc/passwd", "/etc/passwd", "hf:stranger/model", "NaN", [], {}, [[]], [None], {"": None},
    [1] * 1000,
)  # fmt: skip
ODD_BYTES = (
    b"\0" * 4, b"\xff" * 4, b"\xff" * 8, b"\0\0\0\x80", b"\x7f\xff\xff\xff", b"\x01\0\0\0",
    b"[" * 64, b"\0\0\0\0\0\0\0\x80", b"{", b"\xf0\x9f\x98\x80", b"%n%s", b"\r\n\r\n", b"../",
    b"PAR1", b"PK\3\4",
)  # fmt: skip


def odd_bytes(data: bytes, random: Random) -> bytes:
    """Return content with one to eight changes: bits turned, parts cut, doubled, overwritten."""
    if random.random() < UNCHANGED:
        return data
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 4, 8))):
        at = random.randrange(len(changed) + 1)
        # most of what a reader believes stands at the ends
        at = random.choice((at, min(at, 200), max(0, len(changed) - at % 200)))
        match random.randrange(7):
            case 0 if changed:
                changed[min(at, len(changed) - 1)] ^= 1 << random.randrange(8)
            case 1:
                del changed[at:]
            case 2:
                del changed[at : at + random.randrange(1, 64)]
            case 3:
                changed[at:at] = random.choice(ODD_BYTES)
            case 4:
                part = random.choice(ODD_BYTES)
                changed[at : at + len(part)] = part
            case 5:
                changed[at:at] = changed[at : at + random.randrange(1, 4096)]
            case _:
                changed[at : at + 8] = random.randbytes(8)
    return bytes(changed)


def odd_json(text: str | bytes, random: Random) -> str:
    """Return a JSON text with one to three of its values changed, left out or made deep."""
    value = json.loads(text)
    if random.random() < UNCHANGED:
        return json.dumps(value)
    for _ in range(random.choice((1, 1, 2, 3))):
        value = _changed(value, random)
    written = json.dumps(value)
    if random.random() < 0.05:
        deep = random.choice((50, 500, 20_000))
        return "[" * deep + written + "]" * deep
    return written


def _changed(value: Any, random: Random) -> Any:
    if isinstance(value, dict) and value and random.random() < 0.9:
        key = random.choice(sorted(value))
        copy = dict(value)
        if random.random() < 0.15:
            del copy[key]
        else:
            copy[key] = _changed(value[key], random)
        return copy
    if isinstance(value, list) and value and random.random() < 0.7:
        at = random.randrange(len(value))
        return [*value[:at], _changed(value[at], random), *value[at + 1 :]]
    if isinstance(value, int) and not isinstance(value, bool) and random.random() < 0.5:
        return random.choice((value - 1, value + 1, value * 1000, -value, value * 2**20, value / 2))
    return random.choice(ODD_VALUES)


def odd_text(words: list[str], random: Random, most: int = 12) -> str:
    """Return words, signs and odd letters in any order."""
    parts = random.choices(words, k=random.randrange(most))
    glue = random.choice(("", "", " ", "  "))
    text = glue.join(parts)
    if random.random() < 0.1:
        text = text + random.choice(("(", "'", '"', "\\", "\0", "\ud800", "𝔊", "ﬀ")) * 500
    return text
