"""Write docs/licences.md: the licences of what the wheel and its extras bring, from the metadata of
the packages installed here.
"""

import re
import sys
import tomllib
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
EXTRAS = ("clip", "faiss", "heif", "raw", "jxl", "video", "parquet", "probe", "places", "ocr")
EXTRAS += ("web", "ray", "milvus", "s3", "st", "datasets")
HEAD = """# Licences

The package is under the Apache License 2.0 ([LICENSE](../LICENSE)); what it holds of others is
named in [NOTICE](../vitsearch/NOTICE) and in that of the model
([NOTICE](../vitsearch/encoders/mini/NOTICE)). The wheel brings no other code: `pip` installs the
packages below, each under its own licence. The tables are written by `make licences` from the
metadata of the versions in `constraints.txt`; packages of one system alone (NVIDIA's CUDA libraries
for PyTorch on Linux, which are proprietary) are named where they are installed.

Five wheels of `[all]` carry more than their own licence. That of pillow-heif (`vitsearch[heif]`)
holds libheif and libde265 (LGPL-3.0) and x265 (GPL-2.0), which makes it GPL-2.0 as a whole. Whoever
passes it on together with vitsearch has to follow that licence; without the extra, HEIC files are
skipped and nothing of it is there. That of rawpy (`vitsearch[raw]`) holds LibRaw (LGPL-2.1 or
CDDL-1.0). pillow-jxl-plugin (`vitsearch[jxl]`) is GPL-3.0 itself. That of av (`vitsearch[video]`)
holds FFmpeg built with x264 and x265 (GPL-2.0), which makes it GPL-2.0 or later as a whole, and
GnuTLS (LGPL-2.1); without the extra, videos are skipped. That of opencv-python-headless
(`vitsearch[ocr]`) holds FFmpeg (LGPL-2.1), and that of rapidocr the models of PP-OCR, which are
under the Apache License 2.0 too.
"""


def needs(package: Distribution, extra: str) -> list[tuple[str, set[str]]]:
    """Return the packages that one needs with an extra, each with its own extras."""
    found = []
    for line in package.requires or ():
        needed = Requirement(line)
        if needed.marker is None or needed.marker.evaluate({"extra": extra}):
            found.append((needed.name, needed.extras))
    return found


def closure(names: list[tuple[str, set[str]]]) -> dict[str, Distribution]:
    """Return the packages of these names and all that they need, by name."""
    found: dict[str, Distribution] = {}
    waiting, seen = list(names), set()
    while waiting:
        name, extras = waiting.pop()
        key = (re.sub(r"[-_.]+", "-", name).lower(), frozenset(extras))
        if key in seen or key[0] == "vitsearch":
            continue
        seen.add(key)
        try:
            package = distribution(name)
        except PackageNotFoundError:
            continue  # of another system, or of another extra
        found[key[0]] = package
        for extra in ("", *extras):
            waiting += needs(package, extra)
    return found


def licence(package: Distribution) -> str:
    """Return the licence that a package states: an expression, a classifier, or its first words."""
    facts = package.metadata
    stated = facts.get("License-Expression")
    classified = [
        line.rpartition(" :: ")[2]
        for line in facts.get_all("Classifier") or ()
        if line.startswith("License :: ") and not line.endswith("OSI Approved")
    ]
    text = (facts.get("License") or "").strip().partition("\n")[0][:60]
    return stated or "; ".join(classified) or text or "see its own files"


def table(packages: dict[str, Distribution]) -> list[str]:
    rows = [
        f"| {name} | {packages[name].version} | {licence(packages[name])} |"
        for name in sorted(packages)
    ]
    return ["| package | version | licence |", "|---|---|---|", *rows]


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    parts, known = [HEAD.rstrip()], {}
    for extra in ("", *EXTRAS):
        lines = project["optional-dependencies"][extra] if extra else project["dependencies"]
        wanted = [(one.name, one.extras) for one in map(Requirement, lines)]
        packages = {name: one for name, one in closure(wanted).items() if name not in known}
        known |= packages
        title = f"`vitsearch[{extra}]` brings besides" if extra else "`vitsearch` brings"
        parts += [f"## {title}", "\n".join(table(packages)) if packages else "Nothing more."]
    (ROOT / "docs" / "licences.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    sys.stdout.write(f"{len(known)} packages are in docs/licences.md\n")


main()
