"""``hf:ORG/NAME``: transformers' models of two towers (CLIP, SigLIP, Meta CLIP 2, Chinese-CLIP and
others), with our own preprocessing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from inspect import signature
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES
from transformers.utils import logging

from vitsearch.encoders.checkpoints import (
    TRANSFORMERS_FILES,
    RequiredFiles,
    check_saved,
    check_settings,
    check_tokenizer,
    fingerprint_files,
    one_line,
    read_json,
    weights_hash,
)
from vitsearch.encoders.hub import hub_folder
from vitsearch.encoders.language import language_marks, mark_languages
from vitsearch.encoders.lazy_weights import LazyWeights, build_lazily, find_weights
from vitsearch.encoders.preprocess import Preprocess, from_transformers
from vitsearch.encoders.tokenizer import (
    CLEANINGS,
    Cleaning,
    PortableTokenizer,
    TokenRules,
    check_tokenizer_files,
    portable_fast,
)
from vitsearch.encoders.torch_encoder import (
    Tokens,
    TorchEncoder,
    TorchImageEncoder,
    Towers,
    choose_device,
    choose_dtype,
)
from vitsearch.errors import EncoderError
from vitsearch.untrusted import guarded
from vitsearch.vit.weights import vit_from_transformers

_EXTRAS = [
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "vocab.txt",
]
_MOVES_NOTHING = {
    "transformers_version",
    "_name_or_path",
    "architectures",
    "torch_dtype",
    "dtype",
    "_commit_hash",
    "initializer_factor",
}
_IMAGE_NAMES = ("vision_model.", "visual_projection.")
_NOT_ONE_VECTOR = {"flava", "blip-2"}  # theirs are several for each picture or text
# read no text; their vector is the pooled one
_IMAGE_ONLY = {"dinov2", "dinov2_with_registers", "dinov3_vit", "dinov3_convnext"}

Tokenize = Callable[[Sequence[str]], Tokens]


def load_hf(model: str, *, device: str = "auto", dtype: str = "auto") -> TorchImageEncoder:
    """Return the encoder ``ORG/NAME`` of the Hugging Face hub, from the cache where it is complete
    there, else downloaded.

    Raises EncoderError for another kind of model, or for files that cannot be had or read.
    """
    if model.count("/") != 1 or not all(model.split("/")):
        raise EncoderError(
            f"hf:{model} is no name of a model: it is hf:ORG/NAME, as in "
            "hf:openai/clip-vit-base-patch32"
        )
    name, settings = f"hf:{model}", hub_folder(model, TRANSFORMERS_FILES[:1])
    folder = hub_folder(model, _files_of(settings, name), also=_EXTRAS)
    return load_transformers_folder(folder, name, device=device, dtype=dtype)


def _files_of(folder: Path, name: str) -> RequiredFiles:
    """Return the files that the model of a folder needs: one of pictures alone has no tokenizer."""
    kind = read_json(folder / "config.json", name).get("model_type")
    return TRANSFORMERS_FILES[:3] if kind in _IMAGE_ONLY else TRANSFORMERS_FILES


def load_transformers_folder(
    folder: Path, name: str, *, device: str, dtype: str
) -> TorchImageEncoder:
    """Return the encoder that transformers saved in a folder, a `TorchEncoder` where it reads text;
    raises EncoderError naming the file that is missing or damaged.
    """
    check_saved(folder, _files_of(folder, name), name)
    target, number_format = choose_device(device), choose_dtype(dtype, choose_device(device))
    config = read_json(folder / "config.json", name)
    _check_kind(config, name)
    check_settings(config, _weight_files(folder), name)
    preprocess = read_preprocess(folder, name)
    net, waiting = _load_model(folder, name)
    if config["model_type"] in _IMAGE_ONLY:
        facts = {**_facts(folder, config), "vector": "pooled"}
        return TorchImageEncoder(
            name,
            _image_towers(net, fingerprint_files(folder)),
            preprocess=preprocess,
            facts=facts,
            device=target,
            dtype=number_format,
        )
    texts = _load_tokenizer(folder, name, config, net)
    facts = {**_facts(folder, config), "tokenizer": weights_hash(_tokenizer_files(folder))}
    towers = _towers(net, texts, fingerprint_files(folder), waiting)
    return TorchEncoder(
        name, towers, preprocess=preprocess, facts=facts, device=target, dtype=number_format
    )


def _facts(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "source": "transformers",
        "config": _lasting(config),
        "weights": weights_hash(_weight_files(folder)),
    }


def _check_kind(config: Mapping[str, Any], name: str) -> None:
    """Raise EncoderError for a model that has no vectors of pictures and texts to compare."""
    kind = config.get("model_type")
    model = getattr(transformers, str(MODEL_MAPPING_NAMES.get(str(kind), "-")), None)
    if model is None:
        raise EncoderError(
            f"{name} is a model of kind {kind!r}, which transformers {transformers.__version__} "
            "does not have, and the code of a model is never run: use open_clip:ARCH/TAG where "
            "open_clip has it"
        )
    if kind in _IMAGE_ONLY:
        return
    images, texts = (getattr(model, f"get_{each}_features", None) for each in ("image", "text"))
    reads = [set(signature(each).parameters) if each else set() for each in (images, texts)]
    if "pixel_values" not in reads[0] or "input_ids" not in reads[1] or kind in _NOT_ONE_VECTOR:
        raise EncoderError(
            f"{name} is a model of kind {kind!r}, which has no vectors of pictures and texts to "
            "compare: take a CLIP or SigLIP model, such as hf:google/siglip2-base-patch16-224, or "
            "for pictures alone DINO (hf:facebook/dinov2-base) or timm:NAME"
        )


def _load_model(folder: Path, name: str) -> tuple[nn.Module, LazyWeights | None]:
    """Return the model, and what of its weights waits in the files; None: all of it
    has been read.
    """
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        kind: Any = AutoModel  # its methods carry no types
        lazy = build_lazily(
            lambda: kind.from_config(
                deepcopy(config), dtype=torch.float32, trust_remote_code=False
            ),
            _weight_files(folder),
            name,
        )
        waiting = (
            find_weights(lazy, _weight_files(folder), image=_IMAGE_NAMES, unread=".position_ids")
            if lazy
            else None
        )
        if lazy is not None and waiting is not None:
            return lazy, waiting
        net, report = read_weights(AutoModel, folder, config=config)
    except (ImportError, EncoderError):
        raise
    except Exception as error:  # transformers, torch and safetensors each raise their own
        files = ", ".join(file.name for file in _weight_files(folder))
        raise EncoderError(
            f"{name}: cannot read {files} in {folder} ({one_line(error)}): fetch the model again"
        ) from error
    check_complete(report, folder, name)
    return net, None


def read_weights(kind: Any, folder: Path, **options: Any) -> tuple[nn.Module, Mapping[str, Any]]:
    """Return the model of a folder in float32, read by one of transformers' auto classes, and its
    report of what was missing.
    """
    with without_bar():
        net, report = kind.from_pretrained(
            folder,
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            **options,
        )
    return net, report


def check_complete(report: Mapping[str, Any], folder: Path, name: str) -> None:
    """Raise EncoderError where `read_weights` reports tensors that are missing or of
    another shape.
    """
    absent = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if absent:
        raise EncoderError(
            f"{name}: the weights in {folder} lack {len(absent)} tensors ({absent[0]}, ...): "
            "fetch the model again"
        )


@contextmanager
def without_bar() -> Iterator[None]:
    """Hide the bar that transformers draws for the milliseconds it takes to load or
    save weights.
    """
    bars: Any = logging  # these functions carry no types
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()


def _load_tokenizer(
    folder: Path, name: str, config: Mapping[str, Any], net: Any
) -> tuple[Tokenize, PortableTokenizer | None, int]:
    """Return the tokenizer as a function, and without transformers where it is a fast one, and how
    many tokens are read.
    """
    check_tokenizer_files(folder, name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # a damaged file, or a package that this tokenizer needs
        raise EncoderError(
            f"{name}: cannot read the tokenizer in {folder} ({one_line(error)})"
        ) from error
    check_tokenizer(getattr(tokenizer, "backend_tokenizer", None), name)
    rules = _token_rules(tokenizer, folder, name, config=config, net=net)
    clean, padding = CLEANINGS[rules.cleaning], "max_length" if rules.full else True

    def tokenize(texts: Sequence[str]) -> Tokens:
        """Clean, cut and pad, as the model was trained."""
        tokens = tokenizer(
            [clean(text) for text in texts],
            padding=padding,
            truncation=True,
            max_length=rules.length,
            return_tensors="pt",
        )
        if rules.languages is not None:
            mark_languages(tokens["input_ids"].numpy(), texts, rules.languages)
        names = ("input_ids", "attention_mask") if rules.mask else ("input_ids",)
        return {name: tokens[name] for name in names}

    return tokenize, portable_fast(tokenizer, rules), rules.length


def _token_rules(
    tokenizer: Any, folder: Path, name: str, *, config: Mapping[str, Any], net: Any
) -> TokenRules:
    """Return how texts become tokens: for CLIP and SigLIP as they were trained, else as
    transformers' processor of the kind does it.
    """
    kind, text = config["model_type"], getattr(net.config, "text_config", None)
    if text is None:
        raise EncoderError(
            f"{name} is a model of kind {kind!r}, whose text tower is not known here"
        )
    length = int(getattr(text, "max_position_embeddings", tokenizer.model_max_length))
    pad = tokenizer.pad_token_id
    if kind == "clip":
        return TokenRules("none", length, pad, full=False, mask=True)
    if kind == "siglip":  # the mask is left out, since it was trained without
        tokenizer.padding_side = "right"
        cleaning: Cleaning = "siglip" if _strips_punctuation(folder, name) else "lower"
        return TokenRules(cleaning, length, pad, full=True, mask=False)
    if "roberta" in text.model_type or kind == "altclip":
        length -= int(text.pad_token_id) + 1  # RoBERTa counts positions from there
    made = getattr(transformers, str(PROCESSOR_MAPPING_NAMES.get(kind, "-")), None)
    defaults: Mapping[str, Any] = getattr(made, "text_kwargs", {})
    length = min(length, defaults["max_length"] if defaults.get("truncation") else length)
    full = defaults.get("padding") == "max_length" and bool(defaults.get("truncation"))
    mask = "attention_mask" in tokenizer.model_input_names
    length = min(length, tokenizer.model_max_length)
    marks = language_marks(tokenizer)
    return TokenRules("none", length, pad, full=full, mask=mask, languages=marks)


def _strips_punctuation(folder: Path, name: str) -> bool:
    file = folder / "tokenizer_config.json"
    return file.is_file() and str(read_json(file, name).get("tokenizer_class", "")).startswith(
        "SiglipTokenizer"
    )


def _towers(
    net: Any,
    texts: tuple[Tokenize, PortableTokenizer | None, int],
    files: Sequence[Path],
    waiting: LazyWeights | None,
) -> Towers:
    tokenize, portable, context = texts
    bias = getattr(net, "logit_bias", None)
    return Towers(
        model=net,
        dim=int(
            getattr(net.config, "projection_dim", None) or net.config.vision_config.hidden_size
        ),
        encode_images=lambda pixels: _features(net.get_image_features(**_seen(net, pixels))),
        tokenize=tokenize,
        encode_texts=lambda tokens: _features(net.get_text_features(**tokens)),
        logit_scale=_scale(net),
        logit_bias=None if bias is None else float(bias.detach().mean()),
        image_tower=lambda: vit_from_transformers(
            net.vision_model, projection=getattr(net, "visual_projection", None)
        ),
        files=tuple(files),
        portable=lambda: portable,
        context=context,
        waiting=waiting,
    )


def _image_towers(net: Any, files: Sequence[Path]) -> Towers:
    config = net.config
    return Towers(
        model=net,
        dim=int(getattr(config, "hidden_size", None) or config.hidden_sizes[-1]),
        encode_images=lambda pixels: _features(net(pixel_values=pixels)),
        image_tower=lambda: vit_from_transformers(net),
        files=tuple(files),
    )


def _seen(net: Any, pixels: Tensor) -> dict[str, Tensor]:
    """Return what an image tower is given: pictures ``(n, 3, h, w)``, or for SigLIP 2's NaFlex
    their patches, all of one shape, so that none is padded.
    """
    if net.config.model_type != "siglip2":
        return {"pixel_values": pixels}
    (count, _, height, width), patch = pixels.shape, net.config.vision_config.patch_size
    rows, columns = height // patch, width // patch
    patches = pixels.reshape(count, 3, rows, patch, columns, patch).permute(0, 2, 4, 3, 5, 1)
    return {
        "pixel_values": patches.reshape(count, rows * columns, -1),
        "pixel_attention_mask": torch.ones(count, rows * columns, device=pixels.device).int(),
        "spatial_shapes": torch.tensor([[rows, columns]] * count, device=pixels.device),
    }


def _scale(net: Any) -> float:
    """Return what cosines are multiplied by: a logarithm of it is learnt, or its inverse."""
    if hasattr(net, "logit_scale"):
        return float(net.logit_scale.detach().exp().mean())
    temperature = getattr(net, "temperature", None)
    return 100.0 if temperature is None else 1 / float(temperature.detach())


def _features(output: Any) -> Tensor:
    """Return the vectors from what transformers gives: a tensor before version 5, an
    object since.
    """
    features: Tensor = output if isinstance(output, Tensor) else output.pooler_output
    return features.flatten(1)


def _lasting(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration without what says nothing about the vectors."""
    return {
        key: _lasting(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if key not in _MOVES_NOTHING
    }


def _weight_files(folder: Path) -> list[Path]:
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    shards = sorted(folder.glob("model-*.safetensors"))
    return shards or [folder / "pytorch_model.bin"]


def _tokenizer_files(folder: Path) -> list[Path]:
    names = {name for group in TRANSFORMERS_FILES[3:] for name in group} | set(_EXTRAS)
    return [folder / name for name in sorted(names) if (folder / name).is_file()]


_PROCESSOR_DEFAULTS = [  # settings that a saved processor may leave to its class
    *("size", "crop_size", "resample", "do_resize", "do_center_crop", "do_rescale"),
    *("rescale_factor", "rescale_offset", "do_normalize", "image_mean", "image_std"),
    *("include_top", "default_to_square", "patch_size", "max_num_patches"),
]


def read_preprocess(folder: Path, name: str) -> Preprocess:
    """Return the preprocessing that the model's authors saved; raises EncoderError for steps that
    we do not do.
    """
    file = folder / "preprocessor_config.json"
    if file.is_file():
        values = read_json(file, name)
    else:  # a processor saved whole by transformers 5
        file = folder / "processor_config.json"
        values = read_json(file, name).get("image_processor", {})
    problem = "asks for preprocessing that vitsearch does not do"
    with guarded(EncoderError, f"{name}: the file {file}", "fetch it again", problem=problem):
        return from_transformers(_with_defaults(values, folder, name))


def _with_defaults(values: Mapping[str, Any], folder: Path, name: str) -> dict[str, Any]:
    """Return a processor's settings with those that transformers' class of it adds."""
    kind = str(values.get("image_processor_type") or values.get("feature_extractor_type") or "")
    kind = kind.replace("FeatureExtractor", "ImageProcessor").removesuffix("Fast")
    if not kind.endswith("ImageProcessor") or not hasattr(transformers, kind):
        model = str(read_json(folder / "config.json", name).get("model_type"))
        names = IMAGE_PROCESSOR_MAPPING_NAMES.get(model)
        kind = str(next(iter(names.values()), "")) if isinstance(names, dict) else ""
    made = getattr(transformers, kind or "-", None)
    defaults = {key: getattr(made, key, None) for key in _PROCESSOR_DEFAULTS}
    return {key: value for key, value in defaults.items() if value is not None} | dict(values)
