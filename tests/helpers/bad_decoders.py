"""Decoders that crash or hang on marked photos, here and in the processes that are started."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from helpers.odd_files import encoded
from helpers.paths import ROOT, TESTS

CRASHES, CRASHES_LATER, HANGS = b"crashes", b"crashes later", b"hangs"
_CODE = "from helpers.bad_decoders import install; install()\n"


def bad_photo(ending: bytes, format_name: str = "JPEG") -> bytes:
    """Return a small photo whose decoder crashes or hangs once `install` has been called."""
    return encoded(Image.new("RGB", (40, 30), "teal"), format_name) + b"\0" + ending


def install() -> None:
    """Have Pillow's readers of JPEG and TIFF crash or hang in this process on a `bad_photo`."""
    from PIL import JpegImagePlugin, TiffImagePlugin

    for reader in (JpegImagePlugin.JpegImageFile, TiffImagePlugin.TiffImageFile):
        setattr(reader, "load", _bad(reader.load))  # noqa: B010  mypy sees a method


def _bad(load: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def loaded(image: Any) -> Any:
        ending = image.fp.getvalue().rpartition(b"\0")[2] if image.fp else b""
        if ending in (CRASHES, CRASHES_LATER):
            time.sleep(2 * (ending == CRASHES_LATER))
            signal.raise_signal(signal.SIGSEGV)  # in this thread, which goes no further
        if ending == HANGS:
            time.sleep(600)
        return load(image)

    return loaded


def install_in_children(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Have it installed in every Python that is started from now on."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(_CODE)
    patch.setenv("PYTHONPATH", os.pathsep.join(map(str, (folder, ROOT, TESTS))))
