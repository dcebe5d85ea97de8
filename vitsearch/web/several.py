"""Several collections on one server: each below an address of its own, and a search in all that one
encoder has indexed.
"""

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from vitsearch.arrays import Vectors
from vitsearch.collection.collection import Collection
from vitsearch.collection.query import Term
from vitsearch.collection.several import search_by_position, understand_all
from vitsearch.collection.understanding import KnownWords, Understood
from vitsearch.encoders.base import ImageEncoder
from vitsearch.errors import ServiceBusy, VitsearchError
from vitsearch.filters.words import Vocabulary
from vitsearch.types import SearchResult
from vitsearch.web.pages.cache import UploadedPhotos
from vitsearch.web.pages.tiles import counted
from vitsearch.web.pages.url import ALONE, LIKE
from vitsearch.web.service import PhotoService
from vitsearch.web.source import Version, busy_when_unreadable

if TYPE_CHECKING:
    from vitsearch.web.sites import Site

BELOW = "/in/"  # what the paths of collections begin with


@dataclass(eq=False, slots=True)
class Member:
    """One of several collections: its name, the path that its address begins with, and its open
    collection for the search in all.
    """

    name: str
    path: str
    site: "Site"
    _words: KnownWords | None = None
    _open: tuple[Version, Collection] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def service(self) -> PhotoService:
        """The service of the collection; raises ServiceBusy where there is none yet."""
        if self.site.service is None:
            raise ServiceBusy(f"{self.name} is not indexed yet")
        return self.site.service

    def collection(self) -> Collection:
        """Return the open collection, opened again where another has replaced it."""
        source = self.service.source
        with self._lock, busy_when_unreadable():
            version = source.version()
            if self._open is None or self._open[0] != version:
                self._close()
                self._open = version, source.open()
            return self._open[1]

    @contextmanager
    def vocabulary(self, *, private: bool) -> Iterator[Vocabulary]:
        """Lend the words that its queries may have besides the picture's for a block, without
        ``private`` those that everybody may know.
        """
        source = self.service.source
        if self._words is None:
            self._words = KnownWords(source.folder)
        with source.facts() as store:
            yield self._words.of(store, private=private)

    def close(self) -> None:
        """Let everything go."""
        with self._lock:
            self._close()
        self.site.close()

    def _close(self) -> None:
        if self._open is not None:
            self._open[1].close()
            self._open = None


@dataclass(frozen=True, slots=True)
class Group:
    """The collections of one encoder, whose scores compare."""

    encoder: ImageEncoder
    members: tuple[Member, ...]
    uploads: UploadedPhotos

    @property
    def key(self) -> str:
        """What names it in an address."""
        return self.encoder.fingerprint[:12]

    def search(
        self, text: str, *, k: int, offset: int = 0, private: bool, like: "Likeness | None" = None
    ) -> tuple[list[tuple[Member, SearchResult]], Understood]:
        """Return ``k`` photos of all from ``offset`` on, best first, each with its collection, and
        what was understood of the words; without ``private`` only by what everybody may see. The
        photo that they are ``like`` is left out; raises QueryError without words and photo.
        """
        understood = self._understood(text, private=private)
        if like is not None:
            weight = LIKE if understood.terms else ALONE
            term = Term(like.vector, weight)
            understood = replace(understood, terms=(*understood.terms, term))
        of = like.of if like else None
        opened = [each.collection() for each in self.members]
        with self.members[0].service.source.computing(self.encoder), busy_when_unreadable():
            start, end = (0, offset + k + 1) if of else (offset, k)
            hits = search_by_position(opened, understood, end, offset=start, by_date=private)
        results = [(self.members[position], hit) for position, hit in hits]
        if of:
            results = [each for each in results if (each[0], each[1].photo_id) != of]
            results = results[offset : offset + k]
        return results, understood

    def _understood(self, text: str, *, private: bool) -> Understood:
        if not text:
            return Understood((), (), None)
        with ExitStack() as stack:
            lent = [stack.enter_context(each.vocabulary(private=private)) for each in self.members]
            understood = understand_all(lent, text)
        return understood if private else understood.without_text

    def like_picture(self, data: bytes) -> str:
        """Remember the photo of a file for searches in these collections, and return its key;
        raises PhotoError.
        """
        service = self.members[0].service
        picture = service.read_picture(data)
        with service.source.encoding:
            vector = self.encoder.encode_images([picture])[0]
        return self.uploads.add(picture, vector)

    def like_photo(self, member: Member, photo_id: int) -> "Likeness":
        """Return the likeness to a photo of one of the collections; raises UnknownPhoto."""
        photo = member.service.photo(photo_id)
        with member.service.source.reading() as collection:
            vector = collection.queries.stored_vector(photo.photo_id)
        return Likeness(vector, (member, photo_id))


class Likeness(NamedTuple):
    """The vector of a photo to search with, and which photo of which collection it is, None for an
    uploaded one.
    """

    vector: Vectors
    of: tuple[Member, int] | None = None


class Several:
    """The sites of several photo folders or collections in Milvus, and the application that shows
    them; options are those of `Site.of`.
    """

    def __init__(self, photos: Sequence[str], **options: Any) -> None:
        from vitsearch.web.sites import Site

        self.members: list[Member] = []
        self._uploads: dict[str, UploadedPhotos] = {}  # by the fingerprint of their encoder
        for each in photos:
            site = Site.of(each, is_inner=True, **options)
            name = site.runs.root.resolve().name if site.runs else each.rpartition("/")[2]
            self.members.append(Member(name or "photos", self._path(name), site))
        for member in self.members:
            member.site.lenders = [each.site for each in self.members if each is not member]
            member.site.collections = self.links(member)

    def _path(self, name: str) -> str:
        """Return the path of a collection of this name, which no other has."""
        word = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "photos"
        others = {member.path for member in self.members}
        number, path = 1, f"{BELOW}{word}"
        while path in others:
            number += 1
            path = f"{BELOW}{word}-{number}"
        return path

    def links(self, current: Member | None = None) -> list[tuple[str, str, bool]]:
        """Return name and address of each collection, and whether it is the current one."""
        return [(each.name, f"{each.path}/", each is current) for each in self.members]

    @property
    def content(self) -> str:
        """What is served, in words."""
        indexed = [each.site.service for each in self.members if each.site.service is not None]
        photos = counted(sum(service.count() for service in indexed), "photo", "photos")
        return f"{photos} in {counted(len(self.members), 'collection', 'collections')}"

    def groups(self) -> list[Group]:
        """Return the collections by encoder, the group with the most first; those that cannot be
        read just now, or are not indexed, are left out.
        """
        members: dict[str, list[Member]] = {}
        encoders: dict[str, ImageEncoder] = {}
        for each in self.members:
            if each.site.service is None:
                continue
            try:
                encoder = each.site.service.encoder
            except VitsearchError:
                continue
            encoders.setdefault(encoder.fingerprint, encoder)
            members.setdefault(encoder.fingerprint, []).append(each)
        groups = [
            Group(encoders[key], tuple(those), self._uploads.setdefault(key, UploadedPhotos()))
            for key, those in members.items()
        ]
        return sorted(groups, key=lambda group: -len(group.members))

    def close(self) -> None:
        """Stop what indexes, and close the collections."""
        for member in self.members:
            member.close()
