"""open_clip's tokenizers as files of `tokenizers`: its byte pairs (Radford et al. 2021, CLIP) and
those of the Hugging Face hub.
"""

import sys
from typing import Any

import open_clip
import tokenizers
from open_clip import tokenizer as theirs
from tokenizers import Regex, models, pre_tokenizers

from vitsearch.encoders.language import language_marks
from vitsearch.encoders.tokenizer import Cleaning, PortableTokenizer, TokenRules, portable_fast

_ENDINGS = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"]
_GAP = 0xD800, 0xE000  # surrogates are not characters


def portable_open_clip(tokenizer: Any) -> PortableTokenizer | None:
    """Return open_clip's tokenizer without open_clip, or None for one that does more than we know
    of.
    """
    cleaning = _cleaning(tokenizer)
    if cleaning is None:
        return None
    if type(tokenizer) is open_clip.SimpleTokenizer and tokenizer.reduction_fn is None:
        return _byte_pairs(tokenizer, cleaning)
    if type(tokenizer) is theirs.HFTokenizer and not tokenizer.tokenizer_mode:
        zeroed = tokenizer.tokenizer.sep_token_id if tokenizer.strip_sep_token else None
        return portable_fast(
            tokenizer.tokenizer,
            TokenRules(
                cleaning,
                tokenizer.context_length,
                tokenizer.tokenizer.pad_token_id,
                full=True,
                mask=False,
                zeroed=zeroed,
                languages=language_marks(tokenizer.tokenizer),
            ),
        )
    return None


def _cleaning(tokenizer: Any) -> Cleaning | None:
    known: dict[Any, Cleaning] = {
        theirs._clean_lower: "open_clip lower",
        theirs._clean_whitespace: "open_clip whitespace",
        theirs._clean_canonicalize: "open_clip canonicalize",
    }
    return known.get(getattr(tokenizer, "clean_fn", None))


def _byte_pairs(tokenizer: Any, cleaning: Cleaning) -> PortableTokenizer:
    """Return CLIP's own tokenizer: words by a pattern, their bytes as letters, pairs joined by
    rank.
    """
    names = {number: piece for piece, number in tokenizer.encoder.items()}
    specials = {names[number]: number for number in tokenizer.all_special_ids}
    vocabulary = {
        piece: number for piece, number in tokenizer.encoder.items() if piece not in specials
    }
    merges = [pair for pair, _ in sorted(tokenizer.bpe_ranks.items(), key=lambda ranked: ranked[1])]
    fast = tokenizers.Tokenizer(
        models.BPE(
            vocab=vocabulary, merges=merges, continuing_subword_prefix="", end_of_word_suffix="</w>"
        )
    )
    pattern = Regex(f"(?i:{'|'.join([*specials, *_ENDINGS])})|{_words()}")
    fast.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(pattern, "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    marks = (int(tokenizer.sot_token_id), int(tokenizer.eot_token_id))
    rules = TokenRules(
        cleaning,
        tokenizer.context_length,
        pad=0,
        full=True,
        mask=False,
        marks=marks,
        specials=specials,
    )
    return PortableTokenizer(fast.to_str(), rules)


def _words() -> str:
    """Return CLIP's pattern of words with its classes of letters, digits and the rest written out.

    Two libraries of patterns rarely know the same edition of Unicode, and open_clip's skips one
    combining mark (U+0345).
    """
    letters, digits, rest = (
        _written_out(kind) for kind in (r"[\p{L}]", r"[\p{N}]", r"[^\s\p{L}\p{N}]")
    )
    return f"[{letters}]+|[{digits}]|[{rest}]+"


def _written_out(kind: str) -> str:
    """Return the ranges of characters that open_clip's library of patterns takes for one class."""
    import regex

    ranges = []
    for part in (range(_GAP[0]), range(_GAP[1], sys.maxunicode + 1)):
        for run in regex.finditer(f"{kind}+", "".join(map(chr, part)), regex.IGNORECASE):
            ranges.append(f"\\x{{{part[run.start()]:x}}}-\\x{{{part[run.end() - 1]:x}}}")
    return "".join(ranges)
