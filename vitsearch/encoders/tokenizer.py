"""A model's tokenizer without the library that the model came with: a file of `tokenizers` and the
few rules around it.
"""

import html
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from vitsearch.encoders.checkpoints import MAX_GROWTH, check_growth, check_tokenizer, growth_of
from vitsearch.encoders.language import mark_languages, readable, readable_texts
from vitsearch.errors import EncoderError
from vitsearch.untrusted import run_in_child

Cleaning = Literal[
    "none", "lower", "siglip", "open_clip lower", "open_clip whitespace", "open_clip canonicalize"
]
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What is done around the tokenizer's file; every field moves the tokens.

    ``length`` is the most tokens of a text, ``full`` pads each text to it (else to the longest of
    the batch), ``mask`` gives an attention mask too. ``marks`` are the start and the end mark where
    the file does not add them, ``specials`` the pieces that it does not know, and ``zeroed`` is a
    token that becomes 0. ``languages`` are the marks of `language_marks`.
    """

    cleaning: Cleaning
    length: int
    pad: int
    full: bool
    mask: bool
    marks: tuple[int, int] | None = None
    specials: Mapping[str, int] | None = None
    zeroed: int | None = None
    languages: Mapping[str, int] | None = None

    def facts(self) -> dict[str, Any]:
        """Return the fields as plain values, for a file."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class PortableTokenizer:
    """A tokenizer as text (the JSON of `tokenizers`) and its rules."""

    json: str
    rules: TokenRules


class TextReader:
    """Turns texts into the arrays that a text tower is given; safe to use from several threads."""

    def __init__(self, portable: PortableTokenizer) -> None:
        self.rules = portable.rules
        self._tokenizer = Tokenizer.from_str(portable.json)
        check_tokenizer(self._tokenizer, "the model")
        self._tokenizer.no_padding()
        if self.rules.marks is None:
            self._tokenizer.enable_truncation(self.rules.length)
        else:
            self._tokenizer.no_truncation()

    def tokenize(self, texts: Sequence[str]) -> dict[str, NDArray[np.int64]]:
        """Return ``input_ids`` ``(n, t)`` int64 and, where the rules say so, ``attention_mask``; a
        text that is too long is cut.
        """
        rows = self._rows([CLEANINGS[self.rules.cleaning](text) for text in readable_texts(texts)])
        width = self.rules.length if self.rules.full else max(map(len, rows), default=0)
        ids = np.full((len(rows), width), self.rules.pad, dtype=np.int64)
        mask = np.zeros((len(rows), width), dtype=np.int64)
        for i, row in enumerate(rows):
            ids[i, : len(row)], mask[i, : len(row)] = row, 1
        if self.rules.zeroed is not None:
            ids[ids == self.rules.zeroed] = 0
        if self.rules.languages is not None:
            mark_languages(ids, texts, self.rules.languages)
        return {"input_ids": ids, "attention_mask": mask} if self.rules.mask else {"input_ids": ids}

    def is_cut(self, text: str) -> bool:
        """Return whether a text has more tokens than are read."""
        if surely_fits(text, self.rules.length):
            return False
        cleaned = CLEANINGS[self.rules.cleaning](readable(text))
        if self.rules.marks is None:
            return bool(self._tokenizer.encode(cleaned).overflowing)
        return len(self._pieces(cleaned)) > self.rules.length - 2

    def _rows(self, texts: Sequence[str]) -> list[list[int]]:
        if self.rules.marks is None:
            return [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        start, end = self.rules.marks
        return [[start, *self._pieces(text)[: self.rules.length - 2], end] for text in texts]

    def _pieces(self, text: str) -> list[int]:
        specials = self.rules.specials or {}
        if not any(special in text for special in specials):
            return list(self._tokenizer.encode(text, add_special_tokens=False).ids)
        # a mark written out in a text is one piece, but only where the pattern of the words does
        # not take its first letters
        ids: list[int] = []
        for _, (start, end) in self._tokenizer.pre_tokenizer.pre_tokenize_str(text):
            piece = text[start:end]
            ids += (
                [specials[piece]]
                if piece in specials
                else self._tokenizer.encode(piece, add_special_tokens=False).ids
            )
        return ids


def gives_equal_tokens(
    portable: PortableTokenizer,
    tokenize: Callable[[Sequence[str]], Mapping[str, Any]],
    texts: Sequence[str],
) -> bool:
    """Return whether a tokenizer without its library gives what ``tokenize`` gives, for each text
    and for all together.
    """
    reader = TextReader(portable)
    for batch in (texts, *([text] for text in texts)):
        theirs, ours = tokenize(batch), reader.tokenize(batch)
        if theirs.keys() != ours.keys():
            return False
        if not all(np.array_equal(np.asarray(theirs[name]), ours[name]) for name in ours):
            return False
    return True


# the files of a tokenizer that native code runs: `tokenizers` the first, sentencepiece the others
PROGRAMS = ("tokenizer.json", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model")
PROBES = (
    "a photo of a dog",
    "a" * 2000,
    "é" * 500,
    "word, " * 300,
    "<|endoftext|></s>[CLS] 1234567890 ... \u4e2d\u6587 \U0001f415\u200d\0\n\t",
)
PROBE_SECONDS, PROBE_MEMORY = 60.0, 4_000_000_000
_probed: set[tuple[str, int, int]] = set()  # files of this process, by path, size and time


def check_tokenizer_files(folder: Path, name: str) -> None:
    """Read the tokenizer in a folder, and some texts with it, in a process of its own, where it is
    not known in this one: native code does what its file says.

    Raises EncoderError where that fails, crashes, or takes too long or too much memory.
    """
    for program in PROGRAMS:
        if (folder / program).is_file():
            _check_file(folder / program, name)


def _check_file(file: Path, name: str) -> None:
    facts = file.stat()
    key = (str(file), facts.st_size, facts.st_mtime_ns)
    if key in _probed:
        return
    probed = run_in_child(
        f"{__name__}:probe",
        {"file": str(file)},
        error=EncoderError,
        where=f"{name}: the tokenizer {file}",
        repair="fetch the model again",
        seconds=PROBE_SECONDS,
        memory=PROBE_MEMORY,
    )
    check_growth(probed["growth"], name)
    _probed.add(key)


def probe(facts: Mapping[str, Any]) -> dict[str, float]:
    """Return how many times longer the tokenizer of a ``file`` makes a text, and how many tokens it
    makes of `PROBES`: what a child of `check_tokenizer_files` does.
    """
    if not facts["file"].endswith(".json"):
        from sentencepiece import SentencePieceProcessor

        pieces = SentencePieceProcessor(model_file=facts["file"])
        return {"growth": 1.0, "tokens": sum(len(pieces.encode(text)) for text in PROBES)}
    tokenizer = Tokenizer.from_file(facts["file"])
    if (growth := growth_of(tokenizer)) > MAX_GROWTH:
        return {"growth": growth}
    return {
        "growth": growth,
        "tokens": sum(len(tokenizer.encode(text).ids) for text in PROBES),
    }


def portable_fast(tokenizer: Any, rules: TokenRules) -> PortableTokenizer | None:
    """Return a fast tokenizer of transformers with its rules, or None for a slow one and for one
    that pads or cuts on the left.
    """
    fast = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(fast, Tokenizer) or (tokenizer.padding_side, tokenizer.truncation_side) != (
        "right",
        "right",
    ):
        return None
    return PortableTokenizer(fast.to_str(), rules)


def surely_fits(text: str, length: int) -> bool:
    """Return whether a text is too short to have more than ``length`` tokens: one is a byte or
    more, but for two marks and a space in front.
    """
    return len(readable(text).encode()) <= length - 3


def siglip_cleaned(text: str) -> str:
    """Lower-case, drop punctuation, join white space: the text cleaning of the first SigLIP."""
    return " ".join(text.lower().translate(_NO_PUNCTUATION).split())


def _mended(text: str) -> str:
    """Return a text with broken encodings and HTML undone, as open_clip does."""
    if (
        text.isascii() and text.isprintable() and "&" not in text
    ):  # nothing to mend: the import is spared
        return text.strip()
    try:
        import ftfy
    except ModuleNotFoundError as error:
        raise EncoderError(
            "this model reads texts with the package ftfy: pip install 'vitsearch[clip]'"
        ) from error
    fixed: str = ftfy.fix_text(text)
    return html.unescape(html.unescape(fixed)).strip()


def _joined(text: str) -> str:
    return " ".join(_mended(text).split())


def _canonical(text: str) -> str:
    return siglip_cleaned(_mended(text).replace("_", " "))


def _unchanged(text: str) -> str:
    return text


CLEANINGS: dict[Cleaning, Callable[[str], str]] = {
    "none": _unchanged,
    "lower": str.lower,
    "siglip": siglip_cleaned,
    "open_clip lower": lambda text: _joined(text).lower(),
    "open_clip whitespace": _joined,
    "open_clip canonicalize": _canonical,
}


def rules_from(facts: Mapping[str, Any]) -> TokenRules:
    """Return the rules from plain values; raises KeyError, TypeError or ValueError for values that
    are none.
    """
    rules = TokenRules(**{**facts, "marks": tuple(facts["marks"]) if facts["marks"] else None})
    if rules.cleaning not in CLEANINGS:
        raise ValueError(f"unknown cleaning {rules.cleaning!r}")
    return rules
