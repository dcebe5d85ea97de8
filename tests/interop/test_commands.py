"""`export`, `import` and `merge` on the command line."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers.cli import environment, vitsearch
from helpers.interop import facts, report, vectors_of, write_layout
from helpers.photos import paint
from vitsearch import index_folder
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.interop import (
    ImportReport,
)


def test_export_and_import_from_the_command_line(labelled: Path, tmp_path: Path) -> None:
    for layout in ("clip-retrieval", "faiss"):
        done = vitsearch("export", labelled, tmp_path / layout, "--format", layout, "--json")
        assert json.loads(done.stdout) == {
            "photos": 5,
            "format": layout,
            "output": str(tmp_path / layout),
        }
        came = vitsearch(
            "import",
            tmp_path / layout,
            labelled,
            "--collection",
            tmp_path / f"{layout}-back",
            "--json",
        )
        expected = replace(report(imported=5, checked=5, total=5))
        assert json.loads(came.stdout) == {
            name: getattr(expected, name) for name in ImportReport.__slots__ if name != "problems"
        }
        assert (done.returncode, came.returncode) == (0, 0)
        assert facts(labelled, collection=tmp_path / f"{layout}-back") == facts(labelled)


def test_import_says_what_was_left_out(photos: Path, tmp_path: Path) -> None:
    names = ["red.png", *(f"gone{number}.png" for number in range(12))]
    layout = write_layout(
        tmp_path / "emb",
        ([f"old/{name}" for name in names], np.repeat(vectors_of(photos, ["red.png"]), 13, axis=0)),
    )
    done = vitsearch(
        "import", layout, photos, "--encoder", "colour", "--paths-from", "old", "--check", "3"
    )
    assert done.stdout == b"1 photos are searchable (1 imported, 12 missing, 1 checked)\n"
    notes = done.stderr.decode().splitlines()
    assert notes[:2] == [
        f"vitsearch: old/gone{number}.png: is not among the photos of the folder"
        for number in range(2)
    ]
    assert len([line for line in notes if "is not among" in line]) == 10
    assert notes[-1].startswith(f"vitsearch: `vitsearch index {photos}` embeds what is missing")
    refused = vitsearch("import", layout, photos, "--collection", tmp_path / "second")
    assert (refused.returncode, refused.stdout) == (1, b"")
    assert refused.stderr.decode().startswith(
        f"vitsearch: {layout} does not say which encoder made its vectors"
    )


@pytest.mark.parametrize(("name", "words"), [("gone", "not there"), ("albums.json", "a file")])
def test_what_cannot_be_imported_is_named(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "albums.json").write_text("[]")
    done = vitsearch("import", tmp_path / name, tmp_path / "photos")
    line = f"vitsearch: SOURCE is a folder with vectors: {tmp_path / name} is {words}\n"
    assert (done.returncode, done.stdout, done.stderr.decode()) == (1, b"", line)


def test_merge_from_the_command_line(indexed: Path) -> None:
    inner = paint(indexed / "more" / "a.png", "red").parent
    index_folder(inner, encoder=ColourEncoder())
    done = vitsearch("merge", inner, indexed, "--json")
    assert json.loads(done.stdout) == {
        "added": 1,
        "unchanged": 0,
        "replaced": 0,
        "kept": 0,
        "total": 5,
    }
    assert done.stderr == b""  # its vector came with it
    again = vitsearch("merge", inner, indexed)
    assert again.stdout == b"5 photos are in the collection (1 unchanged)\n"
    assert (done.returncode, again.returncode, again.stderr) == (0, 0, b"")


@pytest.mark.slow
def test_a_library_that_is_missing_is_named_with_its_extra(indexed: Path, tmp_path: Path) -> None:
    for library, layout, extra in (
        ("pyarrow", "clip-retrieval", "parquet"),
        ("faiss", "faiss", "faiss"),
    ):
        code = (
            f"import sys; sys.modules[{library!r}] = None; from vitsearch.cli import main; main()"
        )
        for command in (["export", indexed, tmp_path / "out"], ["import", tmp_path, indexed]):
            done = subprocess.run(
                [sys.executable, "-c", code, *command, "--format", layout],
                env=environment(),
                capture_output=True,
                timeout=60,
            )
            assert (done.returncode, done.stdout) == (1, b"")
            assert done.stderr.count(b"\n") == 1
            assert done.stderr.endswith(f": pip install 'vitsearch[{extra}]'\n".encode())
    assert not (tmp_path / "out").exists()
