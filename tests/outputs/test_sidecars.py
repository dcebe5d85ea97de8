"""XMP sidecars, read back by ElementTree: what is written, and what of the user's stays to the
byte.
"""

import os
import stat
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitsearch.labels import labels
from vitsearch.outputs import sidecars as write
from vitsearch.outputs.sidecars import SidecarReport, labelled, write_sidecars
from vitsearch.outputs.xmp import EMPTY, NAMESPACE, NotXmp, Packet
from vitsearch.types import Prediction

SPACES = {
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "dc": "http://purl.org/dc/elements/1.1/",
    "lr": "http://ns.adobe.com/lightroom/1.0/",
    "digiKam": "http://www.digikam.org/ns/1.0/",
    "vitsearch": NAMESPACE,
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "darktable": "http://darktable.sf.net/",
}
LISTS = (
    "dc:subject",
    "lr:hierarchicalSubject",
    "digiKam:TagsList",
    "vitsearch:labels",
    "vitsearch:scores",
)
DARKTABLE = b"""\xef\xbb\xbf<?xml version="1.0" encoding="UTF-8"?>
<?xpacket begin='' id='W5M0MpCehiHzreSzNTczkc9d'?><!-- mine -->
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="XMP Core 4.4.0-Exiv2">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about='' a:odd = "1 > 2" xmlns:a="x:y"
    xmlns:xmp="http://ns.adobe.com/xap/1.0/"
    xmlns:darktable="http://darktable.sf.net/"
    xmlns:dcs="http://purl.org/dc/elements/1.1/"
   xmp:Rating="4">
   <darktable:history><![CDATA[<b> & "c"]]>&#13;</darktable:history>
   <dcs:subject>
    <rdf:Seq>
     <rdf:li>\xc3\xa9t\xc3\xa9</rdf:li>
     <!-- kept --><rdf:li>dog</rdf:li>
    </rdf:Seq>
   </dcs:subject>
   <o:unknown xmlns:o="other:ns/">1</o:unknown>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end='w'?>
"""


def one(path: str, *names: str) -> list[Prediction]:
    return [Prediction(path, name, 0.5 + 0.01 * len(name)) for name in names]


def lists(data: bytes) -> dict[str, list[str | None]]:
    """Return the lists of a packet that are there, as an independent reader sees them."""
    root = ET.fromstring(data)
    found = {name: root.findall(f".//rdf:Description/{name}", SPACES) for name in LISTS}
    assert all(len(one) < 2 for one in found.values())
    return {
        name: [item.text for item in one[0].findall("./*/rdf:li", SPACES)]
        for name, one in found.items()
        if one
    }


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    (tmp_path / "dog.jpg").write_bytes(b"a photo")
    return tmp_path / "dog.jpg"


def test_a_sidecar_is_made_beside_the_photo(photo: Path) -> None:
    assert write_sidecars(
        one("dog.jpg", "animal > dog", "out & <about>"), root=photo.parent
    ) == SidecarReport(1, 0, ())
    assert sorted(os.listdir(photo.parent)) == ["dog.jpg", "dog.jpg.xmp"]
    assert photo.read_bytes() == b"a photo"
    assert (
        (photo.parent / "dog.jpg.xmp").read_text()
        == f"""<?xml version="1.0" encoding="UTF-8"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:dc="http://purl.org/dc/elements/1.1/"
    xmlns:lr="http://ns.adobe.com/lightroom/1.0/"
    xmlns:digiKam="http://www.digikam.org/ns/1.0/"
    xmlns:vitsearch="{NAMESPACE}">
   <dc:subject>
    <rdf:Bag>
     <rdf:li>animal</rdf:li>
     <rdf:li>dog</rdf:li>
     <rdf:li>out &amp; &lt;about&gt;</rdf:li>
    </rdf:Bag>
   </dc:subject>
   <vitsearch:addedSubject>
    <rdf:Seq>
     <rdf:li>animal</rdf:li>
     <rdf:li>dog</rdf:li>
     <rdf:li>out &amp; &lt;about&gt;</rdf:li>
    </rdf:Seq>
   </vitsearch:addedSubject>
   <lr:hierarchicalSubject>
    <rdf:Bag>
     <rdf:li>animal|dog</rdf:li>
     <rdf:li>out &amp; &lt;about&gt;</rdf:li>
    </rdf:Bag>
   </lr:hierarchicalSubject>
   <vitsearch:addedHierarchicalSubject>
    <rdf:Seq>
     <rdf:li>animal|dog</rdf:li>
     <rdf:li>out &amp; &lt;about&gt;</rdf:li>
    </rdf:Seq>
   </vitsearch:addedHierarchicalSubject>
   <digiKam:TagsList>
    <rdf:Seq>
     <rdf:li>animal/dog</rdf:li>
     <rdf:li>out &amp; &lt;about&gt;</rdf:li>
    </rdf:Seq>
   </digiKam:TagsList>
   <vitsearch:addedTagsList>
    <rdf:Seq>
     <rdf:li>animal/dog</rdf:li>
     <rdf:li>out &amp; &lt;about&gt;</rdf:li>
    </rdf:Seq>
   </vitsearch:addedTagsList>
   <vitsearch:labels>
    <rdf:Seq>
     <rdf:li>animal &gt; dog</rdf:li>
     <rdf:li>out &amp; &lt;about&gt;</rdf:li>
    </rdf:Seq>
   </vitsearch:labels>
   <vitsearch:scores>
    <rdf:Seq>
     <rdf:li>0.6200</rdf:li>
     <rdf:li>0.6300</rdf:li>
    </rdf:Seq>
   </vitsearch:scores>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
"""
    )


def test_a_label_without_levels_is_a_flat_keyword() -> None:
    assert lists(labelled(EMPTY, one("", "dog", "cat"))) == {
        "dc:subject": ["dog", "cat"],
        "vitsearch:labels": ["dog", "cat"],
        "vitsearch:scores": ["0.5300", "0.5300"],
    }


def test_everything_else_stays_to_the_byte() -> None:
    done = labelled(DARKTABLE, one("", "animal > dog"))
    assert lists(done) == {
        "dc:subject": ["été", "dog", "animal"],
        "lr:hierarchicalSubject": ["animal|dog"],
        "digiKam:TagsList": ["animal/dog"],
        "vitsearch:labels": ["animal > dog"],
        "vitsearch:scores": ["0.6200"],
    }
    rest = iter(done.splitlines(keepends=True))
    assert [
        line for line in DARKTABLE.splitlines(keepends=True) if line not in rest
    ] == []  # all its lines, in order
    assert labelled(done, one("", "animal > dog")) == done
    assert labelled(done, []) == DARKTABLE
    assert labelled(labelled(done, one("", "x")), []) == DARKTABLE


def test_new_labels_replace_ours_and_never_the_users() -> None:
    first = labelled(DARKTABLE, one("", "dog", "cat"))
    assert lists(first)["dc:subject"] == ["été", "dog", "cat"]
    mine = first.replace(
        b"<rdf:li>cat</rdf:li>", b"<rdf:li>cat</rdf:li><rdf:li>added later</rdf:li>", 1
    )
    second = labelled(mine, one("", "bird"))
    assert lists(second)["dc:subject"] == ["été", "dog", "added later", "bird"]
    assert lists(second)["vitsearch:labels"] == ["bird"]


def test_lists_of_paths_that_the_user_has_get_flat_labels_too() -> None:
    mine = labelled(EMPTY, one("", "place > Rome"))
    for ours in (
        b"labels",
        b"scores",
        b"addedSubject",
        b"addedHierarchicalSubject",
        b"addedTagsList",
    ):
        mine = mine.replace(b"vitsearch:" + ours, b"xmp:" + ours)
    mine = mine.replace(
        b"xmlns:vitsearch", b'xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:vitsearch'
    )
    done = lists(labelled(mine, one("", "AC/DC", "a|b")))
    assert done["digiKam:TagsList"] == ["place/Rome", "AC-DC", "a|b"]
    assert done["lr:hierarchicalSubject"] == ["place|Rome", "AC/DC", "a-b"]
    assert done["dc:subject"] == ["place", "Rome", "AC/DC", "a|b"]
    assert labelled(labelled(mine, one("", "AC/DC")), []) == mine


@pytest.mark.parametrize(
    "body",
    [
        '<rdf:RDF xmlns:rdf="{rdf}"/>',
        '<rdf:RDF xmlns:rdf="{rdf}"></rdf:RDF>',
        (
            '<x:meta xmlns:x="adobe:ns:meta/"><r:RDF xmlns:r="{rdf}"><r:Description '
            'r:about="uuid:1" '
            'xmlns:s="s:" s:a="1"/></r:RDF></x:meta>'
        ),
        (
            '<r:RDF xmlns:r="{rdf}"><r:Description><subject xmlns="{dc}"><Bag '
            'xmlns="{rdf}"/></subject></r:Description></r:RDF>'
        ),
        (
            '<r:RDF xmlns:r="{rdf}"><r:Description '
            'xmlns:dc="other:"><dc:subject>x</dc:subject></r:Description><r:Description/></r:RDF>'
        ),
        (
            '<r:RDF xmlns:r="{rdf}"><r:Description '
            'xmlns:d="{dc}"><d:subject><r:Bag><r:li>c</r:li></r:Bag></d:subject>'
            "</r:Description></r:RDF>"
        ),
    ],
)
def test_packets_of_any_shape(body: str) -> None:
    packet = body.format(**SPACES).encode()
    done = labelled(packet, one("", "a > b"))
    users = lists(packet).get("dc:subject", [])
    assert lists(done) == {
        "dc:subject": [*users, "a", "b"],
        "lr:hierarchicalSubject": ["a|b"],
        "digiKam:TagsList": ["a/b"],
        "vitsearch:labels": ["a > b"],
        "vitsearch:scores": ["0.5500"],
    }
    assert b"ns0" not in done
    assert labelled(done, one("", "a > b")) == done
    assert lists(labelled(done, [])) == lists(packet)


@pytest.mark.parametrize(
    "subject",
    [
        b"<dc:subject/>",
        b"<dc:subject />",
        b"<dc:subject></dc:subject>",
        b"<dc:subject>\n  </dc:subject>",
        b"<dc:subject><!-- none --></dc:subject>",
        b"<dc:subject><rdf:Bag/></dc:subject>",
        b"<dc:subject>\n    <rdf:Seq />\n   </dc:subject>",
        b"<dc:subject><rdf:Bag></rdf:Bag></dc:subject>",
        b"<dc:subject><rdf:Bag>\n\t<!-- none -->\n</rdf:Bag></dc:subject>",
    ],
)
def test_an_empty_list_of_the_users_comes_back(subject: bytes) -> None:
    packet = EMPTY.replace(b"  </rdf:Description>", b"   " + subject + b"\n  </rdf:Description>")
    assert labelled(packet, []) == packet
    done = labelled(packet, one("", "a > b"))
    assert lists(done)["dc:subject"] == ["a", "b"]
    assert labelled(done, one("", "a > b")) == done
    other = labelled(done, one("", "c"))
    assert lists(other) == {
        "dc:subject": ["c"],
        "vitsearch:labels": ["c"],
        "vitsearch:scores": ["0.5100"],
    }
    for after in (done, other):
        assert labelled(after, []) == packet
    mine = done.replace(b"<rdf:li>a</rdf:li>", b"<rdf:li>a</rdf:li><rdf:li>mine</rdf:li>", 1)
    assert lists(labelled(mine, [])) == {"dc:subject": ["mine"]}


def test_a_property_that_says_something_else_is_no_list() -> None:
    for subject in (b'<dc:subject rdf:resource="x:"/>', b"<dc:subject>dog</dc:subject>"):
        packet = EMPTY.replace(b"  </rdf:Description>", subject + b"</rdf:Description>")
        with pytest.raises(NotXmp, match="^its dc:subject is no list$"):
            labelled(packet, one("", "a"))


WORD = st.text(st.characters(exclude_categories=()), max_size=8) | st.sampled_from(
    ["a", "b", "été", "dog"]
)
NAMES = st.lists(st.lists(WORD, min_size=1, max_size=3).map(" > ".join), max_size=4)


@given(NAMES, NAMES)
def test_any_labels_are_written_and_taken_back(first: list[str], second: list[str]) -> None:
    empty = b"<dc:subject/> <lr:hierarchicalSubject><rdf:Bag/></lr:hierarchicalSubject>"
    hollow = EMPTY.replace(b"  </rdf:Description>", empty + b"</rdf:Description>")
    for packet in (EMPTY, DARKTABLE, hollow):
        done = labelled(packet, one("", *first))
        assert labelled(done, one("", *first)) == done
        again = labelled(done, one("", *second))
        assert {name: sorted(map(str, items)) for name, items in lists(again).items()} == {
            name: sorted(map(str, items))
            for name, items in lists(labelled(packet, one("", *second))).items()
        }
        assert labelled(again, []) == packet


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "it is not well-formed XML: no element found"),
        (b"not XML", "it is not well-formed XML: syntax error"),
        (EMPTY[:-20], "it is not well-formed XML"),
        (EMPTY.decode().encode("utf-16"), "it is not UTF-8 text"),
        (EMPTY.replace(b"UTF-8", b"latin-1"), "it is in latin-1, not in UTF-8"),
        (b"<html><body/></html>", "it is XML, but holds no rdf:RDF"),
        (
            b'<!DOCTYPE x [<!ENTITY a "aa">]><x>&a;</x>',
            "it declares a document type, which XMP never does",
        ),
        (DARKTABLE.replace(b"rdf:Seq", b"rdf:Other"), "its dc:subject is no list"),
        (
            DARKTABLE.replace(b"xmp:Rating", b'dcs:subject="x" xmp:Rating'),
            "its dc:subject is no list",
        ),
    ],
)
def test_a_sidecar_that_is_no_xmp_stays_and_is_named(photo: Path, data: bytes, words: str) -> None:
    sidecar = photo.parent / "dog.jpg.xmp"
    sidecar.write_bytes(data)
    report = write_sidecars(one("dog.jpg", "dog"), root=photo.parent)
    ((path, reason),) = report.problems
    assert (report.written, report.unchanged, path) == (0, 0, "dog.jpg")
    assert reason.startswith(f"its sidecar dog.jpg.xmp is left as it is: {words}")
    assert "\n" not in reason
    assert (sidecar.read_bytes(), len(os.listdir(photo.parent))) == (data, 2)


def test_a_sidecar_that_is_too_large_stays(photo: Path) -> None:
    with open(photo.parent / "dog.jpg.xmp", "wb") as file:
        file.truncate(write.MAX_BYTES + 1)
    report = write_sidecars(one("dog.jpg", "dog"), root=photo.parent)
    assert report.problems == (
        ("dog.jpg", "its sidecar dog.jpg.xmp is left as it is: it is larger than 16 MB"),
    )


@pytest.mark.parametrize(
    ("beside", "written"),
    [
        ([], "dog.jpg.xmp"),
        (["dog.xmp"], "dog.xmp"),
        (["dog.XMP"], "dog.XMP"),
        (["dog.jpg.XMP", "dog.xmp"], "dog.jpg.XMP"),
        (["dog.xmp", "dog.CR2"], "dog.jpg.xmp"),
        (["dog.xmp", "DOG.png"], "dog.jpg.xmp"),
        (["dog.xmp", "doggy.png"], "dog.xmp"),
    ],
)
def test_which_sidecar_is_the_photos(photo: Path, beside: list[str], written: str) -> None:
    for name in beside:
        (photo.parent / name).write_bytes(EMPTY)
    assert write_sidecars(one("dog.jpg", "dog"), root=photo.parent).written == 1
    changed = [
        name
        for name in os.listdir(photo.parent)
        if (photo.parent / name).read_bytes() not in (EMPTY, b"a photo")
    ]
    assert changed == [written]


def test_writing_again_changes_nothing(photo: Path) -> None:
    sidecar = photo.parent / "dog.jpg.xmp"
    write_sidecars(one("dog.jpg", "dog"), root=photo.parent)
    sidecar.chmod(0o640)
    before = (sidecar.read_bytes(), sidecar.stat().st_mtime_ns, sidecar.stat().st_ino)
    assert write_sidecars(one("dog.jpg", "dog"), root=photo.parent) == SidecarReport(0, 1, ())
    assert (sidecar.read_bytes(), sidecar.stat().st_mtime_ns, sidecar.stat().st_ino) == before
    assert write_sidecars(one("dog.jpg", "cat"), root=photo.parent) == SidecarReport(1, 0, ())
    assert stat.S_IMODE(sidecar.stat().st_mode) == 0o640


def test_photos_that_no_longer_have_a_label_lose_ours(photo: Path) -> None:
    (photo.parent / "sub").mkdir()
    (photo.parent / "sub" / "cat.jpg").write_bytes(b"")
    (photo.parent / "dog.jpg.xmp").write_bytes(DARKTABLE)
    write_sidecars(one("dog.jpg", "bird"), root=photo.parent)
    assert write_sidecars(
        [], root=photo.parent, photos=["dog.jpg", "sub/cat.jpg"]
    ) == SidecarReport(1, 0, ())
    assert (photo.parent / "dog.jpg.xmp").read_bytes() == DARKTABLE
    assert os.listdir(photo.parent / "sub") == ["cat.jpg"]


def test_what_cannot_be_written_is_named_and_the_rest_goes_on(photo: Path) -> None:
    (photo.parent / "b.jpg").write_bytes(b"")
    (photo.parent / "b.jpg.xmp").mkdir()
    found = [*one("b.jpg", "x"), *one("dog.jpg", "x"), *one("gone.jpg", "x"), *one("", "x")]
    assert write_sidecars(found, root=photo.parent) == SidecarReport(
        1,
        0,
        (
            ("", "the photo is gone: index again"),
            ("b.jpg", "its sidecar b.jpg.xmp is left as it is: it is no file, or a broken link"),
            ("gone.jpg", "the photo is gone: index again"),
        ),
    )
    assert sorted(os.listdir(photo.parent)) == ["b.jpg", "b.jpg.xmp", "dog.jpg", "dog.jpg.xmp"]


def test_a_linked_sidecar_stays_a_link(
    photo: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    real = tmp_path_factory.mktemp("elsewhere") / "real.xmp"
    real.write_bytes(DARKTABLE)
    (photo.parent / "dog.jpg.xmp").symlink_to(real)
    write_sidecars(one("dog.jpg", "bird"), root=photo.parent)
    assert (photo.parent / "dog.jpg.xmp").is_symlink()
    assert lists(real.read_bytes())["dc:subject"] == ["été", "dog", "bird"]


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names are Unicode there")
def test_names_that_are_not_text(tmp_path: Path) -> None:
    odd = os.fsdecode(b"bad\xff byte.png")
    (tmp_path / odd).write_bytes(b"")
    assert write_sidecars(one(odd, os.fsdecode(b"caf\xe9")), root=tmp_path) == SidecarReport(
        1, 0, ()
    )
    assert lists((tmp_path / f"{odd}.xmp").read_bytes())["dc:subject"] == ["caf\ufffd"]


def test_a_packet_is_read_where_its_elements_stand() -> None:
    assert Packet(DARKTABLE).items((SPACES["dc"], "subject")) == ["été", "dog"]
    assert Packet(DARKTABLE).edited() == DARKTABLE
    with pytest.raises(NotXmp, match="its rdf:RDF has no prefix"):
        Packet(f'<RDF xmlns="{SPACES["rdf"]}"/>'.encode())
    assert write.LEVEL_SEPARATOR == labels.LEVEL_SEPARATOR
