"""The lists of an XMP packet, read and replaced in its bytes; everything else stays untouched.

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
# the form of an empty list: a property, or a list in it; "/" for a single tag, "" for none
Hollow = Literal["", "property", "property/", "list", "list/"]
HOLLOWS: tuple[Hollow, ...] = get_args(Hollow)


class NotXmp(ValueError):
    """The bytes are not an XMP packet that can be edited; the text says why."""


@dataclass(slots=True)
class Element:
    """One element, and the positions of its tags in the bytes.

    ``[start, inside)`` is the opening tag and ``[after, end)`` the closing one.
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
        """Return the items of a list, [] where there is none.

        Raises NotXmp for a property that is not a list.
        """
        element = self._property(name)
        return [item.text.strip() for item in _items(element, name)] if element else []

    def hollow(self, name: Name) -> Hollow:
        """Return the form of an empty list, "" where it has items or does not exist.

        Raises NotXmp.
        """
        element = self._property(name)
        if element is None or _items(element, name):
            return ""
        if not element.children:
            return "property/" if element.is_single_tag else "property"
        return "list/" if element.children[0].is_single_tag else "list"

    def replace(
        self,
        name: Name,
        remove: Sequence[str],
        add: Sequence[str],
        kind: str = "Bag",
        *,
        hollow: Hollow = "",
    ) -> None:
        """Remove items from a list and append others; a missing list is created.

        A list that becomes empty is left in the form ``hollow``.
        """
        element = self._property(name)
        if element is None:
            if add:
                self._new.append((name, kind, add))
            return
        items = _items(element, name)
        gone = [item for item in items if item.text.strip() in set(remove)]
        if not add and len(gone) == len(items):
            self._empty(element, gone, hollow)
            return
        if not element.children:
            indent = _indent(self.data, element.start) + " "
            self._append(element, self._block(indent, kind, add))
            return
        list_element = element.children[0]
        for item in gone:
            self._cut(item, list_element)
        self._append(
            list_element,
            "".join(self._item(list_element, text) for text in add),
            after=items[-1].end if items else None,
        )

    def _empty(self, element: Element, items: Sequence[Element], hollow: Hollow) -> None:
        """Restore the form that a list had before it held its items."""
        if not hollow:
            block = next(child for child in self._rdf.children if element in child.children)
            self._cut(element, block)
            return
        is_property = hollow.startswith("property") or not element.children
        parent = element if is_property else element.children[0]
        removed = element.children if parent is element else items
        if hollow.endswith("/") and removed and not self._rest(parent, removed):
            self._edits.append((parent.inside - 1, parent.end, b"/>"))
            return
        for child in removed:
            self._cut(child, parent)

    def _rest(self, parent: Element, removed: Sequence[Element]) -> bytes:
        """Return an element's content besides some of its children, without white space."""
        starts = [parent.inside, *(child.end for child in removed)]
        ends = [*(child.start for child in removed), parent.after]
        return b"".join(self.data[a:b].strip() for a, b in zip(starts, ends, strict=True))

    def edited(self) -> bytes:
        """Return the bytes with all replacements made."""
        if self._new:
            self._append_new()
        data = self.data
        for start, end, new in sorted(self._edits, key=lambda edit: edit[:2], reverse=True):
            data = data[:start] + new + data[end:]
        return data

    def _property(self, name: Name) -> Element | None:
        full_name = " ".join(name)
        if any(full_name in block.attributes for block in self._blocks()):
            raise NotXmp(f"its {PREFIXES[name[0]]}:{name[1]} is no list")
        children = (child for block in self._blocks() for child in block.children)
        return next((child for child in children if child.name == full_name), None)

    def _blocks(self) -> Iterator[Element]:
        return (child for child in self._rdf.children if child.name == f"{RDF} Description")

    def _append_new(self) -> None:
        block, rdf = next(self._blocks(), None), self._rdf.prefix
        parent = block or self._rdf
        first = parent.children[0] if block and block.children else None
        indent = (
            _indent(self.data, first.start)
            if first
            else _indent(self.data, parent.start) + (" " if block else "  ")
        )
        text = "".join(
            self._list(parent, indent, name, kind, items) for name, kind, items in self._new
        )
        if block is None:
            text = (
                f"\n{indent[:-1]}<{rdf}:Description "
                f'{rdf}:about="">{text}\n{indent[:-1]}</{rdf}:Description>'
            )
        self._append(parent, text)

    def _list(
        self, parent: Element, indent: str, name: Name, kind: str, items: Sequence[str]
    ) -> str:
        uri, local = name
        bindings = parent.prefixes.items()
        known = next((prefix for prefix, bound_to in bindings if bound_to == uri and prefix), None)
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

    def _append(self, parent: Element, text: str, after: int | None = None) -> None:
        """Insert text after the children of an element, or after the one that ends at ``after``."""
        if not text:
            return
        if parent.is_single_tag:
            tag = self.data[parent.start : parent.end]
            name = re.match(rb"<([^\s/>]+)", tag)[1]  # type: ignore[index]  # it is a tag
            end = b"\n" + _indent(self.data, parent.start).encode() + b"</" + name + b">"
            self._edits.append((parent.end - 2, parent.end, b">" + text.encode() + end))
            return
        position = after or (parent.children[-1].end if parent.children else parent.inside)
        self._edits.append((position, position, text.encode()))

    def _cut(self, element: Element, parent: Element) -> None:
        """Remove an element and the white space before it."""
        index = parent.children.index(element)
        before = parent.children[index - 1].end if index else parent.inside
        start = element.start if self.data[before : element.start].strip() else before
        self._edits.append((start, element.end, b""))


def _items(element: Element, name: Name) -> list[Element]:
    if not element.children and not element.attributes and not element.text.strip():
        return []
    if len(element.children) != 1 or element.children[0].name not in _LISTS:
        raise NotXmp(f"its {PREFIXES[name[0]]}:{name[1]} is no list")
    return [item for item in element.children[0].children if item.name == f"{RDF} li"]


def _indent(data: bytes, start: int) -> str:
    """Return the indent of an element, "" where it is not the first on its line."""
    line = data[data.rfind(b"\n", 0, start) + 1 : start]
    return "" if line.strip() else line.decode()


def _rdf_of(root: Element) -> Element:
    for element in (root, *root.children):
        if element.name == f"{RDF} RDF":
            if not element.prefix:
                raise NotXmp("its rdf:RDF has no prefix")
            return element
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
    """Return "namespace name" and the prefix of a name as expat reports it."""
    uri, local, prefix = (*name.split(_BETWEEN), "")[:3] if _BETWEEN in name else ("", name, "")
    return f"{uri} {local}", prefix


class _Reader:
    """Builds elements from the events of expat.

    It is the parser beneath xml.etree, which does not report the positions of elements.
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
        # a document type can declare entities that expand without end
        raise NotXmp("it declares a document type, which XMP never does")

    def _bind(self, prefix: str | None, uri: str | None) -> None:
        self.prefixes.append((prefix or "", uri or ""))

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        full, prefix = _full_name(name)
        start, above = self.parser.CurrentByteIndex, self.open[-1]
        tag = _TAG.match(self.data, start)
        if tag is None:
            raise NotXmp(f"it has no tag at byte {start}")
        prefixes = {**above.prefixes, **dict(self.prefixes)} if self.prefixes else above.prefixes
        element = Element(
            full,
            prefix,
            start,
            tag.end(),
            prefixes,
            frozenset(_full_name(key)[0] for key in attributes),
        )
        self.prefixes = []
        above.children.append(element)
        self.open.append(element)

    def _end(self, name: str) -> None:
        element = self.open.pop()
        single = self.data[element.inside - 2 : element.inside] == b"/>"
        element.after = element.inside if single else self.parser.CurrentByteIndex
        element.end = element.inside if single else self.data.index(b">", element.after) + 1

    def _text(self, text: str) -> None:
        self.open[-1].text += text
