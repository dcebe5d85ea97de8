"""The README and the pages of the docs: their blocks, and what their commands run in."""

import os
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from helpers.paths import ROOT
from vitsearch import index_folder

PAGES = sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "indexes" / "README.md"])


def fences(page: Path) -> list[tuple[str, str]]:
    """The blocks of a page, in order: how each is marked, and what stands in it."""
    text = page.read_text(encoding="utf-8")
    return re.findall(r"^```([\w-]*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def blocks(page: Path, language: str) -> list[str]:
    """The blocks of a page that are marked as of one language."""
    return [text for marked, text in fences(page) if marked == language]


def drawn_folder(folder: Path) -> Path:
    """A working folder: photos/ has a few drawn pictures, one of them named dog.jpg, and is indexed
    with `mini`; dataset/ has a folder for each class, and two CSV files have labels.
    """
    (folder / "photos").mkdir(parents=True)
    for number, (name, colour) in enumerate(
        {"dog.jpg": "brown", "car.png": "red", "beach.jpg": "khaki", "sea.webp": "navy"}.items()
    ):
        image = Image.new("RGB", (160, 120), "white")
        ImageDraw.Draw(image).ellipse((10 + 10 * number, 20, 90 + 10 * number, 100), fill=colour)
        image.save(folder / "photos" / name)
    (folder / "corrected.csv").write_text(
        "path,label\ndog.jpg,animal\ncar.png,thing\n", encoding="utf-8"
    )
    (folder / "truth.csv").write_text(
        "path,label\ndog.jpg,dog\ncar.png,car\nbeach.jpg,shore\nsea.webp,shore\n", encoding="utf-8"
    )
    for name, photo in (("whippet", "dog.jpg"), ("sports car", "car.png")):
        (folder / "dataset" / name).mkdir(parents=True)
        shutil.copy(folder / "photos" / photo, folder / "dataset" / name)
    receipt = Image.new("RGB", (500, 300), "white")
    text = "REWE\nINVOICE 4711\nTAX 19 %\nTOTAL AMOUNT 12.40"
    ImageDraw.Draw(receipt).text((30, 30), text, "black", ImageFont.load_default(40))
    receipt.save(folder / "photos" / "receipt.png")
    (folder / "photos" / "notes.txt").write_text("left out, being no photo", encoding="utf-8")
    (folder / "examples").symlink_to(ROOT / "examples")
    index_folder(folder / "photos")
    for year in ("2023", "2024"):
        shutil.copytree(folder / "photos", folder / year)
    return folder


def environment(programs: Path | None = None) -> dict[str, str]:
    """The process's own, with some programs or this Python's first and no way to a model hub."""
    return {
        **os.environ,
        "PATH": f"{programs or Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HF_HUB_OFFLINE": "1",
    }


def run_shell(
    command: str, folder: Path, programs: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run a line as a person types it."""
    return subprocess.run(
        ["bash", "-c", f"set -eo pipefail; {command}"],
        cwd=folder,
        env=environment(programs),
        capture_output=True,
        text=True,
    )


def serve(command: str, folder: Path, programs: Path | None = None) -> None:
    """Start a server as a page says, on a port that is free, ask it whether it is well, and stop
    it.
    """
    with subprocess.Popen(
        ["bash", "-c", f"exec {command} --port 0"],
        cwd=folder,
        env=environment(programs),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        address = None
        while address is None and (line := process.stderr.readline()):
            address = re.search(r"(http://)[^/]*?(:\d+)/", line)
        try:
            assert address is not None
            request = urllib.request.Request(f"{address[1]}127.0.0.1{address[2]}/healthz")
            if proxy := re.search(r"--behind-proxy https?://(\S+)", command):
                request.add_header("Host", proxy[1])
            with urllib.request.urlopen(request) as answer:
                assert answer.status == 200
        finally:
            process.terminate()
        assert process.wait(timeout=120) == 0
