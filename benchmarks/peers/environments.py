"""A virtual environment for each program that is measured, with the versions it needs; made once
and kept.

Torch is not installed five times: one folder links to torch, torchvision and all that they need in
the environment of this Python, and every other environment sees that folder through a ``.pth``
file, its own packages first. So all run the torch that vitsearch runs, and each has its own
transformers, NumPy and setuptools where it pins them.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

SHARED = ("torch", "torchvision")
PINS = {
    "open_clip": ["open_clip_torch==3.3.0", "pillow-heif==1.8.1"],
    "transformers": ["transformers==5.23.0"],
    "sentence-transformers": ["sentence-transformers==6.2.0", "transformers==5.23.0"],
    # CLIP there imports pkg_resources, which newer setuptools lost; opencv from 4.12 on wants NumPy
    # 2, which it refuses
    "rclip": ["rclip==4.0.8"],
    "onnx_loop": ["onnxruntime==1.32.0", "pillow==13.0.0"],
    "clip-retrieval": [
        "clip-retrieval==2.45.0",
        "setuptools==80.9.0",
        "transformers==4.57.3",
        "opencv-python-headless==4.10.0.84",
    ],
}


PYTHONS = {"rclip": "python3.12"}  # that a program needs; it has no torch


class NotInstalled(Exception):
    """An environment could not be made; the message is pip's own last line."""


def environment(work: Path, name: str) -> Path:
    """Return the Python of a program's environment, made where it is not there yet; raises
    NotInstalled.
    """
    folder, pins = work / "environments" / name, PINS[name]
    python, done = folder / "bin" / "python", folder / "installed.txt"
    if done.exists() and done.read_text().split() == pins:
        return python
    base = shutil.which(PYTHONS[name]) if name in PYTHONS else sys.executable
    if base is None:
        raise NotInstalled(f"{PYTHONS[name]} is not on the PATH")
    subprocess.run([base, "-m", "venv", "--clear", folder], check=True)
    if base == sys.executable:
        (_packages(python) / "shared-torch.pth").write_text(
            f"{linked_torch(work / 'environments' / 'torch')}\n"
        )
    print(f"installing {' '.join(pins)}", file=sys.stderr, flush=True)
    pip = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", *pins],
        capture_output=True,
        text=True,
        check=False,
    )
    if pip.returncode:
        raise NotInstalled((pip.stderr.strip() or "pip failed without a word").splitlines()[-1])
    done.write_text("\n".join(pins))
    return python


def linked_torch(folder: Path) -> Path:
    """Return a folder that links to this Python's torch and torchvision and to what they need;
    raises NotInstalled without them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for installed in with_needs(SHARED):
        for top in {
            file.parts[0]
            for file in installed.files or ()
            if file.parts[0] not in ("..", "__pycache__")
        }:
            link = folder / top
            if not link.is_symlink():
                link.symlink_to(Path(installed.locate_file(top)).resolve())
    return folder


def with_needs(names: tuple[str, ...]) -> Iterator[Distribution]:
    """Yield the named distributions of this Python and, once each, all that they need here, extras
    too.
    """
    pending: list[tuple[str, frozenset[str]]] = [(name, frozenset()) for name in names]
    seen = set()
    while pending:
        name, extras = requirement = pending.pop()
        if requirement in seen:
            continue
        seen.add(requirement)
        try:
            installed = distribution(name)
        except PackageNotFoundError as error:
            raise NotInstalled(f"{name} is not there: pip install 'vitsearch[clip]'") from error
        yield installed
        for need in map(Requirement, installed.requires or ()):
            if need.marker is None or any(
                need.marker.evaluate({"extra": extra}) for extra in ("", *extras)
            ):
                pending.append((need.name, frozenset(need.extras)))


def _packages(python: Path) -> Path:
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return Path(
        subprocess.run(
            [python, "-c", code], check=True, capture_output=True, text=True
        ).stdout.strip()
    )
