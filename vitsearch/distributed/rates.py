"""The rates that a plan reckons with: each a number with the place it comes from, and each may be given instead."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from vitsearch.encoders.catalogue import list_encoders
from vitsearch.errors import VitsearchError

_TIMM = "published by timm, results/benchmark-infer-*.csv: the image tower alone, AMP"
_THROUGHPUT = "measured with benchmarks/throughput.py on two cores of an AMD EPYC, less the decoding"
GPUS = ("3090", "4090", "5090", "pro6000")
TOWERS = {  # pictures a second of the image tower, in the order of GPUS
    "vit_base_patch32_clip_224": (5090, 12151, 14023, 17992),
    "vit_base_patch16_224": (1571, 2993, 3916, 5059),
    "vit_base_patch16_siglip_224": (1435, 2602, 3323, 5052),
    "vit_large_patch14_clip_224": (360, 785, 831, 1191),
    "vit_huge_patch14_clip_224": (184, 402, 421, 598),
    "vit_so400m_patch14_siglip_384": (81, 161, 181, 282),
}
ARCHITECTURES = {
    "vit-b-32": "vit_base_patch32_clip_224",
    "clip-vit-base-patch32": "vit_base_patch32_clip_224",
    "vit-b-16": "vit_base_patch16_224",
    "clip-vit-base-patch16": "vit_base_patch16_224",
    "vit-b-16-siglip": "vit_base_patch16_siglip_224",
    "vit-b-16-siglip2": "vit_base_patch16_siglip_224",
    "siglip-base-patch16-224": "vit_base_patch16_siglip_224",
    "siglip2-base-patch16-224": "vit_base_patch16_siglip_224",
    "vit-l-14": "vit_large_patch14_clip_224",
    "clip-vit-large-patch14": "vit_large_patch14_clip_224",
    "vit-h-14": "vit_huge_patch14_clip_224",
    "vit-so400m-14-siglip-384": "vit_so400m_patch14_siglip_384",
}
_BOTH_ENDS = ((0.3072, 2.3), (12.2, 25.0))  # megapixels of a JPEG, and milliseconds in which a core decodes it
_CPU = {"float32": 17.3, "int8": 28.9}  # photos of 640x480 a second, decoded and encoded, by ViT-B/32 on two cores
_MINI = 54.3


@dataclass(frozen=True, slots=True)
class Assumption:
    """One number that a plan rests on: what it is called (as its flag without dashes), its value, its unit, and where it comes from."""

    name: str
    value: float
    unit: str
    source: str


def common_rates() -> list[Assumption]:
    """Return the rates that depend neither on the encoder nor on the machines."""
    return [
        Assumption("megapixels", 12.2, "megapixels a photo", "assumed: a photo of a telephone"),
        Assumption(
            "list_rate",
            10_000,
            "files a second",
            "assumed: an object store lists 1,000 names a request, ten requests a second "
            "(a local disk: 130,000, measured with benchmarks/indexing.py)",
        ),
        Assumption("read_mbps", 500, "MB a second a machine", "assumed: an object store over a network of 10 Gbit/s"),
        Assumption("write_mbps", 200, "MB a second a machine", "assumed"),
        Assumption("row_bytes", 150, "bytes a photo beside its vector", "assumed: path, EXIF and sizes in Parquet"),
        Assumption("shard_size", 10_000, "photos a shard", "assumed"),
        Assumption(
            "build_per_core",
            3303,
            "vectors a second a core, 512 numbers and 4,096 lists",
            "measured with benchmarks/indexes.py: 10,000,000 vectors in 1,679 s on two cores, 165 s of them reckoned as training",
        ),
        Assumption("disk_mbps", 500, "MB a second of the disk where lists are merged", "assumed"),
        Assumption("milvus_rate", 10_000, "vectors a second into the cluster", "assumed: measure yours"),
        Assumption("memory_gb", 64, "GB a serving machine", "assumed"),
    ]


def photo_mb(megapixels: float) -> Assumption:
    """Return the megabytes of a photo of so many megapixels."""
    return Assumption("photo_mb", round(0.3 * megapixels, 4), "MB a photo", "assumed: a JPEG takes 0.3 bytes a pixel")


def decode_per_core(megapixels: float) -> Assumption:
    """Return how many JPEGs of so many megapixels a core decodes in a second, scaled to what a model needs."""
    (small, quick), (large, slow) = _BOTH_ENDS
    ms = quick + max(0.0, megapixels - small) * (slow - quick) / (large - small)
    source = "measured on one core of an AMD EPYC, scaled decoding: 2.3 ms at 640x480, 25 ms at 12 megapixels; linear between and beyond"
    return Assumption("decode_per_core", round(1000 / ms, 1), "photos a second a core", source)


def encode_rate(encoder: str, kind: str, dtype: str) -> tuple[float, str]:
    """Return photos a second of a GPU, or of a core where ``kind`` is "cpu", and where the figure comes from.

    Raises VitsearchError where none is known.
    """
    if kind == "cpu":
        return _cpu_rate(encoder, dtype)
    tower = ARCHITECTURES.get(architecture(encoder))
    name = gpu_name(kind)
    if tower is None or name not in GPUS:
        raise VitsearchError(
            f"no published rate of {encoder!r} on {kind!r} (known: {', '.join(GPUS)} and cpu, "
            "for CLIP and SigLIP of 224 pixels): measure it with benchmarks/gpu.py and give --encode-rate"
        )
    extra = ", bfloat16 and torch.compile, Max-Q" if name == "pro6000" else ""
    return float(TOWERS[tower][GPUS.index(name)]), f"{_TIMM}{extra} ({tower}): a ceiling"


def _cpu_rate(encoder: str, dtype: str) -> tuple[float, str]:
    whole = _MINI if encoder == "mini" else _CPU.get(dtype, _CPU["float32"])
    if encoder != "mini" and ARCHITECTURES.get(architecture(encoder)) != "vit_base_patch32_clip_224":
        raise VitsearchError(f"no measured rate of {encoder!r} on a CPU (mini and ViT-B/32 are known): give --encode-rate, of a core")
    ms = 2 * 1000 / whole - _BOTH_ENDS[0][1]
    return round(1000 / ms, 2), f"{_THROUGHPUT}{'' if encoder == 'mini' else ', ' + ('int8' if dtype == 'int8' else 'float32')}"


def gpu_name(kind: str) -> str:
    """Return the name of a GPU without its maker's words: "RTX PRO 6000" is "pro6000"."""
    return re.sub(r"nvidia|geforce|rtx|[\s_-]", "", kind.lower())


def architecture(encoder: str) -> str:
    """Return the architecture in an encoder's name, in lower case: "vit-b-32" of "open_clip:ViT-B-32/openai"."""
    source, _, model = encoder.rpartition(":")
    part = model.rpartition("/")[2] if source == "hf" else model.partition("/")[0]
    return part.lower().removesuffix("-quickgelu")


def dim_of(encoder: str) -> Assumption:
    """Return the length of an encoder's vectors. Raises VitsearchError for one that is not in the catalogue."""
    named = [one.dim for one in list_encoders() if one.dim and encoder in (one.name, one.name.rpartition("/")[0])]
    alike = [one.dim for one in list_encoders() if one.dim and architecture(one.name) == architecture(encoder)]
    if not named + alike:
        raise VitsearchError(f"how long the vectors of {encoder!r} are is not known: give --dim, or a name that `vitsearch models` lists")
    return Assumption("dim", float((named + alike)[0]), "numbers a vector", "the catalogue of encoders (`vitsearch models`)")


def chosen(rates: Mapping[str, Assumption], given: Mapping[str, float]) -> dict[str, Assumption]:
    """Return the rates with those that were given in their place. Raises VitsearchError for one that is not above 0 or not known."""
    for name, value in given.items():
        if name not in rates:
            raise VitsearchError(f"a plan has no {name!r}; it has {', '.join(rates)}")
        if not 0 < value < float("inf"):
            raise VitsearchError(f"--{name.replace('_', '-')} is a number above 0, not {value}")
    return {
        name: Assumption(name, float(given[name]), rate.unit, f"given: --{name.replace('_', '-')}") if name in given else rate
        for name, rate in rates.items()
    }
