"""Texts of open_clip's models: their tokenizers as files of `tokenizers`, its byte pairs (Radford
et al. 2021, CLIP) and those of the Hugging Face hub; and text towers that compute no padding.
"""

import inspect
import json
import sys
from collections.abc import Callable
from types import MethodType
from typing import Any

import open_clip
import tokenizers
import torch
from open_clip import tokenizer as theirs
from open_clip.transformer import TextTransformer
from tokenizers import Regex, models, pre_tokenizers
from torch import Tensor, nn

from vitsearch.encoders.language import language_marks
from vitsearch.encoders.tokenizer import Cleaning, PortableTokenizer, TokenRules, portable_fast

_ENDINGS = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"]
_GAP = 0xD800, 0xE000  # surrogates are not characters


def portable_open_clip(tokenizer: Any, *, full: bool = True) -> PortableTokenizer | None:
    """Return open_clip's tokenizer without open_clip, or None for one that does more than we know
    of; ``full`` for a text tower that is given all tokens of its context.
    """
    cleaning = _cleaning(tokenizer)
    if cleaning is None:
        return None
    if type(tokenizer) is open_clip.SimpleTokenizer and tokenizer.reduction_fn is None:
        return _byte_pairs(tokenizer, cleaning, full)
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


def _byte_pairs(tokenizer: Any, cleaning: Cleaning, full: bool) -> PortableTokenizer:
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
        full=full,
        mask=False,
        marks=marks,
        specials=specials,
    )
    facts = json.loads(fast.to_str())
    # the older form of pairs, which is read in four fifths of the time
    facts["model"]["merges"] = [" ".join(pair) for pair in merges]
    return PortableTokenizer(json.dumps(facts), rules)


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


# -- Without padding -------------------------------------------------------------------------------


class _Narrow:
    """A text tower for texts of fewer tokens than its context."""

    def __init__(self, tower: Any, width: int) -> None:
        self._tower = tower
        self.attn_mask = tower.attn_mask[:width, :width]
        self.positional_embedding = tower.positional_embedding[:width]

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._tower, name)
        return MethodType(value.__func__, self) if inspect.ismethod(value) else value


def reads_no_padding(net: nn.Module, tokenizer: Any) -> Callable[[Tensor], Tensor] | None:
    """Return the text tower of a model for tokens ``(n, t)`` without all or a part of the padding
    at their end; None for a model that reads it.

    In CLIP a token sees only those before it, and the vector is that of the end of the text: what
    stands behind it moves nothing, and takes nine tenths of the time of a few words.
    """
    tower: Any = getattr(net, "text", net)
    run = {open_clip.CLIP: open_clip.CLIP.encode_text, TextTransformer: TextTransformer.forward}
    if type(tower) not in run or type(tokenizer) is not open_clip.SimpleTokenizer:
        return None
    pool = getattr(tower, "text_pool_type", getattr(tower, "pool_type", None))
    others = (getattr(tower, name, None) for name in ("cls_emb", "use_pad_mask", "output_tokens"))
    if pool != "argmax" or any(each is not None and each is not False for each in others):
        return None
    mask = tower.attn_mask
    if mask is None or not torch.equal(mask < 0, torch.ones_like(mask, dtype=torch.bool).triu(1)):
        return None
    encode: Callable[..., Tensor] = run[type(tower)]
    return lambda tokens: encode(_Narrow(tower, tokens.shape[1]), tokens)


def without_end(ids: Tensor) -> Tensor:
    """Return tokens ``(n, t)`` without the columns at the end where all are padding, which is 0."""
    used = (ids != 0).any(dim=0).nonzero()
    return ids[:, : int(used.max()) + 1 if len(used) else 0]
