import base64
import io
import os
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote_to_bytes, urljoin, urlsplit

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageColor

from helpers.odd_files import bad_contents, encoded, make_odd_files, picture
from vitsearch.errors import VitsearchError
from vitsearch.outputs.contact_sheet import (
    MAX_TILES,
    RIGHT,
    WRONG,
    Caption,
    Verdict,
    short_names,
    write_sheet,
)

LATIN1_NAME = os.fsdecode(b"caf\xe9 \n<b>&'\".jpg")


class Page(HTMLParser):
    """What a reader of a sheet sees: titles, captions, pictures and links."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text: dict[str, list[str]] = {}
        self.attributes: dict[str, list[dict[str, str | None]]] = {}
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes.setdefault(tag, []).append(dict(attrs))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.text.setdefault(self.open[-1], []).append(data)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "my photos"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.jpg").write_bytes(encoded(picture(1, (300, 200)), "JPEG"))
    (folder / "sub/b.png").write_bytes(encoded(picture(2, (40, 60)), "PNG"))
    (folder / "text.jpg").write_bytes(bad_contents()["text.jpg"])
    return folder


SECTIONS = [
    ("words & <more>", [("a.jpg", "0.300"), ("sub/b.png", "0.200")]),
    ("labels", [("text.jpg", "cat 0.9"), ("gone.jpg", "dog 0.8")]),
]


def test_html_holds_titles_captions_names_reasons_and_pictures(
    photos: Path, tmp_path: Path
) -> None:
    write_sheet(tmp_path / "sheet.html", SECTIONS, root=photos)
    page = Page((tmp_path / "sheet.html").read_bytes().decode("utf-8"))
    assert page.open == []
    assert page.text["h2"] == ["words & <more>", "labels"]
    assert page.text["span"] == [
        *("0.300", "a.jpg", "0.200", "b.png"),
        *(
            "not a photo: its content is of no picture format that is read here",
            "cat 0.9",
            "text.jpg",
        ),
        *("cannot be opened: No such file or directory", "dog 0.8", "gone.jpg"),
    ]
    assert [image["alt"] for image in page.attributes["img"]] == ["a.jpg", "b.png"]
    sizes = []
    for image in page.attributes["img"]:
        kind, _, content = (image["src"] or "").partition(",")
        assert kind == "data:image/jpeg;base64"
        sizes.append(Image.open(io.BytesIO(base64.b64decode(content))).size)
    assert sizes == [(300, 200), (40, 60)]


def test_html_asks_nothing_of_the_network(photos: Path, tmp_path: Path) -> None:
    write_sheet(tmp_path / "sheet.html", SECTIONS, root=photos)
    page = Page((tmp_path / "sheet.html").read_text("utf-8"))
    assert set(page.attributes) == {
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "main",
        "section",
        "h2",
        "div",
        "figure",
        "a",
        "img",
        "figcaption",
        "span",
    }
    assert "url(" not in page.text["style"][0]
    assert "@import" not in page.text["style"][0]


@pytest.mark.parametrize("place", ["my photos/sheet.html", "sheet.html", "other/deep/sheet.html"])
def test_links_lead_to_the_photos_from_where_the_sheet_is(
    photos: Path, tmp_path: Path, place: str
) -> None:
    (photos / LATIN1_NAME).write_bytes(b"")
    (photos / "a#b?c%20.jpg").write_bytes(b"")
    sheet = tmp_path / place
    sheet.parent.mkdir(parents=True, exist_ok=True)
    names = ["a.jpg", "sub/b.png", LATIN1_NAME, "a#b?c%20.jpg", str(photos / "a.jpg")]
    write_sheet(sheet, [("", [(name, "") for name in names])], root=photos)
    links = [link["href"] or "" for link in Page(sheet.read_text("utf-8")).attributes["a"]]
    reached = [
        os.fsdecode(unquote_to_bytes(urlsplit(urljoin(sheet.as_uri(), link)).path))
        for link in links
    ]
    assert reached == [str(photos / name) for name in names]


def test_odd_names_and_titles_are_valid_text(photos: Path, tmp_path: Path) -> None:
    (photos / LATIN1_NAME).write_bytes(encoded(picture(3), "JPEG"))
    sections = [("日本 🐕 \udcff\n</h2><script>", [(LATIN1_NAME, "\udce9 <i>")])]
    write_sheet(tmp_path / "sheet.html", sections, root=photos)
    write_sheet(tmp_path / "sheet.png", sections, root=photos)
    page = Page((tmp_path / "sheet.html").read_bytes().decode("utf-8"))
    assert page.text["h2"] == ["日本 🐕 � </h2><script>"]
    assert page.text["span"] == ["� <i>", "caf� <b>&'\".jpg"]


@pytest.mark.parametrize(
    ("suffix", "format_name"),
    [(".png", "PNG"), (".PNG", "PNG"), (".jpg", "JPEG"), (".jpeg", "JPEG")],
)
def test_picture_shows_the_photos_in_a_grid(
    photos: Path, tmp_path: Path, suffix: str, format_name: str
) -> None:
    (photos / "red.png").write_bytes(encoded(Image.new("RGB", (400, 200), "red"), "PNG"))
    path = tmp_path / f"sheet{suffix}"
    write_sheet(path, [("red", [("red.png", "0.5")] * 7), ("", [("gone.jpg", "")])], root=photos)
    with Image.open(path) as sheet:
        assert sheet.format == format_name
        pixels = np.asarray(sheet.convert("RGB")).astype(int)
    red = (pixels[..., 0] > 240) & (pixels[..., 1:] < 20).all(axis=2)
    runs = np.flatnonzero(np.diff(red[red.any(axis=1)][58].astype(int)) == 1)
    assert len(runs) == 4  # four in the first row, and seven in all, each 232 x 116
    assert abs(red.sum() - 7 * 232 * 116) < 7 * 800


def test_a_photo_is_shown_upright_and_whole(photos: Path, tmp_path: Path) -> None:
    tall = Image.new("RGB", (100, 400), "blue")
    exif = Image.Exif()
    exif[0x0112] = 6
    (photos / "turned.jpg").write_bytes(
        encoded(tall.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif)
    )
    write_sheet(tmp_path / "sheet.png", [("", [("turned.jpg", "")])], root=photos)
    pixels = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB")).astype(int)
    rows, columns = np.nonzero((pixels[..., 2] > 230) & (pixels[..., :2] < 30).all(axis=2))
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (232, 58)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("suffix", [".png", ".html"])
def test_every_odd_file_fits_on_a_sheet(tmp_path: Path, suffix: str) -> None:
    states = make_odd_files(tmp_path / "odd")
    path = tmp_path / f"sheet{suffix}"
    write_sheet(
        path, [("odd", [(name, state) for name, state in states.items()])], root=tmp_path / "odd"
    )
    assert path.stat().st_size > 10_000


@pytest.mark.parametrize("sections", [[], [("nothing found", [])]])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".html"])
def test_no_photos_is_a_sheet_too(
    tmp_path: Path, sections: list[tuple[str, list[tuple[str, str]]]], suffix: str
) -> None:
    path = tmp_path / f"sheet{suffix}"
    write_sheet(path, sections, root=tmp_path)
    assert path.stat().st_size > 0


def test_errors_are_one_line_and_leave_the_old_file(photos: Path, tmp_path: Path) -> None:
    reasons = []
    for path, sections in (
        (tmp_path / "sheet.pdf", SECTIONS),
        (tmp_path / "sheet", SECTIONS),
        (tmp_path / "no folder/sheet.html", SECTIONS),
        (tmp_path / "sheet.html", [("", [("a.jpg", "")] * (MAX_TILES + 1))]),
    ):
        with pytest.raises(VitsearchError) as caught:
            write_sheet(path, sections, root=photos)
        reasons.append(str(caught.value))
    assert reasons == [
        "a contact sheet is a .png, .jpg or .html file, not 'sheet.pdf'; name it so",
        "a contact sheet is a .png, .jpg or .html file, not 'sheet'; name it so",
        (
            f"cannot write {str(tmp_path / 'no folder/sheet.html')!r}: No such file or directory; "
            "name another place for the sheet"
        ),
        "a contact sheet holds at most 1,000 photos, not 1,001; ask for fewer results",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my photos"]


def test_a_sheet_replaces_the_old_one_and_leaves_nothing_else(photos: Path, tmp_path: Path) -> None:
    for _ in range(2):
        write_sheet(tmp_path / "sheet.html", SECTIONS, root=photos)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my photos", "sheet.html"]


VERDICTS: list[Verdict] = [
    Verdict("zero-shot", "cat <x>", 0.614, False),
    Verdict("supervised", "dog", 1.0, True),
    Verdict("truth", "dog\u202e\n"),
]


def test_rows_of_a_caption_say_who_what_how_sure_and_whether_right(
    photos: Path, tmp_path: Path
) -> None:
    write_sheet(
        tmp_path / "sheet.html",
        [("odd", [("a.jpg", VERDICTS), ("sub/b.png", []), ("gone.jpg", "plain")])],
        root=photos,
    )
    page = Page((tmp_path / "sheet.html").read_bytes().decode("utf-8"))
    assert page.open == []
    assert page.text["th"] == ["zero-shot", "supervised", "truth"]
    assert page.text["td"] == ["cat <x>", "0.61", "dog", "1.00", "dog"]
    assert page.text["b"] == ["✗", "✓"]
    assert [sign["title"] for sign in page.attributes["b"]] == ["wrong", "right"]
    assert page.text["span"] == [
        "a.jpg",
        "b.png",
        "cannot be opened: No such file or directory",
        "plain",
        "gone.jpg",
    ]


def test_a_title_names_the_whole_and_alternative_texts_say_the_answers(
    photos: Path, tmp_path: Path
) -> None:
    write_sheet(
        tmp_path / "sheet.html",
        [("odd", [("a.jpg", VERDICTS), ("sub/b.png", [])])],
        root=photos,
        title="Photos & <more>",
    )
    page = Page((tmp_path / "sheet.html").read_bytes().decode("utf-8"))
    assert (page.text["title"], page.text["h1"], page.text["h2"]) == (
        ["Photos & <more>"],
        ["Photos & <more>"],
        ["odd"],
    )
    assert [image["alt"] for image in page.attributes["img"]] == [
        "a.jpg: zero-shot cat <x>, supervised dog, truth dog",
        "b.png",
    ]


@pytest.mark.parametrize(
    ("score", "right", "free"),
    [(None, None, 2), (None, True, 24), (0.5, None, 62), (0.5, False, 62)],
)
def test_a_long_label_has_the_room_that_score_and_sign_leave(
    photos: Path, tmp_path: Path, score: float | None, right: bool | None, free: int
) -> None:
    def ink(label: str) -> np.ndarray:
        write_sheet(
            tmp_path / "sheet.png",
            [("", [("a.jpg", [Verdict("truth", label, score, right)])])],
            root=photos,
        )
        with Image.open(tmp_path / "sheet.png") as page:
            return np.asarray(page.convert("L")).astype(int)

    changed = np.flatnonzero((ink("m" * 60) != ink("")).any(axis=0))
    left = 36 + 2  # of the first tile's captions
    assert left + 80 <= changed.min() <= left + 84
    assert left + 232 - free - 25 < changed.max() <= left + 232 - free


def test_signs_are_drawn_and_a_tile_grows_with_its_rows(photos: Path, tmp_path: Path) -> None:
    def drawn(caption: Caption) -> np.ndarray:
        write_sheet(tmp_path / "sheet.png", [("odd", [("a.jpg", caption)])], root=photos)
        with Image.open(tmp_path / "sheet.png") as page:
            return np.asarray(page.convert("RGB"))

    def places(page: np.ndarray, colour: str) -> list[int]:
        return np.flatnonzero((page == ImageColor.getrgb(colour)).all(axis=2).any(axis=1)).tolist()

    plain, rows = drawn("cat"), drawn(VERDICTS)
    assert rows.shape[0] - plain.shape[0] == 2 * 25
    assert (places(plain, RIGHT), places(plain, WRONG)) == ([], [])
    cross, tick = places(rows, WRONG), places(rows, RIGHT)
    assert 8 < len(cross) < 14
    assert min(tick) - min(cross) == pytest.approx(25, abs=3)


def test_names_have_the_folders_that_tell_them_apart() -> None:
    paths = ["a/1.jpg", "b/1.jpg", "b/2.jpg", "2023/rome/3.jpg", "2024/rome/3.jpg", "3.jpg"]
    assert short_names(paths) == {
        "a/1.jpg": "a/1.jpg",
        "b/1.jpg": "b/1.jpg",
        "b/2.jpg": "2.jpg",
        "2023/rome/3.jpg": "2023/rome/3.jpg",
        "2024/rome/3.jpg": "2024/rome/3.jpg",
        "3.jpg": "3.jpg",
    }


@given(st.sets(st.from_regex("[ab](/[ab]){0,3}", fullmatch=True), max_size=12))
def test_every_name_is_the_end_of_its_path_and_of_no_other(paths: set[str]) -> None:
    names = short_names(paths)
    assert names.keys() == paths
    assert len(set(names.values())) == len(paths)
    assert all(path.endswith(name) for path, name in names.items())


@pytest.mark.parametrize(("photos_drawn", "columns"), [(1, 3), (4, 4), (8, 4), (9, 3), (10, 5)])
def test_rows_of_a_picture_are_full(photos_drawn: int, columns: int, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "red.png")
    sheet = tmp_path / "sheet.png"
    write_sheet(sheet, [("red", [("red.png", "")] * photos_drawn)], root=tmp_path)
    assert Image.open(sheet).width == 2 * 36 + columns * 252 - 20


@pytest.mark.slow
def test_a_score_stays_on_one_line(photos: Path, tmp_path: Path) -> None:
    """Beside a long label, in a browser as narrow as a phone."""
    sync_api = pytest.importorskip("playwright.sync_api")
    if shutil.which("chromium") is None:
        pytest.skip("no Chromium")
    sheet = tmp_path / "sheet.html"
    long = "a photograph of a golden retriever on a beach at noon"
    write_sheet(
        sheet, [("x", [("red.png", [Verdict("zero-shot", long, 0.97, True)])])], root=photos
    )
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 390, "height": 800})
        page.goto(sheet.as_uri())
        height = page.locator("td.score").evaluate(
            "each => { const range = document.createRange(); range.selectNodeContents(each);"
            " return range.getClientRects().length; }"
        )
        assert height == 1
        browser.close()


def test_letters_that_no_font_has_are_told_once(
    photos: Path, tmp_path: Path, remarks: list[str]
) -> None:
    from vitsearch import outputs

    outputs._remark_once.cache_clear()
    private = "\U0010fffd"  # for private use: printed as a space, and so never looked for
    assert outputs.choose_type(f"a{private}b", 15)[0] == "a b"
    letters = [outputs.choose_type(char, 15)[0] for char in "\U00012000\U00014400"]
    if letters != ["?", "?"]:
        pytest.skip("this machine has fonts of cuneiform and of Anatolian hieroglyphs")
    assert len(remarks) == 1
    assert ".html" in remarks[0]
