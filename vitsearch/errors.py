"""The exceptions of vitsearch.

VitsearchError                 every error below; its text is one line: what, where, what next
|- PhotoError                  a photo cannot be read (the reason is the text)
|   `- UnreadablePhoto         its file cannot be opened or read just now
|- QueryError                  an empty query, a bad weight, terms that cancel out
|   `- UnknownPhoto            no photo of the collection has this id, or its file is gone
|- EncoderError                an encoder cannot be found or loaded
|   `- EncoderMismatch         an encoder other than the one the collection was made with
|- ClassifierError             a trained classifier is missing, damaged or cannot be written
|- RecipeError                 an unknown recipe, a bad factory string, FAISS missing
|- IndexDamaged                a file of the index is missing, cut or altered
|- CollectionError             the collection cannot be read or written
|   |- CollectionNotFound      there is none here
|   `- CollectionLocked        another process is writing to it
|- ServiceBusy                 a server cannot answer just now
|- NotShown                    a server does not show this to remote users
`- TooLarge                    an upload has more bytes than a server takes
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager


class VitsearchError(Exception):
    """The root of everything that vitsearch raises on purpose."""


class PhotoError(VitsearchError):
    """A photo cannot be read; the text says why."""


class UnreadablePhoto(PhotoError):
    """The system cannot open or read a photo's file, which may pass: a disk that is away, a right
    that is missing.
    """


class QueryError(VitsearchError):
    """A query cannot be understood."""


class UnknownPhoto(QueryError):
    """No photo of the collection has this id, or its file is not there any more."""


class EncoderError(VitsearchError):
    """An encoder cannot be found or loaded."""


class EncoderMismatch(EncoderError):
    """The encoder is not the one that made the collection's vectors."""


class ClassifierError(VitsearchError):
    """A trained classifier is missing, damaged or cannot be written."""


class RecipeError(VitsearchError):
    """An index recipe is unknown, malformed, or needs a package that is not installed."""


class IndexDamaged(VitsearchError):
    """A file of the index is missing, cut or altered; the index can be rebuilt from the vectors."""


class CollectionError(VitsearchError):
    """A collection cannot be read or written."""


class CollectionNotFound(CollectionError):
    """There is no collection here."""


class CollectionLocked(CollectionError):
    """Another process is writing to the collection."""


class ServiceBusy(VitsearchError):
    """The collection cannot be read just now: the same request may work in a moment."""


class NotShown(VitsearchError):
    """The request is for what this server does not show to remote users."""


class TooLarge(VitsearchError):
    """An upload has more bytes than the server takes."""


@contextmanager
def needing(
    packages: Collection[str], need: str, extra: str, error: type[VitsearchError] = VitsearchError
) -> Iterator[None]:
    """Turn one of these packages that is missing inside the block into an error that says what to
    install; ``need`` is the beginning of its text, such as "the web page needs the package".
    """
    try:
        yield
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in packages:
            raise
        raise error(f"{need} {missing.name}: pip install 'vitsearch[{extra}]'") from missing
