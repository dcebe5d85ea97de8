r"""Filters such as ``year >= 2019 and path like 'italy/%'``, as a syntax tree and as SQL.

The columns are those of `vitsearch.photos.columns`: texts, numbers, and dates (ISO 8601 to the
second, or as far as it is known).

Tests: ``= == != <> < <= > >=``, ``like``, ``contains``, ``in (a, b)``, ``between a and b`` (both
included), ``is null``, and ``not like``, ``not contains``, ``not in``, ``not between``, ``is not
null``; ``not``, ``and``, ``or`` (binding in this order) and parentheses join them. Keywords and
columns may be in any case. A text is in ``'...'`` or ``"..."``, with that quote doubled inside; a
number may be quoted too.

- A date is a quoted text of any precision, ``'2019'`` to ``'2019-07-14T18:30:00'``, and means
  that period: ``taken_at = '2019-07'`` is in July, ``> '2019-07'`` after it, ``<=
  '2019-07'`` up to its end.
- ``keywords contains 'wedding'`` is ``keywords like '%wedding%'``, and takes ``%``, ``_`` and ``\``
  as they are.
- ``text contains 'total amount'`` is for the text in photos (`vitsearch index --ocr`): words that
  stand one after the other, whatever their case and accents, of which the last may go on
  (``amounts``); with ``contains word 'total'`` it may not. Chinese, Japanese and Korean texts, and
  signs, are found anywhere, as in other columns.
- Texts are equal by their characters, each name of a path composed or decomposed (NFC, NFD), as
  Macs write them; they are in order by their UTF-8 bytes.
- In ``like``, ``%`` stands for any characters, ``_`` for any single one, and ``\`` goes before one
  that stands for itself. It takes composed and decomposed letters for the same, and ignores case
  in every alphabet: whoever writes ``camera like
  '%nikon%'`` need not know the maker's spelling. SQLite's own LIKE ignores it in ASCII only, hence
  `prepare`.
- What a photo's file does not contain is null. As in SQL a test of null is neither true nor
  false, and so is its ``not``: photos without a date match neither ``year = 2019`` nor ``not year =
  2019``, but ``year is null``.
"""

from vitsearch.filters.parse import filter_all, parse_filter
from vitsearch.filters.tree import Filter, prepare

__all__ = ["Filter", "filter_all", "parse_filter", "prepare"]
