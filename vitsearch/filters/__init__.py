r"""The filter of a search: ``year >= 2019 and path like 'italy/%' and width > 1000`` as a syntax
tree, and as SQL.

The columns, texts, numbers and dates (ISO 8601 to the second), are those of
`vitsearch.photos.columns`.

Tests: ``= == != <> < <= > >=``, ``like``, ``in (a, b)``, ``between a and b`` (both included), ``is
null``, and ``not like``, ``not in``, ``not between``, ``is not null``; ``not``, ``and``, ``or``
(binding in this order) and parentheses join them. Keywords and columns are written in any case. A
text is in ``'...'`` or ``"..."``, with that quote doubled inside; a number may be quoted too.

- A date is a quoted text of any precision, ``'2019'`` to ``'2019-07-14T18:30:00'``, and means
  that whole period: ``taken_at = '2019-07'`` is in July, ``> '2019-07'`` after it, ``<=
  '2019-07'`` up to its end.
- Texts are equal, and in order, by their UTF-8 bytes.
- ``like`` takes ``%`` for any characters, ``_`` for one, and ``\`` before one that means itself.
  It ignores case in every alphabet: who writes ``camera like '%nikon%'`` does not know how the
  maker spells itself. SQLite's own LIKE does so in ASCII only, hence `prepare`.
- What a photo does not say is null. As in SQL a test of null is neither true nor false, and so is
  its ``not``: photos without a date match neither ``year = 2019`` nor ``not year = 2019``, but
  ``year is null``.
"""

from vitsearch.filters.columns import prepare
from vitsearch.filters.parse import filter_all, parse_filter
from vitsearch.filters.tree import Filter

__all__ = [
    "Filter",
    "filter_all",
    "parse_filter",
    "prepare",
]
