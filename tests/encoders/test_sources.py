"""The registry of encoder sources, and encoders that another package brings."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from helpers.photos import paint
from vitsearch.encoders import SOURCES, load_encoder, spellings
from vitsearch.encoders.colour import ColourEncoder
from vitsearch.errors import EncoderError

ACME = '''
import numpy as np
from PIL import Image

from vitsearch.encoders import Encoder


class Brightness(Encoder):
    """How light a picture or a text is: nothing but what an encoder must have."""

    dim = 2
    fingerprint = "ac" * 16

    def __init__(self, model):
        self.name = f"acme:{model}"

    def prepare(self, image):
        return np.asarray(image.convert("L").resize((4, 4)))

    def encode_prepared(self, batch):
        return self._rows([picture.mean() / 255 for picture in batch])

    def encode_texts(self, texts):
        return self._rows([float("white" in text) for text in texts])

    def _rows(self, light):
        angle = np.array(light, dtype=np.float32).reshape(-1) * np.pi / 2
        return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


def load(model, device, dtype):
    if model == "broken":
        raise RuntimeError("no such\\nmodel")
    if model == "none":
        return object()
    encoder = Brightness(model)
    if model == "other":
        encoder.name = "mini"
    encoder.device = device
    return encoder
'''
ENTRIES = """[vitsearch.encoders]
acme = acme_encoders:load
absent = acme_encoders:missing
nowhere = acme_gone:load
mini = acme_encoders:load
"""


def install(site: Path, name: str, entries: str) -> None:
    """Lay out a package as an installer does: its metadata and its entry points."""
    info = site / f"{name}-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(entries)
    (info / "RECORD").write_text("")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder where the package acme-encoders is installed."""
    site = tmp_path / "site"
    install(site, "acme_encoders", ENTRIES)
    (site / "acme_encoders.py").write_text(ACME)
    return site


@pytest.fixture
def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(site)
    return site


def vitsearch(site: Path, *words: object) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, "-m", "vitsearch", *map(str, words)],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_an_encoder_of_another_package_indexes_and_searches(site: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for name in ("white", "grey", "black"):
        paint(photos / f"{name}.png", name)
    indexed = vitsearch(site, "index", photos, "--encoder", "acme:small", "--json")
    assert (indexed.returncode, json.loads(indexed.stdout)["indexed"]) == (0, 3)
    for words, expected in (
        ("a white wall", ["white.png", "grey.png", "black.png"]),
        ("a cellar", ["black.png", "grey.png", "white.png"]),
    ):
        hits = vitsearch(site, "search", photos, words, "--paths")
        assert (hits.returncode, hits.stdout.split()) == (0, expected)
    assert vitsearch(site, "verify", photos).returncode == 0
    assert "acme: from the package acme_encoders 1.2" in vitsearch(site, "models", "--help").stdout
    gone = vitsearch(tmp_path, "search", photos, "a white wall")
    assert gone.returncode == 1
    assert "was made with an encoder object called 'acme:small', or with one of a" in gone.stderr


@pytest.mark.usefixtures("installed")
def test_what_it_does_not_write_has_defaults() -> None:
    encoder = load_encoder("acme:small", "cuda:7")
    assert (encoder.dtype, encoder.device, encoder.decode_at_least) == ("float32", "cuda:7", None)
    assert (encoder.parallel_calls, encoder.pictures_per_call) == (1, None)
    assert (encoder.logit_scale, encoder.logit_bias, encoder.languages) == (100.0, None, ())
    assert encoder.encode_images([]).shape == encoder.encode_texts([]).shape == (0, 2)
    assert not encoder.is_cut("words " * 1000)
    encoder.autotune(32, photos=10**6)
    encoder.free_image_tower()


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("absent", "cannot be loaded (AttributeError: "),
        ("nowhere:x", "cannot be loaded (ModuleNotFoundError: No module named 'acme_gone')"),
        ("acme:broken", "cannot be loaded (RuntimeError: no such model)"),
        ("acme:none", "are not subclasses of vitsearch.encoders.ImageEncoder (object)"),
        ("acme:other", "names an encoder 'mini', by which it cannot be loaded again"),
    ],
)
def test_a_broken_one_is_one_clear_line(name: str, reason: str) -> None:
    with pytest.raises(EncoderError) as raised:
        load_encoder(name)
    assert reason in str(raised.value)
    assert "acme_encoders 1.2" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.usefixtures("installed")
def test_a_built_in_name_cannot_be_replaced() -> None:
    assert type(load_encoder("mini")).__module__ == "vitsearch.encoders.mini"


def test_two_packages_of_one_name_are_refused(installed: Path) -> None:
    install(installed, "rival", "[vitsearch.encoders]\nacme = rival:load\n")
    with pytest.raises(EncoderError, match=r"acme_encoders 1\.2 and rival 1\.2 both bring"):
        load_encoder("acme:small")


@pytest.mark.slow
def test_built_in_encoders_are_loaded_without_a_look_at_the_packages() -> None:
    code = (
        "import sys; from vitsearch.encoders import load_encoder; load_encoder('colour'); "
        "sys.exit('importlib.metadata' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_source_is_in_the_spellings_to_try() -> None:
    for name in ("unknown", "mini:x", "hf", "", ":"):
        with pytest.raises(EncoderError) as raised:
            load_encoder(name)
        assert f"try one of {spellings()}; `vitsearch models` lists more" in str(raised.value)
    assert [name for name in SOURCES if name not in spellings()] == []


@pytest.mark.parametrize("name", ["colour", "mini"])
def test_an_encoder_is_pickled_as_its_name(name: str) -> None:
    encoder = load_encoder(name, device="cpu")
    data = pickle.dumps(encoder)
    again = pickle.loads(data)
    assert len(data) < 500
    assert type(again) is type(encoder)
    assert (again.name, again.dtype, again.fingerprint) == (
        encoder.name,
        encoder.dtype,
        encoder.fingerprint,
    )
    np.testing.assert_array_equal(again.encode_texts(["red"]), encoder.encode_texts(["red"]))
    assert pickle.dumps(again) == data


def test_an_encoder_without_a_name_says_that_it_cannot_be_loaded_again() -> None:
    from vitsearch.encoders.mini import load_mini

    with pytest.raises(EncoderError, match=r"MiniEncoder was not loaded by a name.*load_encoder"):
        pickle.dumps(load_mini(device="cpu"))
    assert type(pickle.loads(pickle.dumps(ColourEncoder()))) is ColourEncoder  # holds nothing open


def test_a_pickled_encoder_that_is_another_one_by_then_is_refused() -> None:
    encoder = load_encoder("colour")
    encoder.fingerprint = "0" * 32
    with pytest.raises(EncoderError, match="another one here"):
        pickle.loads(pickle.dumps(encoder))
