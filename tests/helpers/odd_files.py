"""Makes one folder of every kind of file that a photo folder may hold, with what should become of
each.
"""

import io
import os
import stat
import struct
import zlib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

HAS_HEIF = find_spec("pillow_heif") is not None
ORIENTATION = 0x0112


def picture(seed: int = 0, size: tuple[int, int] = (96, 64)) -> Image.Image:
    """Return a seeded RGB picture with large soft shapes, different in each corner."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, format_name: str, **options: object) -> bytes:
    """Return the image as the content of a file."""
    buffer = io.BytesIO()
    image.save(buffer, format_name, **options)
    return buffer.getvalue()


def bomb(width: int, height: int) -> bytes:
    """Return a small valid PNG that says it is ``width`` x ``height`` pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 64))
        + chunk(b"IEND", b"")
    )


def oriented(
    image: Image.Image, orientation: int, format_name: str = "JPEG", **options: object
) -> bytes:
    """Return a file that stores the image turned, with the EXIF orientation that turns it upright
    again.
    """
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored = image.transpose(undo[orientation]) if orientation in undo else image
    return encoded(stored, format_name, exif=exif, **options)


def good_contents() -> dict[str, bytes]:
    """Return name and content of photos of every format and colour mode, all of them readable."""
    base = picture(1)
    gray16 = Image.fromarray(np.linspace(0, 65535, 96 * 64).reshape(64, 96).astype(np.uint16))
    frames = [picture(seed) for seed in (2, 3, 4)]
    with_alpha = picture(5).convert("RGBA")
    with_alpha.putalpha(Image.linear_gradient("L").resize(with_alpha.size))
    contents = {
        "plain.jpg": encoded(base, "JPEG", quality=90),
        "plain.JPEG": encoded(picture(6), "JPEG"),
        "gray.jpg": encoded(base.convert("L"), "JPEG"),
        "cmyk.jpg": encoded(base.convert("CMYK"), "JPEG"),
        "progressive.Jpg": encoded(picture(7), "JPEG", progressive=True),
        "bad exif.jpg": encoded(picture(8), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7fnonsense"),
        "gray16.png": encoded(gray16, "PNG"),
        "gray16.tif": encoded(gray16, "TIFF"),
        "float.tiff": encoded(
            Image.fromarray(np.linspace(0, 1, 96 * 64, dtype=np.float32).reshape(64, 96)), "TIFF"
        ),
        "palette.png": encoded(base.quantize(16), "PNG", transparency=3),
        "la.png": encoded(with_alpha.convert("LA"), "PNG"),
        "rgba.PNG": encoded(with_alpha, "PNG"),
        "bit.png": encoded(base.convert("1"), "PNG"),
        "tiny.png": encoded(Image.new("RGB", (1, 1), "teal"), "PNG"),
        "wide.png": encoded(picture(9, (4000, 2)), "PNG"),
        "tall.jpg": encoded(picture(10, (2, 4000)), "JPEG"),
        "animated.gif": encoded(
            frames[0], "GIF", save_all=True, append_images=frames[1:], duration=50
        ),
        "animated.webp": encoded(
            frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True
        ),
        "alpha.webp": encoded(with_alpha, "WEBP"),
        "pages.tiff": encoded(
            frames[0], "TIFF", save_all=True, append_images=frames[1:], compression="tiff_lzw"
        ),
        "plain.bmp": encoded(picture(11), "BMP"),
        "plain.ppm": encoded(picture(12), "PPM"),
        "plain.PGM": encoded(picture(13).convert("L"), "PPM"),
        "plain.pbm": encoded(picture(14).convert("1"), "PPM"),
        "plain.jp2": encoded(picture(15), "JPEG2000"),
        "really a png.jpg": encoded(picture(16), "PNG"),
    }
    return contents | {
        f"turned {turn}.jpg": oriented(picture(17), turn, quality=95) for turn in range(1, 9)
    }


def bad_contents() -> dict[str, bytes]:
    """Return name and content of files that have a photo's extension and cannot be decoded."""
    jpeg = encoded(picture(20, (320, 240)), "JPEG")
    return {
        "truncated.jpg": jpeg[: len(jpeg) // 2],
        "truncated.png": encoded(picture(21, (320, 240)), "PNG")[:3000],
        "header.jpg": jpeg[:4],
        "text.jpg": b"These are words, not a picture.\n" * 20,
        "zero.jpg": b"",
        "bomb.png": bomb(100_000, 100_000),
        "page.gif": b"<!DOCTYPE html><html><body>404</body></html>",
    }


def make_odd_files(folder: Path) -> dict[str, str]:
    """Fill a folder; return for each path the state it should end in: ``indexed``, ``failed`` or
    ``skipped``.

    Files that a walk leaves out by default (hidden, ``@eaDir``, ``node_modules``, other extensions)
    are made and not in the answer. A name or kind of file that the system cannot make is not in the
    answer either.
    """
    states: dict[str, str] = {}
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in good_contents().items():
        states |= _write(folder, name, content, "indexed")
    for name, content in bad_contents().items():
        states |= _write(folder, name, content, "failed")
    for number, name in enumerate(_odd_names()):
        states |= _write(folder, name, encoded(picture(30 + number), "JPEG"), "indexed")
    if HAS_HEIF:
        states |= _write(folder, "phone.HEIC", _heic(), "indexed")
    else:
        states |= _write(folder, "phone.HEIC", b"\0\0\0\x18ftypheic\0\0\0\0", "skipped")
    _leave_out(folder)
    return states | _not_regular(folder)


def _write(folder: Path, name: str, content: bytes, state: str) -> dict[str, str]:
    path = folder / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except (OSError, ValueError):
        return {}
    return {name: state}


def _odd_names() -> list[str]:
    return [
        "new\nline.jpg",
        "quotes'\"`.jpg",
        "emoji 🐕🏖.jpg",
        os.fsdecode(b"latin caf\xe9 \xff.jpg"),
        " spaces .jpg",
        "-dash.jpg",
        "a + b - c.jpg",
        "%41 & <b>.jpg",
        "deep/er/and deeper/photo.jpg",
        "album.jpg/inside.jpg",
    ]


def _heic() -> bytes:
    import pillow_heif

    buffer = io.BytesIO()
    pillow_heif.from_pillow(picture(50)).save(buffer)
    return buffer.getvalue()


def _leave_out(folder: Path) -> None:
    content = encoded(picture(60), "JPEG")
    for name in (
        ".hidden.jpg",
        ".git/a.jpg",
        ".folder/a.jpg",
        "@eaDir/thumb.jpg",
        "sub/node_modules/a.png",
        "notes.txt",
        "jpg",
        "song.mp3",
    ):
        _write(folder, name, content, "left out")


def _not_regular(folder: Path) -> dict[str, str]:
    states = {}
    makers: dict[str, tuple[Callable[[Path], None], str]] = {
        "pipe.jpg": (lambda path: os.mkfifo(path), "skipped"),
        "socket.jpg": (lambda path: os.mknod(path, stat.S_IFSOCK | 0o600), "skipped"),
        "broken link.jpg": (lambda path: path.symlink_to("no such file.jpg"), "skipped"),
        "loop.jpg": (lambda path: path.symlink_to("loop.jpg"), "skipped"),
        "link.jpg": (lambda path: path.symlink_to("plain.jpg"), "indexed"),
        "sub/up": (lambda path: path.symlink_to(".."), "left out"),
    }
    for name, (make, state) in makers.items():
        try:
            make(folder / name)
        except (OSError, AttributeError):
            continue
        states[name] = state
    states.pop("sub/up", None)
    return states
