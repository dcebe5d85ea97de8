"""What is published: a source archive that holds the whole repository, a wheel with the package
alone, and the metadata of both.
"""

import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from helpers.paths import ROOT

pytest.importorskip("build", reason="needs the extra vitsearch[dev]")
pytest.importorskip("twine", reason="needs the extra vitsearch[dev]")

pytestmark = pytest.mark.slow

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def tracked() -> set[str]:
    """The files of the repository, without those that are new or gone in the work tree."""
    done = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip("the tests do not lie in a Git repository")
    return {name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The source archive, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT],
        capture_output=True,
        check=True,
    )
    return {file.suffix: file for file in folder.iterdir()}


def test_the_source_archive_holds_the_repository(built: dict[str, Path]) -> None:
    with tarfile.open(built[".gz"]) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    assert tracked() - names == set()
    assert {name for name in names - tracked() if not (ROOT / name).is_file()} == {"PKG-INFO"}


def test_the_wheel_holds_the_package_and_its_data_alone(built: dict[str, Path]) -> None:
    with zipfile.ZipFile(built[".whl"]) as wheel:
        names = {name for name in wheel.namelist() if not name.endswith("/")}
    information = f"vitsearch-{built['.whl'].name.split('-')[1]}.dist-info"
    package = {name for name in tracked() if name.startswith("vitsearch/")}
    recipes = {
        name.replace("indexes/recipes", "vitsearch/recipes_data")
        for name in tracked()
        if name.startswith("indexes/recipes/")
    }
    assert package - names == set()
    assert recipes - names == set()
    others = {name for name in names - package - recipes if not name.startswith(information)}
    assert {name for name in others if (ROOT / name).is_file()} == others  # new in the work tree
    assert {name for name in others if not name.startswith("vitsearch/")} == set()
    licences = {f"{information}/licenses/{name}" for name in PROJECT["license-files"]}
    assert licences - names == set()


def test_the_metadata_is_what_an_index_takes(built: dict[str, Path]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *built.values()],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    with zipfile.ZipFile(built[".whl"]) as wheel:
        (file,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = Parser().parsestr(wheel.read(file).decode("utf-8"))
    assert (metadata["Name"], metadata["Requires-Python"]) == ("vitsearch", ">=3.11")
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Description-Content-Type"] == "text/markdown"
    pythons = [each for each in metadata.get_all("Classifier", []) if "Python :: 3." in each]
    assert [each.rpartition(" ")[2] for each in pythons] == ["3.11", "3.12", "3.13"]
