"""Pictures in a terminal: what each protocol is sent, and which one a terminal has."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from vitsearch.outputs.pictures import KINDS, cells_of, drawn, kind_of_terminal


@pytest.fixture
def picture() -> Image.Image:
    """A picture, red on the left and blue on the right."""
    image = Image.new("RGB", (120, 80), "red")
    image.paste("blue", (60, 0, 120, 80))
    return image


@pytest.mark.parametrize(
    ("environment", "answer", "kind"),
    [
        ({"TERM": "xterm-kitty"}, "", "kitty"),
        ({"TERM_PROGRAM": "ghostty"}, "", "kitty"),
        ({"KITTY_WINDOW_ID": "1", "TERM": "xterm-256color"}, "", "kitty"),
        ({"TERM_PROGRAM": "iTerm.app"}, "", "iterm2"),
        ({"TERM_PROGRAM": "WezTerm"}, "", "iterm2"),
        ({"TERM": "foot"}, "", "sixel"),
        ({"TERM": "xterm-256color"}, "\x1b[?62;4;22c", "sixel"),
        ({"TERM": "xterm-256color"}, "\x1b[?64;1;2;14c", "blocks"),
        ({"TERM": "xterm-256color"}, "\x1b[?4c", "blocks"),  # a class of terminal, no sixel
        ({"TERM": "xterm-256color"}, "", "blocks"),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/tmux"}, "\x1b[?62;4c", "blocks"),
    ],
)
def test_the_kind_of_a_terminal(environment: dict[str, str], answer: str, kind: str) -> None:
    assert kind_of_terminal(environment, lambda: answer) == kind


def test_a_picture_takes_few_cells_in_its_shape() -> None:
    assert cells_of(300, 300) == (20, 10)
    assert cells_of(600, 200) == (36, 6)
    assert cells_of(100, 800) == (2, 10)
    assert cells_of(5000, 1) == (36, 1)


def decoded(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB")


def test_kitty_gets_a_png_in_chunks(picture: Image.Image) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 120, 3), dtype=np.uint8))
    sent = drawn(noise, "kitty")
    commands = re.findall(rb"\x1b_G([^;]*);([^\x1b]*)\x1b\\", sent)
    assert b"".join(b"\x1b_G%s;%s\x1b\\" % command for command in commands) == sent
    heads = [head for head, _ in commands]
    assert heads[0] == b"a=T,f=100,q=2,c=30,r=10,m=1"
    assert heads[1:] == [b"m=1"] * (len(heads) - 2) + [b"m=0"]
    assert max(len(content) for _, content in commands) == 4096
    whole = decoded(b"".join(content for _, content in commands))
    assert whole.tobytes() == noise.tobytes()


def test_iterm2_gets_a_png(picture: Image.Image) -> None:
    sent = drawn(picture, "iterm2")
    match = re.fullmatch(
        rb"\x1b\]1337;File=inline=1;size=(\d+);width=30;height=10;preserveAspectRatio=1:(.+)\x07",
        sent,
    )
    assert match is not None
    assert len(base64.b64decode(match[2])) == int(match[1])
    assert decoded(match[2]).tobytes() == picture.tobytes()


def read_sixel(sent: bytes) -> np.ndarray:
    """The pixels of a sixel picture, read by the rules of the manual."""
    head = re.match(rb'\x1bPq"1;1;(\d+);(\d+)', sent)
    assert head is not None
    assert sent.endswith(b"\x1b\\")
    width, height = int(head[1]), int(head[2])
    pixels = np.zeros((height + 6, width, 3), np.uint8)
    palette: dict[int, tuple[int, ...]] = {}
    x = y = colour = 0
    for match in re.finditer(
        rb"#(\d+);2;(\d+);(\d+);(\d+)|#(\d+)|!(\d+)([?-~])|([?-~])|(\$)|(-)", sent[head.end() : -2]
    ):
        if match[1]:
            palette[int(match[1])] = tuple(round(int(each) * 2.55) for each in match.group(2, 3, 4))
        elif match[5]:
            colour = int(match[5])
        elif match[9]:
            x = 0
        elif match[10]:
            x, y = 0, y + 6
        else:
            count, bits = int(match[6] or 1), (match[7] or match[8])[0] - 63
            for row in range(6):
                if bits >> row & 1:
                    pixels[y + row, x : x + count] = palette[colour]
            x += count
    return pixels[:height]


def test_sixel_has_the_pixels_of_the_picture(picture: Image.Image) -> None:
    pixels = read_sixel(drawn(picture, "sixel"))
    assert pixels.shape == (200, 300, 3)
    expected = np.asarray(picture.resize((300, 200))).astype(int)
    assert np.abs(pixels.astype(int) - expected).mean() < 4


def test_half_blocks_have_two_pixels_in_a_cell(picture: Image.Image) -> None:
    red, blue = "38;2;255;0;0", "48;2;0;0;255"
    lines = drawn(picture, "blocks").decode().split("\n")
    assert len(lines) == 10
    assert all(line.count("▀") == 30 for line in lines)
    assert lines[0].startswith(f"\x1b[{red}m\x1b[48;2;255;0;0m▀")
    assert lines[-1].endswith(f"\x1b[38;2;0;0;255m\x1b[{blue}m▀\x1b[0m")
    plain = drawn(picture, "blocks", true_colour=False).decode()
    assert plain.startswith("\x1b[38;5;196m\x1b[48;5;196m▀")
    assert plain.endswith("\x1b[38;5;21m\x1b[48;5;21m▀\x1b[0m")


@pytest.mark.parametrize("kind", KINDS)
def test_any_shape_is_drawn(kind: str) -> None:
    for size in ((1, 1), (1, 300), (300, 1), (7, 5)):
        assert drawn(Image.new("RGB", size, "green"), kind)
