"""The lists of an XMP packet, read and replaced in its bytes, so that everything else stays as its
writer left it.

XMP is RDF in XML (ISO 16684-1): ``rdf:RDF`` holds ``rdf:Description`` elements, and these hold the
properties; one that is a list holds an ``rdf:Bag`` or ``rdf:Seq`` of ``rdf:li``.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args
from xml.parsers import expat
from xml.sax.saxutils import escape

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
NAMESPACE = "vitsearch:ns/1.0/"
PREFIXES = {
    "http://purl.org/dc/elements/1.1/": "dc",
    "http://ns.adobe.com/lightroom/1.0/": "lr",
    "http://www.digikam.org/ns/1.0/": "digiKam",
    NAMESPACE: "vitsearch",
}
_DECLARED = "".join(f'\n    xmlns:{prefix}="{uri}"' for uri, prefix in PREFIXES.items())
EMPTY = f"""<?xml version="1.0" encoding="UTF-8"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="{RDF}">
  <rdf:Description rdf:about=""{_DECLARED}>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
""".encode()

_TAG = re.compile(rb"""<(?:[^>"']|"[^"]*"|'[^']*')*>""")
_LISTS = {f"{RDF} {kind}" for kind in ("Bag", "Seq", "Alt")}
_BETWEEN = "\n"  # never in a URI or a name
Name = tuple[str, str]  # namespace and local name
Hollow = Literal[
    "", "property", "property/", "list", "list/"
]  # what of a list that holds nothing is there; "/" for a single tag
HOLLOWS: tuple[Hollow, ...] = get_args(Hollow)


class NotXmp(ValueError):
    """The bytes are no XMP packet that can be edited; the text says why."""


@dataclass(slots=True)
class Element:
    """One element, and where its tags are in the bytes: ``[start, inside)`` is the first, ``[after,
    end)`` the last.
    """

    name: str
    prefix: str
    start: int
    inside: int
    prefixes: Mapping[str, str]
    attributes: frozenset[str] = frozenset()
    after: int = 0
    end: int = 0
    text: str = ""
    children: list["Element"] = field(default_factory=list)

    @property
    def is_single_tag(self) -> bool:
        return self.inside == self.end


class Packet:
    """An XMP packet whose lists can be read and replaced.

    Raises NotXmp for bytes that are no well-formed UTF-8 XML, that declare a document type or
    entities, or that hold no ``rdf:RDF``.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._rdf = _rdf_of(_parse(data))
        self._edits: list[tuple[int, int, bytes]] = []
        self._new: list[tuple[Name, str, Sequence[str]]] = []

    def items(self, name: Name) -> list[str]:
        """Return the items of a list, [] where there is none; raises NotXmp for a property that is
        no list.
        """
        found = self._property(name)
        return [item.text.strip() for item in _items(found, name)] if found else []

    def hollow(self, name: Name) -> Hollow:
        """Return what is there of a list that holds nothing, "" where it holds something or is not
        there; raises NotXmp.
        """
        found = self._property(name)
        if found is None or _items(found, name):
            return ""
        if not found.children:
            return "property/" if found.is_single_tag else "property"
        return "list/" if found.children[0].is_single_tag else "list"

    def replace(
        self,
        name: Name,
        remove: Sequence[str],
        add: Sequence[str],
        kind: str = "Bag",
        *,
        hollow: Hollow = "",
    ) -> None:
        """Take items out of a list and put others behind the rest; one not yet there is made.

        Of a list that comes to hold nothing, ``hollow`` stays.
        """
        found = self._property(name)
        if found is None:
            if add:
                self._new.append((name, kind, add))
            return
        items = _items(found, name)
        gone = [item for item in items if item.text.strip() in set(remove)]
        if not add and len(gone) == len(items):
            self._empty(found, gone, hollow)
            return
        if not found.children:
            indent = _indent(self.data, found.start) + " "
            self._append(found, self._block(indent, kind, add))
            return
        within = found.children[0]
        for item in gone:
            self._cut(item, within)
        self._append(
            within,
            "".join(self._item(within, text) for text in add),
            after=items[-1].end if items else None,
        )

    def _empty(self, found: Element, items: Sequence[Element], hollow: Hollow) -> None:
        """Leave of a list what there was before it held its items."""
        if not hollow:
            self._cut(found, next(one for one in self._rdf.children if found in one.children))
            return
        place = found if hollow.startswith("property") or not found.children else found.children[0]
        goes = found.children if place is found else items
        if hollow.endswith("/") and goes and not self._rest(place, goes):
            self._edits.append((place.inside - 1, place.end, b"/>"))
            return
        for one in goes:
            self._cut(one, place)

    def _rest(self, place: Element, goes: Sequence[Element]) -> bytes:
        """Return what stands in an element beside some of its children, without the white space
        around.
        """
        starts = [place.inside, *(one.end for one in goes)]
        return b"".join(
            self.data[a:b].strip()
            for a, b in zip(starts, [*(one.start for one in goes), place.after], strict=True)
        )

    def edited(self) -> bytes:
        """Return the bytes with all replacements made."""
        if self._new:
            self._append_new()
        data = self.data
        for start, end, new in sorted(self._edits, key=lambda edit: edit[:2], reverse=True):
            data = data[:start] + new + data[end:]
        return data

    def _property(self, name: Name) -> Element | None:
        wanted = " ".join(name)
        if any(wanted in block.attributes for block in self._blocks()):
            raise NotXmp(f"its {PREFIXES[name[0]]}:{name[1]} is no list")
        return next(
            (one for block in self._blocks() for one in block.children if one.name == wanted), None
        )

    def _blocks(self) -> Iterator[Element]:
        return (one for one in self._rdf.children if one.name == f"{RDF} Description")

    def _append_new(self) -> None:
        block, rdf = next(self._blocks(), None), self._rdf.prefix
        place = block or self._rdf
        first = place.children[0] if block and block.children else None
        indent = (
            _indent(self.data, first.start)
            if first
            else _indent(self.data, place.start) + (" " if block else "  ")
        )
        text = "".join(
            self._list(place, indent, name, kind, items) for name, kind, items in self._new
        )
        if block is None:
            text = (
                f"\n{indent[:-1]}<{rdf}:Description "
                f'{rdf}:about="">{text}\n{indent[:-1]}</{rdf}:Description>'
            )
        self._append(place, text)

    def _list(
        self, place: Element, indent: str, name: Name, kind: str, items: Sequence[str]
    ) -> str:
        uri, local = name
        known = next(
            (prefix for prefix, bound in place.prefixes.items() if bound == uri and prefix), None
        )
        prefix = known or PREFIXES[uri]
        declared = "" if known else f' xmlns:{prefix}="{uri}"'
        block = self._block(indent + " ", kind, items)
        return f"\n{indent}<{prefix}:{local}{declared}>{block}\n{indent}</{prefix}:{local}>"

    def _block(self, indent: str, kind: str, items: Sequence[str]) -> str:
        rdf = self._rdf.prefix
        lines = "".join(f"\n{indent} <{rdf}:li>{escape(item)}</{rdf}:li>" for item in items)
        return f"\n{indent}<{rdf}:{kind}>{lines}\n{indent}</{rdf}:{kind}>"

    def _item(self, within: Element, text: str) -> str:
        indent = _indent(
            self.data, within.children[0].start if within.children else within.start
        ) + ("" if within.children else " ")
        tag = f"{within.prefix}:li" if within.prefix else "li"
        return f"\n{indent}<{tag}>{escape(text)}</{tag}>"

    def _append(self, place: Element, text: str, after: int | None = None) -> None:
        """Put text behind the children of an element, or behind the one that ends at ``after``."""
        if not text:
            return
        if place.is_single_tag:
            tag = self.data[place.start : place.end]
            name = re.match(rb"<([^\s/>]+)", tag)[1]  # type: ignore[index]  # it is a tag
            end = b"\n" + _indent(self.data, place.start).encode() + b"</" + name + b">"
            self._edits.append((place.end - 2, place.end, b">" + text.encode() + end))
            return
        at = after or (place.children[-1].end if place.children else place.inside)
        self._edits.append((at, at, text.encode()))

    def _cut(self, one: Element, parent: Element) -> None:
        """Take an element out, with the white space in front of it."""
        place = parent.children.index(one)
        before = parent.children[place - 1].end if place else parent.inside
        start = one.start if self.data[before : one.start].strip() else before
        self._edits.append((start, one.end, b""))


def _items(found: Element, name: Name) -> list[Element]:
    if not found.children and not found.attributes and not found.text.strip():
        return []
    if len(found.children) != 1 or found.children[0].name not in _LISTS:
        raise NotXmp(f"its {PREFIXES[name[0]]}:{name[1]} is no list")
    return [item for item in found.children[0].children if item.name == f"{RDF} li"]


def _indent(data: bytes, start: int) -> str:
    """Return the white space between the start of a line and an element, "" where other things
    stand between.
    """
    line = data[data.rfind(b"\n", 0, start) + 1 : start]
    return "" if line.strip() else line.decode()


def _rdf_of(root: Element) -> Element:
    for one in (root, *root.children):
        if one.name == f"{RDF} RDF":
            if not one.prefix:
                raise NotXmp("its rdf:RDF has no prefix")
            return one
    raise NotXmp("it is XML, but holds no rdf:RDF")


def _parse(data: bytes) -> Element:
    """Return the root of the elements; raises NotXmp."""
    try:
        data.decode("utf-8")
        return _Reader(data).root
    except UnicodeDecodeError as error:
        raise NotXmp(f"it is not UTF-8 text ({error.reason} at byte {error.start})") from error
    except expat.ExpatError as error:
        raise NotXmp(f"it is not well-formed XML: {error}") from error


def _full_name(name: str) -> tuple[str, str]:
    """Return the namespace and the local name with a space between, and the prefix, of a name as
    expat gives it.
    """
    uri, local, prefix = (*name.split(_BETWEEN), "")[:3] if _BETWEEN in name else ("", name, "")
    return f"{uri} {local}", prefix


class _Reader:
    """Makes elements of what expat says, the parser beneath xml.etree, which does not tell where an
    element stands.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.open = [Element("", "", 0, 0, {})]
        self.prefixes: list[tuple[str, str]] = []
        self.parser = expat.ParserCreate(namespace_separator=_BETWEEN)
        self.parser.namespace_prefixes = True
        self.parser.buffer_text = True
        self.parser.XmlDeclHandler = self._declaration
        self.parser.StartDoctypeDeclHandler = self._doctype
        self.parser.StartNamespaceDeclHandler = self._bind
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text
        self.parser.Parse(data, True)
        self.root = self.open[0].children[0]

    def _declaration(self, version: str, encoding: str | None, standalone: int) -> None:
        if encoding is not None and encoding.lower() not in ("utf-8", "utf8"):
            raise NotXmp(f"it is in {encoding}, not in UTF-8")

    def _doctype(self, *_: object) -> None:
        raise NotXmp(
            "it declares a document type, which XMP never does"
        )  # and with it entities, that could grow without end

    def _bind(self, prefix: str | None, uri: str | None) -> None:
        self.prefixes.append((prefix or "", uri or ""))

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        full, prefix = _full_name(name)
        start, above = self.parser.CurrentByteIndex, self.open[-1]
        tag = _TAG.match(self.data, start)
        if tag is None:
            raise NotXmp(f"it has no tag at byte {start}")
        bound = {**above.prefixes, **dict(self.prefixes)} if self.prefixes else above.prefixes
        one = Element(
            full,
            prefix,
            start,
            tag.end(),
            bound,
            frozenset(_full_name(key)[0] for key in attributes),
        )
        self.prefixes = []
        above.children.append(one)
        self.open.append(one)

    def _end(self, name: str) -> None:
        one = self.open.pop()
        single = self.data[one.inside - 2 : one.inside] == b"/>"
        one.after = one.inside if single else self.parser.CurrentByteIndex
        one.end = one.inside if single else self.data.index(b">", one.after) + 1

    def _text(self, text: str) -> None:
        self.open[-1].text += text
