"""What is installed beside the package: pinned for the tests, and its licences named."""

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from helpers.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
# needs another FAISS than [all]
REQUIRED = [
    requirement
    for extra, lines in (("", PROJECT["dependencies"]), *EXTRAS.items())
    for requirement in map(Requirement, lines)
    if requirement.name != "vitsearch" and extra != "gpu"
]


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


def test_every_dependency_is_pinned_for_the_tests_above_its_floor() -> None:
    known = pinned()
    wrong = [
        f"{one} is {known.get(canonicalize_name(one.name))}"
        for one in REQUIRED
        if not one.specifier.contains(
            known.get(canonicalize_name(one.name), "0.dev0"), prereleases=True
        )
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "extra",
    [
        "",
        "clip",
        "faiss",
        "heif",
        "raw",
        "jxl",
        "video",
        "parquet",
        "ocr",
        "web",
        "ray",
        "milvus",
        "st",
        "datasets",
    ],
)
def test_the_licence_of_every_dependency_is_named(extra: str) -> None:
    text = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| ([\w.-]+) \| [\w.+]+ \| (.+) \|$", text, re.MULTILINE))
    lines = EXTRAS[extra] if extra else PROJECT["dependencies"]
    names = {canonicalize_name(Requirement(line).name) for line in lines} - {"vitsearch"}
    assert sorted(names - set(rows)) == []
    assert {name for name in names if not rows[name].strip()} == set()


def test_the_licences_are_those_of_the_pinned_versions() -> None:
    text = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| ([\w.-]+) \| ([\w.+]+) \|", text, re.MULTILINE))
    del rows["package"]
    known = pinned()
    assert {name: version for name, version in rows.items() if known.get(name) != version} == {}
