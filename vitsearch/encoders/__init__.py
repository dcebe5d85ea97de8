"""Encoders by name, ``SOURCE`` or ``SOURCE:MODEL``: the sources of `SOURCES`, and those that other
packages bring through the entry point group ``vitsearch.encoders``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from vitsearch.encoders.base import Encoder, ImageEncoder
from vitsearch.encoders.checkpoints import (
    SENTENCE_TRANSFORMERS_MODULES,
    is_plain_transformers,
    local_folder,
    named_by,
    one_line,
    read_json,
)
from vitsearch.encoders.devices import device_names, on_devices
from vitsearch.errors import EncoderError, VitsearchError, needing

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from vitsearch.encoders.onnx_cache import OnnxExport
    from vitsearch.encoders.torch_encoder import TorchEncoder

__all__ = ["SOURCES", "Encoder", "EncoderSource", "ImageEncoder", "load_encoder", "prepare_model"]

GROUP = "vitsearch.encoders"  # of entry points: each is a function of model, device and dtype
OPEN_CLIP_CONFIG = "open_clip_config.json"
TRANSFORMERS_CONFIG = "config.json"

Load = Callable[[str, str, str, bool], ImageEncoder]  # model, device, dtype, throughput


@dataclass(frozen=True, slots=True)
class EncoderSource:
    """Where encoders come from: how they are spelled, what they are, and how one is loaded.

    A ``spelling`` with a colon takes a model. ``extra`` is the optional dependency
    ``vitsearch[extra]`` that it needs, ``exports`` whether its models, CLIP or SigLIP in PyTorch,
    can be exported for ONNX Runtime.
    """

    name: str
    spelling: str
    help: str
    load: Load
    example: str | None = None
    extra: str | None = None
    exports: bool = False

    @property
    def takes_model(self) -> bool:
        """Whether the name of a model follows the source's name."""
        return ":" in self.spelling


def _mini(model: str, device: str, dtype: str, throughput: bool) -> Encoder:
    from vitsearch.encoders.mini import load_mini

    return load_mini(device=device, dtype=dtype, throughput=throughput)


def _colour(model: str, device: str, dtype: str, throughput: bool) -> Encoder:
    from vitsearch.encoders.colour import ColourEncoder

    return ColourEncoder()


def _open_clip(model: str, device: str, dtype: str, throughput: bool) -> Encoder:
    from vitsearch.encoders.open_clip import load_open_clip

    return load_open_clip(model, device=device, dtype=dtype)


def _hf(model: str, device: str, dtype: str, throughput: bool) -> ImageEncoder:
    from vitsearch.encoders.huggingface import load_hf

    return load_hf(model, device=device, dtype=dtype)


def _timm(model: str, device: str, dtype: str, throughput: bool) -> ImageEncoder:
    from vitsearch.encoders.timm import load_timm

    return load_timm(model, device=device, dtype=dtype)


def _sentence_transformers(model: str, device: str, dtype: str, throughput: bool) -> Encoder:
    from vitsearch.encoders.sentence_transformers import load_sentence_transformers

    return load_sentence_transformers(model, device=device, dtype=dtype)


def _local_dir(model: str, device: str, dtype: str, throughput: bool) -> ImageEncoder:
    return load_local_dir(model, device=device, dtype=dtype)


SOURCES = {
    source.name: source
    for source in (
        EncoderSource("mini", "mini", "the model inside the package, English and Spanish", _mini),
        EncoderSource("colour", "colour", "colours and their English words, no weights", _colour),
        EncoderSource(
            "open_clip",
            "open_clip:ARCH/TAG",
            "a pretrained model that open_clip lists",
            _open_clip,
            example="open_clip:ViT-B-32/laion2b_s34b_b79k",
            extra="clip",
            exports=True,
        ),
        EncoderSource(
            "hf",
            "hf:ORG/NAME",
            "a CLIP, SigLIP or like model of the Hugging Face hub",
            _hf,
            example="hf:openai/clip-vit-base-patch32",
            extra="clip",
            exports=True,
        ),
        EncoderSource(
            "timm",
            "timm:NAME",
            "an image tower of timm, which reads no text",
            _timm,
            example="timm:vit_small_patch14_dinov2.lvd142m",
            extra="clip",
        ),
        EncoderSource(
            "st",
            "st:ORG/NAME",
            "a model of pictures and texts of sentence-transformers",
            _sentence_transformers,
            example="st:sentence-transformers/clip-ViT-B-32",
            extra="st",
        ),
        EncoderSource(
            "local-dir",
            "local-dir:/path",
            "a folder that open_clip, transformers, sentence-transformers or timm saved",
            _local_dir,
            extra="clip",
            exports=True,
        ),
    )
}
_CLIP = {"torch", "torchvision", "open_clip", "timm", "transformers", "huggingface_hub"}
_PACKAGES = {"clip": _CLIP, "st": {*_CLIP, "sentence_transformers"}}


def load_encoder(
    name: str,
    device: str = "auto",
    dtype: str = "auto",
    *,
    runtime: str = "auto",
    export: bool = False,
    throughput: bool = False,
) -> Encoder:
    """Return the encoder of that name, ready to encode.

    ``device`` is "auto", "cpu", "cuda", "cuda:1", "mps", or for many pictures several, as
    "cuda:0,cuda:1" or "cuda:all": a process on each then encodes, and texts are encoded on the
    first; `ImageEncoder.free_image_tower` ends them. ``dtype`` is "auto", "float32",
    "float16", "bfloat16" or "int8" (auto: float32 on a CPU, float16 on a GPU). ``runtime`` says
    what runs a CLIP or SigLIP model: "torch"; "onnx", on a CPU in float32 or int8, its export made
    where there is none; "auto": ONNX Runtime on a CPU where there is an export, else torch. With
    ``export``, auto makes one too, and where that cannot be, that is logged and torch runs the
    model. ``throughput`` is for many pictures rather than a query at a time: ONNX Runtime computes
    each batch with one thread, and `encode_prepared` is to be called from as many threads as the
    encoder's ``parallel_calls`` says.

    A source that is not one of `SOURCES` is looked up among the entry points of installed packages;
    it may bring an `ImageEncoder` that reads no text. An encoder is pickled as its name, device and
    number format, and loaded again from these. Raises EncoderError with the spellings to
    try, the extra to install, or the missing file.
    """
    source, model = _parsed(name)
    encoder: ImageEncoder
    devices = device_names(device)
    try:
        if source.exports:
            encoder = _exportable(
                name, devices[0], dtype, runtime, export=export, throughput=throughput
            )
        else:
            encoder = source.load(model, devices[0], dtype, throughput)
    except ImportError as error:
        raise _as_missing_extra(name, source, error) from error
    if len(devices) > 1:
        encoder = on_devices(encoder, devices, runtime)
    encoder.load_again = partial(
        load_encoder,
        encoder.name,
        device,
        encoder.dtype,
        runtime=runtime,
        throughput=throughput,
    )
    # the type of nearly all: what a package brings may be an encoder of pictures only
    return encoder  # type: ignore[return-value]


def needs_preparation(name: str) -> bool:
    """Return whether `prepare_model` has something to do for an encoder; raises EncoderError for a
    name without a source.
    """
    return _parsed(name)[0].exports


def without_preparation(name: str) -> str:
    """Return what is to be said of an encoder that `prepare_model` has nothing to do for."""
    source = _parsed(name)[0]
    if source.name in SOURCES and source.extra is None:
        return "needs no preparation: it runs without PyTorch as it is"
    return "cannot be prepared: there is no export of its kind for ONNX Runtime"


def prepare_model(name: str, *, dtype: str = "float32") -> "OnnxExport":
    """Make the export of a CLIP or SigLIP model for ONNX Runtime ahead of its use, in float32 or
    int8, where there is none that is complete.

    Raises EncoderError for a model that cannot be loaded or exported.
    """
    from vitsearch.encoders import onnx_cache as runtime

    if not needs_preparation(name):
        raise EncoderError(f"encoder {name!r} {without_preparation(name)}")
    source, _ = _parsed(name)
    try:
        return runtime.prepare_model(name, _in_torch(name), dtype=dtype)
    except ImportError as error:
        raise _as_missing_extra(name, source, error) from error


def is_known(name: str) -> bool:
    """Return whether there is a source for the encoder of that name; nothing is loaded."""
    source = name.partition(":")[0]
    return source in SOURCES or source in package_sources()


def load_named_encoder(name: str, where: object, *options: str, **keywords: bool) -> Encoder:
    """Return the encoder that the file or collection ``where`` names; parameters as for
    `load_encoder`.

    It may come from a stranger, so it is downloaded only in `downloads_allowed`; raises
    EncoderError, with what to do, where it is not on this machine, and where a program made the
    collection with an encoder object of its own.
    """
    if not is_known(name):
        raise EncoderError(
            f"{where} was made with an encoder object called {name!r}, or with one of a package "
            "that is not installed here: give the object (Collection.open(PHOTOS, encoder=...), "
            "index_folder(PHOTOS, encoder=...)), or make another collection with `vitsearch "
            "index PHOTOS --encoder NAME --collection DIR`"
        )
    with named_by(str(where)):
        return load_encoder(name, *options, **keywords)  # type: ignore[arg-type]


def spellings() -> str:
    """Return how the encoders of every source are spelled, with examples, as messages show it."""
    return ", ".join(
        f"{source.spelling} ({source.example})" if source.example else source.spelling
        for source in SOURCES.values()
    )


def package_sources() -> dict[str, str]:
    """Return the sources that other packages bring, each with the package's name and version; none
    is loaded.
    """
    return {entry.name: _package(entry) for entry in _entries() if entry.name not in SOURCES}


def load_local_dir(path: str, *, device: str = "auto", dtype: str = "auto") -> ImageEncoder:
    """Return the encoder in a folder of any layout; where two are there, open_clip's.

    A folder of sentence-transformers holds ``modules.json`` (one that is a CLIP or SigLIP model of
    transformers and no more is read as such), an open_clip folder
    ``open_clip_config.json`` and weights, a transformers folder ``config.json``,
    ``model.safetensors``, ``preprocessor_config.json`` and, where it reads text, a tokenizer, a
    timm folder ``config.json`` and ``model.safetensors``. Raises EncoderError naming the file that
    is missing or damaged.
    """
    folder = local_folder(path)
    name = f"local-dir:{folder}"
    if (folder / OPEN_CLIP_CONFIG).is_file():
        from vitsearch.encoders.open_clip import load_open_clip_folder

        return load_open_clip_folder(folder, name, device=device, dtype=dtype)
    if (folder / SENTENCE_TRANSFORMERS_MODULES).is_file() and not is_plain_transformers(folder):
        with needing(("sentence_transformers",), f"{name} needs the package", "st", EncoderError):
            from vitsearch.encoders.sentence_transformers import load_sentence_transformers_folder
        return load_sentence_transformers_folder(folder, name, device=device, dtype=dtype)
    if (folder / TRANSFORMERS_CONFIG).is_file():
        if "architecture" in read_json(folder / TRANSFORMERS_CONFIG, name):
            from vitsearch.encoders.timm import load_timm_folder

            return load_timm_folder(folder, name, device=device, dtype=dtype)
        from vitsearch.encoders.huggingface import load_transformers_folder

        return load_transformers_folder(folder, name, device=device, dtype=dtype)
    raise EncoderError(
        f"the folder {folder} holds no model: neither {OPEN_CLIP_CONFIG} (open_clip) nor "
        f"{TRANSFORMERS_CONFIG} (transformers) is in it"
    )


def _parsed(name: str) -> tuple[EncoderSource, str]:
    """Return the source and the model; raises EncoderError with the spellings to try."""
    prefix, _, model = name.partition(":")
    source = SOURCES[prefix] if prefix in SOURCES else _from_package(prefix)
    if source is None or (prefix in SOURCES and source.takes_model != bool(model)):
        raise EncoderError(
            f"unknown encoder {name!r}: try one of {spellings()}; `vitsearch models` lists more"
        )
    return source, model


def _from_package(name: str) -> EncoderSource | None:
    """Return the source of that name that an installed package brings, or None; raises EncoderError
    where two packages do.
    """
    entries = [entry for entry in _entries() if entry.name == name]
    if not entries:
        return None
    if len(entries) > 1:
        packages = " and ".join(sorted(map(_package, entries)))
        raise EncoderError(f"{packages} both bring encoders {name!r}: uninstall one of them")
    (entry,) = entries

    def load(model: str, device: str, dtype: str, throughput: bool) -> ImageEncoder:
        return _loaded_from(entry, model, device, dtype)

    return EncoderSource(name, name, f"from the package {_package(entry)}", load)


def _entries() -> "list[EntryPoint]":
    from importlib.metadata import entry_points  # costs as much as a search, and is seldom needed

    return list(entry_points(group=GROUP))


def _loaded_from(entry: "EntryPoint", model: str, device: str, dtype: str) -> ImageEncoder:
    """Return the encoder of another package; whatever goes wrong there is an EncoderError."""
    source, package = entry.name, _package(entry)
    try:
        encoder: object = entry.load()(model, device, dtype)
    except VitsearchError:
        raise
    except Exception as error:
        raise EncoderError(
            f"encoders {source!r} of the package {package} cannot be loaded "
            f"({type(error).__name__}: {one_line(error)}): repair that package, or uninstall it"
        ) from error
    if not isinstance(encoder, ImageEncoder):
        raise EncoderError(
            f"encoders {source!r} of the package {package} are not subclasses of "
            f"vitsearch.encoders.ImageEncoder ({type(encoder).__name__}): repair that package"
        )
    if encoder.name.partition(":")[0] != source:
        raise EncoderError(
            f"the package {package} names an encoder {encoder.name!r}, by which it cannot be "
            f"loaded again: its name must be {source!r} or begin with '{source}:'"
        )
    return encoder


def _package(entry: "EntryPoint") -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value


def _as_missing_extra(name: str, source: EncoderSource, error: ImportError) -> EncoderError:
    package = (error.name or "").partition(".")[0]
    missing = isinstance(error, ModuleNotFoundError)
    if missing and source.extra is not None and package in _PACKAGES[source.extra]:
        return EncoderError(
            f"encoder {name!r} needs the package {error.name}: "
            f"pip install 'vitsearch[{source.extra}]'"
        )
    return EncoderError(
        f"encoder {name!r} cannot be loaded ({type(error).__name__}: {one_line(error)}): install "
        "or repair that package"
    )


def _exportable(
    name: str, device: str, dtype: str, runtime: str, *, export: bool, throughput: bool
) -> Encoder:
    """Return a CLIP or SigLIP model on ONNX Runtime or PyTorch."""
    from vitsearch.encoders.onnx_cache import check_runtime, find_encoder, make_encoder

    check_runtime(runtime, device, dtype)
    in_torch = _in_torch(name)
    exported = find_encoder(
        name, device, dtype, runtime, in_torch, throughput=throughput, refresh=export
    )
    if exported is not None:
        return exported
    if export or runtime == "onnx" or dtype == "int8":
        encoder: Encoder = make_encoder(
            name, device, dtype, runtime, in_torch, throughput=throughput
        )
        return encoder
    return in_torch(device, dtype)


def _in_torch(name: str) -> "Callable[[str, str], TorchEncoder]":
    source, _, model = name.partition(":")
    load = SOURCES[source].load
    return lambda device, dtype: load(model, device, dtype, False)  # type: ignore[return-value]
