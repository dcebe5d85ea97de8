"""`search`, `similar` and `dupes`: every wish on the command line says what the library says."""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

from helpers.cli import vitsearch
from helpers.photos import paint
from vitsearch import Collection, index_folder
from vitsearch.cli.demo import copy_samples
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.errors import CollectionError


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven photos: reds with dates, an equal file, a look-alike, and other colours in folders."""
    folder = tmp_path_factory.mktemp("shelf") / "photos"
    for name, colours, year in (
        ("a.png", ["red"], 2018),
        ("italy/b.png", ["red", "red", "red", "blue"], 2019),
        ("italy/rome/c.png", ["red", "blue"], 2020),
        ("spain/d.png", ["blue"], 2021),
        ("spain/e.png", ["green"], None),
    ):
        dated(paint(folder / name, *colours), year)
    shutil.copyfile(folder / "a.png", folder / "copy of a.png")
    paint(folder / "italy/like a.png", "red", size=(30, 20))  # the same colour in another file
    index_folder(folder, encoder=ColourEncoder())
    return folder


def dated(file: Path, year: int | None) -> None:
    """Give a picture its EXIF date."""
    if year is None:
        return
    image = Image.open(file)
    exif = Image.Exif()
    exif[0x8769] = {0x9003: f"{year}:07:14 12:00:00"}
    image.save(file, "PNG", exif=exif)


def paths(*arguments: str | Path) -> list[str]:
    done = vitsearch(*arguments, "--paths")
    assert done.returncode == (0 if done.stdout else 1)
    assert done.stderr.startswith(b"" if done.stdout else b"vitsearch: nothing found: ")
    assert done.stderr.count(b"\n") == (0 if done.stdout else 1)
    return done.stdout.decode().splitlines()


REDS = ["a.png", "copy of a.png", "italy/like a.png"]
ALL = [*REDS, "italy/b.png", "italy/rome/c.png", "spain/d.png", "spain/e.png"]


def test_search_without_wishes(shelf: Path) -> None:
    assert paths("search", shelf, "red") == ALL


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["--where", "year >= 2019 and path like 'italy/%'"], ["italy/b.png", "italy/rome/c.png"]),
        (["--where", "taken_at is null"], ["italy/like a.png", "spain/e.png"]),
        (["--after", "2019", "--before", "2021"], ["italy/b.png", "italy/rome/c.png"]),
        (["--after", "2020-07-15"], ["spain/d.png"]),
        (["--under", "italy"], ["italy/like a.png", "italy/b.png", "italy/rome/c.png"]),
        (["--under", "italy/rome/"], ["italy/rome/c.png"]),
        (["--under", "italy", "--where", "year = 2019"], ["italy/b.png"]),
        (["--under", "."], ALL),
        (["--min-score", "0.5"], ALL[:5]),
        (["--min-score", "1"], REDS),
        (["--min-score", "0.5", "-k", "2"], ALL[:2]),
        (["--min-score", "-1"], ALL),
        (["--offset", "3", "-k", "2"], ALL[3:5]),
        (["--offset", "50"], []),
        (
            ["--collapse"],
            ["a.png", "italy/b.png", "italy/rome/c.png", "spain/d.png", "spain/e.png"],
        ),
        (["--collapse", "--min-score", "0.8"], ["a.png", "italy/b.png"]),
        (["--where", "year = 1999"], []),
    ],
    ids=str,
)
def test_wishes(shelf: Path, options: list[str], wanted: list[str]) -> None:
    assert paths("search", shelf, "red", *options) == wanted


def test_the_command_line_says_what_the_library_says(shelf: Path) -> None:
    with Collection.open(shelf) as found:
        diverse = found.search("red", 4, diverse=0.7, where="path is not null")
        alike = found.similar("a.png", 3, offset=1, collapse=True)
    assert [hit.path for hit in diverse[:2]] == ["a.png", "spain/d.png"]
    rows = vitsearch(
        "search", shelf, "red", "-k", "4", "--diverse", "0.7", "--json"
    ).stdout.splitlines()
    assert [json.loads(row) for row in rows] == [
        {"path": hit.path, "score": round(hit.score, 6), "file": str(shelf / hit.path)}
        for hit in diverse
    ]
    assert paths("similar", shelf, "a.png", "-k", "3", "--offset", "1", "--collapse") == [
        hit.path for hit in alike
    ]
    assert paths("similar", shelf, "a.png", "--under", "spain") == ["spain/d.png", "spain/e.png"]


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--where", "yeer = 2019"], 1, "there is no column 'yeer' (did you mean year?)"),
        (["--where", "year = "], 1, "cannot read the filter at character 8"),
        (["--where", ""], 1, "the filter is empty"),
        (["--after", "yesterday"], 1, "yesterday"),
        (["--under", "../other"], 1, "under is a folder in the photo folder"),
        (["--under", "/"], 1, "under is a folder in the photo folder"),
        (["--min-score", "1.5"], 2, "--min-score"),
        (["--min-score", "nan"], 1, "a score is a cosine from -1 to 1, not nan"),
        (["--offset", "-1"], 2, "--offset"),
        (["--diverse", "2"], 2, "--diverse"),
        (["-0"], 2, "-0 goes with --paths"),
        (["--sheet", "sheet.gif"], 1, "a contact sheet is a .png, .jpg or .html file"),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "command", [["search", "red"], ["similar", "a.png"]], ids=["search", "similar"]
)
def test_what_is_wrong_is_said_in_one_line(
    shelf: Path, command: list[str], options: list[str], code: int, words: str
) -> None:
    done = vitsearch(command[0], shelf, command[1], *options)
    assert (done.returncode, done.stdout) == (code, b"")
    assert re.fullmatch(r"vitsearch: [^\n]+\n", done.stderr.decode())
    assert words in done.stderr.decode()


# -- what words say, leading minuses, several collections ------------------------------------------


def test_what_was_understood_is_said(shelf: Path) -> None:
    done = vitsearch("search", shelf, "red in 2019", "--json")
    assert done.stderr.decode() == (
        'vitsearch: understood [2019]: photos like "red" (--literal searches for all words)\n'
    )
    assert [json.loads(row) for row in done.stdout.splitlines()] == [
        {
            "path": "italy/b.png",
            "score": 0.86608,
            "file": str(shelf / "italy/b.png"),
            "understood": ["2019"],
        }
    ]
    assert paths("search", shelf, "red in 2019", "--literal") == ALL
    newest = vitsearch("search", shelf, "since 2019")
    assert newest.stdout.decode().splitlines() == [
        f"{year}-07-14 12:00:00\t{path}"
        for year, path in ((2021, "spain/d.png"), (2020, "italy/rome/c.png"), (2019, "italy/b.png"))
    ]
    none = vitsearch("search", shelf, "red 2015")
    assert (none.returncode, none.stdout) == (1, b"")


@pytest.mark.parametrize(
    "arguments",
    [
        ["- red", "-k", "2"],
        ["-k", "2", "- red"],
        ["-red", "-k2"],
        ["--", "- red", "-k", "2"],
        ["--minus", "red", "-k", "2"],
        ["-k", "2", "--", "-red"],
    ],
    ids=str,
)
def test_a_query_may_begin_with_a_minus(shelf: Path, arguments: list[str]) -> None:
    assert paths("search", shelf, *arguments) == ["spain/d.png", "spain/e.png"]


@pytest.mark.parametrize("query", ["->", "-5", "-5 degrees", "--> exit", "-:", "~50 people"])
def test_signs_that_are_words_are_no_options(shelf: Path, query: str) -> None:
    assert sorted(paths("search", shelf, query, "-k", "9")) == sorted(ALL)


def test_a_long_caption_is_a_query(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    paint(folder / "a.png", "red")
    index_folder(folder)
    done = vitsearch("search", folder, "a red wall and nothing else " * 20, "--min-relevance", "0")
    assert (done.returncode, done.stdout.split(b"\t")[1]) == (0, b"a.png")


def test_a_photo_whose_name_begins_with_a_minus(shelf: Path, tmp_path: Path) -> None:
    shutil.copyfile(shelf / "a.png", tmp_path / "-dash.png")
    for name in ("-dash.png", "./-dash.png"):
        done = vitsearch("similar", shelf, "-k", "1", "--paths", "--", name, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (0, b"a.png\n")


def test_an_empty_collection_says_that_nothing_is_indexed_yet(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    with pytest.raises(CollectionError):
        index_folder(tmp_path, collection=tmp_path / "c", encoder=ColourEncoder())
    done = vitsearch("search", tmp_path, "red", "--collection", tmp_path / "c")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.decode() == (
        "vitsearch: nothing found: no photo is indexed yet: wait for "
        f"`vitsearch index {tmp_path} --collection {tmp_path / 'c'}`, or run it again\n"
    )


def test_terms_by_plus_and_minus(shelf: Path) -> None:
    expected = paths("search", shelf, "red + blue - green")
    assert paths("search", shelf, "red", "--plus", "blue", "--minus", "green") == expected
    assert paths("search", shelf, "--plus", "red") == ALL


def test_the_collection_is_named_by_a_folder_below_or_by_itself(shelf: Path) -> None:
    def below(*arguments: str) -> list[str]:
        done = vitsearch(*arguments, "--paths", cwd=shelf / "italy")
        assert (done.returncode, done.stderr) == (0, b"")
        return done.stdout.decode().splitlines()

    assert below("search", "red") == ALL
    assert below("similar", "b.png", "-k", "1") == ["italy/rome/c.png"]
    assert below("dupes", "--only", "equal") == ["a.png", "copy of a.png", ""]
    assert paths("search", shelf / ".vitsearch", "red") == ALL
    assert vitsearch("info", cwd=shelf / "italy").stdout.startswith(b"photos")


def test_several_collections_are_one_list(shelf: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    dated(paint(other / "z.png", "red"), 2019)
    index_folder(other, encoder=ColourEncoder())
    rows = vitsearch("search", shelf, other, "red in 2019", "--json").stdout.splitlines()
    assert [json.loads(row) for row in rows] == [
        {"path": path, "score": score, "file": str(folder / path), "collection": str(folder),
         "understood": ["2019"]}
        for path, score, folder in (("z.png", 1.0, other), ("italy/b.png", 0.86608, shelf))
    ]  # fmt: skip
    files = [str(shelf / path) for path in REDS]
    assert paths("search", shelf, other, "red", "-k", "4") == sorted([*files, str(other / "z.png")])
    sheet = tmp_path / "sheet.html"
    assert vitsearch("search", shelf, other, "red", "-k", "4", "--sheet", sheet).returncode == 0
    assert sheet.read_text(encoding="utf-8").count("<img") == 4


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["SHELF"], 2, "say what to search for"),
        ([], 2, "say what to search for"),
        (["SHELF", "SHELF", "red", "--collection", "x"], 2, "goes with one folder"),
        (["SHELF", "nowhere", "red"], 1, "no such folder: nowhere"),
        (["SHELF", "a", "cat"], 1, 'put a query of several words in quotes: "a cat"'),
        (["red"], 1, "in a folder above it"),
    ],
    ids=str,
)
def test_which_collection_is_said_in_one_line(
    shelf: Path, tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    named = [str(shelf) if each == "SHELF" else each for each in arguments]
    done = vitsearch("search", *named, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (code, b"")
    assert re.fullmatch(r"vitsearch: [^\n]+\n", done.stderr.decode())
    assert words in done.stderr.decode()


def test_a_folder_that_has_changed_is_told(shelf: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(shelf, tmp_path / "photos")
    index_folder(folder, encoder=ColourEncoder())
    assert vitsearch("search", folder, "red").stderr == b""
    later = (folder / ".vitsearch" / "walked").stat().st_mtime + 5
    os.utime(folder / "spain", (later, later))
    assert vitsearch("search", folder, "red").stderr.decode() == (
        f"vitsearch: {folder / 'spain'} has changed since `vitsearch index {folder}`: run it again "
        "to take in new photos\n"
    )


# -- dupes -----------------------------------------------------------------------------------------


def test_dupes_are_two_lists(shelf: Path) -> None:
    done = vitsearch("dupes", shelf, "--vectors-only")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().splitlines() == [
        "equal files: 1 group, 2 photos",
        "",
        "  a.png  (keep: the shortest path)",
        "  copy of a.png",
        "",
        "look-alikes: 1 group, 2 photos",
        "",
        "  1.0000  a.png",
        "  1.0000  italy/like a.png  (keep: more pixels)",
    ]
    rows = [
        json.loads(row)
        for row in vitsearch("dupes", shelf, "--vectors-only", "--json")
        .stdout.decode("ascii")
        .splitlines()
    ]
    assert rows == [
        {"path": path, "score": 1.0, "file": str(shelf / path), "group": group, "kind": kind}
        | ({"keep": True, "reason": reason} if reason else {"keep": False})
        for group, kind, path, reason in (
            (1, "equal files", "a.png", "the shortest path"),
            (1, "equal files", "copy of a.png", ""),
            (2, "look-alikes", "a.png", ""),
            (2, "look-alikes", "italy/like a.png", "more pixels"),
        )
    ]


def test_a_look_alike_is_named_as_the_copy_of_it_that_is_kept(tmp_path: Path) -> None:
    paint(tmp_path / "a.png", "red", size=(64, 48))
    shutil.copy(tmp_path / "a.png", paint(tmp_path / "2019" / "a.png", "blue"))
    paint(tmp_path / "smaller.png", "red", size=(32, 24))
    index_folder(tmp_path, encoder=ColourEncoder())
    done = vitsearch("dupes", tmp_path, "--vectors-only")
    assert done.stdout.decode().splitlines() == [
        "equal files: 1 group, 2 photos",
        "",
        "  2019/a.png",
        "  a.png  (keep: the shortest path)",
        "",
        "look-alikes: 1 group, 2 photos",
        "",
        "  1.0000  a.png  (keep: more pixels)",
        "  1.0000  smaller.png",
    ]


def test_one_list_of_dupes_as_paths(shelf: Path) -> None:
    assert (
        vitsearch("dupes", shelf, "--vectors-only", "--paths", "--only", "equal").stdout
        == b"a.png\ncopy of a.png\n\n"
    )
    assert (
        vitsearch("dupes", shelf, "--vectors-only", "--paths", "--only", "alike").stdout
        == b"a.png\nitaly/like a.png\n\n"
    )
    both = vitsearch("dupes", shelf, "--vectors-only", "--paths").stdout
    assert both == b"a.png\ncopy of a.png\n\na.png\nitaly/like a.png\n\n"


def test_all_dupes_but_the_best(shelf: Path) -> None:
    others = vitsearch("dupes", shelf, "--vectors-only", "--others").stdout
    assert others == b"copy of a.png\na.png\n"


def test_dupes_by_threshold_and_filter(shelf: Path) -> None:
    wide = vitsearch(
        "dupes", shelf, "--vectors-only", "--only", "alike", "--threshold", "0.8", "--paths"
    ).stdout.decode()
    assert wide == "a.png\nitaly/like a.png\nitaly/b.png\n\n"
    inside = vitsearch(
        "dupes", shelf, "--vectors-only", "--threshold", "0.8", "--under", "italy", "--paths"
    ).stdout.decode()
    assert inside == "italy/b.png\nitaly/rome/c.png\nitaly/like a.png\n\n"
    none = vitsearch("dupes", shelf, "--vectors-only", "--where", "path like 'spain/%'")
    assert (none.returncode, none.stdout) == (1, b"")
    assert (
        none.stderr
        == b"vitsearch: no equal files and no photos that look alike from cosine 0.999 on\n"
    )
    equal = vitsearch("dupes", shelf, "--vectors-only", "--only", "equal", "--under", "spain")
    assert (equal.returncode, equal.stderr) == (1, b"vitsearch: no equal files\n")
    alike = vitsearch(
        "dupes",
        shelf,
        "--vectors-only",
        "--only",
        "alike",
        "--under",
        "spain",
        "--threshold",
        "0.5",
    )
    assert (alike.returncode, alike.stderr) == (
        1,
        b"vitsearch: no photos that look alike from cosine 0.5 on\n",
    )


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--threshold", "0"], 2, "--threshold"),
        (["--threshold", "nan"], 1, "not nan"),
        (["--only", "both"], 2, "--only"),
        (["--json", "--paths"], 2, "one of --json, --paths and --others"),
        (["--sheet", "sheet.gif"], 1, "a contact sheet is"),
        (["--where", "no"], 1, "cannot read the filter"),
    ],
    ids=str,
)
def test_dupes_that_cannot_be(shelf: Path, options: list[str], code: int, words: str) -> None:
    done = vitsearch("dupes", shelf, "--vectors-only", *options)
    assert (done.returncode, done.stdout) == (code, b"")
    assert re.fullmatch(r"vitsearch: [^\n]+\n", done.stderr.decode())
    assert words in done.stderr.decode()


def test_a_sheet_of_dupes(shelf: Path, tmp_path: Path) -> None:
    done = vitsearch("dupes", shelf, "--vectors-only", "--sheet", tmp_path / "dupes.html")
    assert (done.returncode, done.stderr) == (
        0,
        f"vitsearch: wrote {tmp_path / 'dupes.html'}\n".encode(),
    )
    page = (tmp_path / "dupes.html").read_text(encoding="utf-8")
    assert re.findall("<h2>(.*?)</h2>", page) == ["equal files 1", "look-alikes 1"]
    assert re.findall(r'<figcaption><span>(.*?)</span><span class="name" title="(.*?)">', page) == [
        ("", "a.png"),
        ("", "copy of a.png"),
        ("", "a.png"),
        ("1.000", "italy/like a.png"),
    ]
    assert (
        vitsearch(
            "dupes", shelf, "--vectors-only", "--sheet", tmp_path / "dupes.png", "--only", "equal"
        ).returncode
        == 0
    )
    assert Image.open(tmp_path / "dupes.png").format == "PNG"


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names are Unicode there")
def test_dupes_whose_names_are_not_text(tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"bad\xff\n.png")
    paint(odd, "red")
    shutil.copyfile(odd, tmp_path / "plain.png")
    index_folder(tmp_path, encoder=ColourEncoder())
    assert vitsearch("dupes", tmp_path, "--paths").stdout == b"bad\xff\n.png\nplain.png\n\n"
    assert b"  bad\xff\\n.png  (keep: the shortest path)\n" in vitsearch("dupes", tmp_path).stdout


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["red in 1999"], "no photo passes [1999]"),
        (["red", "--where", "year = 1999"], "no photo passes the filters"),
        (["red", "--offset", "100"], "--offset left none"),
        (
            ["red", "--under", "shelf"],
            "no photo is in a folder 'shelf' of SHELF: --under takes a folder inside it, such as "
            "italy/rome",
        ),
    ],
)
def test_a_search_without_results_says_why(shelf: Path, arguments: list[str], reason: str) -> None:
    done = vitsearch("search", shelf, *arguments)
    said = f"vitsearch: nothing found: {reason.replace('SHELF', str(shelf))}"
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.decode().splitlines()[-1] == said


@pytest.mark.slow
def test_words_that_no_photo_shows_are_answered_so(tmp_path: Path) -> None:
    index_folder(copy_samples(tmp_path), encoder="mini")
    nothing = vitsearch("search", tmp_path, "asdf qwer", "--json")
    assert (nothing.returncode, nothing.stdout) == (1, b"")
    with Collection.open(tmp_path) as collection:
        nearest = [hit.path for hit in collection.search("asdf qwer", 3, min_relevance=0)]
    assert nothing.stderr.decode() == (
        f"vitsearch: nothing here fits: the nearest are {', '.join(nearest)} "
        "(--min-relevance 0 lists them)\n"
    )
    all_of_them = vitsearch("search", tmp_path, "asdf qwer", "--min-relevance", "0", "-k", "3")
    assert all_of_them.returncode == 0
    assert [line.split("\t")[1] for line in all_of_them.stdout.decode().splitlines()] == nearest
    cat = json.loads(vitsearch("search", tmp_path, "a cat", "-k", "1", "--json").stdout)
    assert cat["path"] == "chelsea.png"
    assert 0.1 <= cat["relevance"] <= 1
    like = vitsearch("similar", tmp_path, tmp_path / "coffee.png", "-k", "1", "--json").stdout
    assert "relevance" not in json.loads(like)
    filtered = vitsearch("search", tmp_path, "a cat", "--where", "year = 1900")
    assert filtered.stderr == b"vitsearch: nothing found: no photo passes the filters\n"
