"""Tokenizers that are told the language of a text, as NLLB's (Costa-jussà et al. 2022): each text
bears a mark of its language, the one that is set, or the one that the text is probably in.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitsearch.encoders.language import likeliest_language
from vitsearch.errors import EncoderError

DEFAULT = ""  # among marks: the one that the tokenizer sets by itself
_FLORES = re.compile(r"[a-z]{3}_[A-Z][a-z]{3}")
_language: ContextVar[str | None] = ContextVar("language", default=None)


@contextmanager
def texts_in(language: str) -> Iterator[None]:
    """Say in which language texts are (ISO 639-1, as "de", or FLORES-200, as "deu_Latn"), for
    models that are told it; without, it is guessed for each text.
    """
    before = _language.set(language)
    try:
        yield
    finally:
        _language.reset(before)


def set_language() -> str | None:
    """Return the language that `texts_in` says, None where it does not."""
    return _language.get()


def language_marks(tokenizer: Any) -> dict[str, int] | None:
    """Return the tokens that mark a language to a tokenizer of transformers, by ISO 639-1 and
    FLORES-200 codes and `DEFAULT`; None for a tokenizer that is not told one.
    """
    if not callable(getattr(tokenizer, "set_src_lang_special_tokens", None)):
        return None
    vocabulary: Mapping[str, int] = tokenizer.get_vocab()
    marks = {name: number for name, number in vocabulary.items() if _FLORES.fullmatch(name)}
    marks |= {code: marks[name] for code, name in _flores().items() if name in marks}
    return {**marks, DEFAULT: int(tokenizer.cur_lang_code)}


def mark_languages(ids: NDArray[np.int64], texts: Sequence[str], marks: Mapping[str, int]) -> None:
    """Put the mark of each text's language into its row of tokens ``(n, t)``, in place of the
    default; raises EncoderError for a language that was set and has none.
    """
    for row, text in zip(ids, texts, strict=True):
        language = set_language()
        if language is not None and language not in marks:
            known = ", ".join(sorted(code for code in marks if len(code) == 2))
            raise EncoderError(
                f"the model knows no language {language!r}: it knows {known}, and others by the "
                "codes of FLORES-200, such as yue_Hant"
            )
        language = language or likeliest_language(text) or DEFAULT
        row[row == marks[DEFAULT]] = marks.get(language, marks[DEFAULT])


@cache
def _flores() -> dict[str, str]:
    text = files("vitsearch").joinpath("language.toml").read_text(encoding="utf-8")
    pairs = tomllib.loads(text)["flores"]["codes"].replace("\n", " ").split(",")
    return dict(pair.split() for pair in pairs)
