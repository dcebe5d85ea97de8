"""``open_clip:ARCH/TAG``, every pretrained model that open_clip lists (Ilharco et al., OpenCLIP),
and open_clip models in a folder.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors import safe_open
from torch import nn

from vitsearch.encoders.checkpoints import (
    RequiredFiles,
    check_settings,
    check_tokenizer,
    fingerprint_files,
    missing_from,
    one_line,
    open_clip_files,
    read_json,
    weights_hash,
)
from vitsearch.encoders.hub import hub_folder
from vitsearch.encoders.language import language_marks, mark_languages
from vitsearch.encoders.lazy_weights import LazyWeights, build_lazily, find_weights
from vitsearch.encoders.open_clip_text import portable_open_clip, reads_no_padding, without_end
from vitsearch.encoders.preprocess import from_open_clip
from vitsearch.encoders.tokenizer import check_tokenizer_files
from vitsearch.encoders.torch_encoder import (
    Tokens,
    TorchEncoder,
    Towers,
    choose_device,
    choose_dtype,
)
from vitsearch.errors import EncoderError
from vitsearch.untrusted import guarded
from vitsearch.vit.weights import vit_from_open_clip

CONFIG = "open_clip_config.json"
_WEIGHTS = [  # in the order in which open_clip looks for them
    *("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors"),
    *("open_clip_pytorch_model.bin", "open_clip_pytorch_model.pth"),
    *("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth"),
]
TOKENIZER_FILES: RequiredFiles = [
    [
        *("tokenizer.json", "tokenizer.model", "sentencepiece.bpe.model", "spiece.model"),
        *("vocab.txt", "vocab.json"),
    ],
]
_TOKENIZER_EXTRAS = ["*token*.json", "*.model", "vocab.*", "merges.txt"]

_TOKENIZER_SETTINGS = [
    *("context_length", "vocab_size", "hf_tokenizer_name", "tokenizer_mode", "tokenizer_kwargs")
]

# their names tell the towers apart; CoCa's third tower reads both
_KNOWN = (open_clip.CLIP, open_clip.CustomTextCLIP)

Tokenizer = Callable[[Sequence[str]], torch.Tensor]


def load_open_clip(model: str, *, device: str = "auto", dtype: str = "auto") -> TorchEncoder:
    """Return the encoder ``ARCH/TAG``, with the activation, preprocessing and tokenizer that its
    weights were trained with.

    Raises EncoderError for a name that open_clip does not list (with the closest ones), or for
    files that cannot be had or read.
    """
    architecture, tag = _parse(model)
    name = f"open_clip:{architecture}/{tag}"
    target, number_format = choose_device(device), choose_dtype(dtype, choose_device(device))
    trained = open_clip.get_pretrained_cfg(architecture, tag)
    config = open_clip.get_model_config(architecture)
    weights = _weights_file(trained["hf_hub"])
    quick_gelu = bool(trained.get("quick_gelu", config.get("quick_gelu", False)))
    options = {
        "pretrained": str(weights),
        "force_quick_gelu": quick_gelu,
        "force_preprocess_cfg": trained,
    }
    net, waiting = read_model(architecture, name, weights, options)
    facts = {
        "source": "open_clip",
        "architecture": architecture,
        "quick_gelu": quick_gelu,
        "weights": weights_hash([weights]),
        "tokenizer": tokenizer_facts(config["text_cfg"]),
    }
    files = (weights, *_tokenizer_files(config["text_cfg"]))
    towers = towers_of(
        net, config, _tokenizer(architecture, name, config["text_cfg"]), files, waiting
    )
    return TorchEncoder(
        name,
        towers,
        preprocess=from_open_clip(net.visual),
        facts=facts,
        device=target,
        dtype=number_format,
    )


def read_model(
    architecture: str, name: str, weights: Path, options: Mapping[str, Any]
) -> tuple[nn.Module, LazyWeights | None]:
    """Return open_clip's model, and what of its weights waits in the file; None: all of it has been
    read.

    ``options`` are those of ``open_clip.create_model``. Raises EncoderError in one line where the
    model cannot be made or read.
    """
    with _unwarned():
        net = build_lazily(
            lambda: _create_model(
                architecture, name, {**options, "load_weights": False, "pretrained_text": False}
            ),
            [weights],
            name,
        )
    if weights.suffix == ".safetensors":
        known = net if type(net) in _KNOWN else None
        waiting = (
            find_weights(known, [weights], image=("visual.",), unread=".position_ids")
            if known
            else None
        )
        if known is not None and waiting is not None:
            return known, waiting
    return _create_model(architecture, name, options), None


@contextmanager
def _unwarned() -> Iterator[None]:
    """Hide open_clip's warning that a model built without weights has none."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(level)


def _create_model(architecture: str, name: str, options: Mapping[str, Any]) -> nn.Module:
    try:
        net: nn.Module = open_clip.create_model(
            architecture, precision="fp32", device="cpu", weights_only=True, **options
        )
    except ImportError:
        raise
    except Exception as error:  # open_clip, torch and safetensors each raise their own
        source = options.get("pretrained") or architecture
        raise EncoderError(
            f"cannot load {name} from {source}: {one_line(error)}; if the file "
            "is damaged, fetch it again"
        ) from error
    return net


def towers_of(
    net: nn.Module,
    config: Mapping[str, Any],
    tokenizer: Tokenizer,
    files: Sequence[Path],
    waiting: LazyWeights | None,
) -> Towers:
    """Return open_clip's model as plain functions."""
    bias = getattr(net, "logit_bias", None)
    scale: torch.Tensor = net.logit_scale  # type: ignore[assignment]
    encode_image: Callable[..., torch.Tensor] = net.encode_image  # type: ignore[assignment]
    encode_text: Callable[..., torch.Tensor] = net.encode_text  # type: ignore[assignment]

    marks = language_marks(getattr(tokenizer, "tokenizer", None))
    without_padding = reads_no_padding(net, tokenizer)
    if without_padding is not None:
        encode_text = without_padding

    def tokenize(texts: Sequence[str]) -> Tokens:
        ids = tokenizer(texts)
        if without_padding is not None:
            ids = without_end(ids)
        if marks is not None:
            mark_languages(ids.numpy(), texts, marks)
        return {"input_ids": ids}

    return Towers(
        model=net,
        dim=int(config["embed_dim"]),
        encode_images=lambda pixels: encode_image(pixels, normalize=False),
        tokenize=tokenize,
        encode_texts=lambda tokens: encode_text(tokens["input_ids"]),
        logit_scale=float(scale.detach().exp().mean()),
        logit_bias=None if bias is None else float(bias.detach().mean()),
        image_tower=lambda: vit_from_open_clip(net.visual),
        files=tuple(files),
        portable=lambda: portable_open_clip(tokenizer, full=without_padding is None),
        context=int(getattr(tokenizer, "context_length", None) or 0),
        waiting=waiting,
    )


def tokenizer_facts(text_config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides which tokens a text becomes."""
    return {name: text_config.get(name) for name in _TOKENIZER_SETTINGS}


def _parse(model: str) -> tuple[str, str]:
    """Return architecture and tag as open_clip spells them, for ``ViT-B/32/openai`` too."""
    architecture, _, tag = model.rpartition("/")
    architecture, tag = architecture.replace("/", "-"), tag.lower().replace("-", "_")
    if tag in open_clip.list_pretrained_tags_by_model(architecture):
        return architecture, tag
    raise EncoderError(
        f"open_clip has no model {model!r}: try {', '.join(_closest(model))}; `vitsearch models "
        "open_clip` lists more"
    )


def _closest(model: str) -> list[str]:
    names = [f"{architecture}/{tag}" for architecture, tag in open_clip.list_pretrained()]
    without_tag = [
        name for name in names if name.lower().rpartition("/")[0] == model.lower().replace("/", "-")
    ]
    if without_tag:
        return [f"open_clip:{name}" for name in without_tag[:4]]
    by_lower = {name.lower(): name for name in names}
    close = get_close_matches(model.lower(), by_lower, n=4, cutoff=0.3)
    return [f"open_clip:{by_lower[name]}" for name in close] or [
        "open_clip:ViT-B-32/laion2b_s34b_b79k"
    ]


def _weights_file(source: str) -> Path:
    """Return the file of ``org/repo/`` or ``org/repo/file``; the safetensors form is preferred."""
    repo, _, file = source.rpartition("/")
    needed = open_clip_files(file)
    folder = hub_folder(repo, needed)
    return next(folder / name for name in needed[0] if (folder / name).is_file())


def _tokenizer_files(text_config: Mapping[str, Any]) -> list[Path]:
    """Return the files of a tokenizer from the hub; none where open_clip's package brings it."""
    repo = text_config.get("hf_tokenizer_name")
    return (
        fingerprint_files(hub_folder(repo, TOKENIZER_FILES, also=_TOKENIZER_EXTRAS), weights=False)
        if repo
        else []
    )


def _tokenizer(architecture: str, name: str, text_config: Mapping[str, Any]) -> Tokenizer:
    repo = text_config.get("hf_tokenizer_name")
    if not repo:
        plain: Tokenizer = open_clip.get_tokenizer(architecture)
        return plain
    check_tokenizer_files(hub_folder(repo, TOKENIZER_FILES, also=_TOKENIZER_EXTRAS), name)
    try:
        tokenizer: Tokenizer = open_clip.get_tokenizer(architecture, local_files_only=True)
    except ImportError:
        raise
    except Exception as error:  # transformers raises errors of several libraries
        raise EncoderError(
            f"cannot read the tokenizer {repo} of {name}: {one_line(error)}"
        ) from error
    return tokenizer


def load_open_clip_folder(folder: Path, name: str, *, device: str, dtype: str) -> TorchEncoder:
    """Return the encoder in a folder with ``open_clip_config.json``; raises EncoderError naming the
    file that is missing or damaged.
    """
    target, number_format = choose_device(device), choose_dtype(dtype, choose_device(device))
    config = read_json(folder / CONFIG, name).get("model_cfg")
    if not isinstance(config, dict) or not {"embed_dim", "vision_cfg", "text_cfg"} <= config.keys():
        raise EncoderError(
            f"{name}: the file {folder / CONFIG} is damaged (no complete "
            "model_cfg in it): fetch it again"
        )
    weights = _weights_in(folder, name)
    check_settings(config, [weights], name)
    net, waiting = read_model(f"local-dir:{folder}", name, weights, {})
    facts = {
        "source": "open_clip folder",
        "config": config,
        "weights": weights_hash([weights]),
        "tokenizer": {
            **tokenizer_facts(config["text_cfg"]),
            "files": weights_hash(sorted(folder.glob("*token*"))),
        },
    }
    towers = towers_of(
        net, config, _folder_tokenizer(folder, name, config), fingerprint_files(folder), waiting
    )
    return TorchEncoder(
        name,
        towers,
        preprocess=from_open_clip(net.visual),
        facts=facts,
        device=target,
        dtype=number_format,
    )


def _weights_in(folder: Path, name: str) -> Path:
    """Return the file that open_clip will load; raises EncoderError for none or a cut one."""
    files = [folder / file for file in _WEIGHTS if (folder / file).is_file()]
    files += sorted(folder.glob("*.safetensors")) + sorted(
        [*folder.glob("*.bin"), *folder.glob("*.pth")]
    )
    if not files:
        raise EncoderError(
            f"{name} lacks the file {folder / _WEIGHTS[0]}: put the weights beside {CONFIG}"
        )
    if files[0].suffix == ".safetensors":
        with (
            guarded(EncoderError, f"{name}: the file {files[0]}", "fetch it again"),
            safe_open(files[0], framework="pt") as tensors,
        ):
            tensors.keys()
    return files[0]


def _folder_tokenizer(folder: Path, name: str, config: dict[str, Any]) -> Tokenizer:
    wants_files = bool(config["text_cfg"].get("hf_tokenizer_name"))
    missing = missing_from(folder, TOKENIZER_FILES) if wants_files else None
    if missing:
        raise EncoderError(
            f"{name} lacks the file {folder / missing}: put the tokenizer beside {CONFIG}"
        )
    if wants_files:
        check_tokenizer_files(folder, name)
    try:
        options = {"local_files_only": True} if wants_files else {}
        tokenizer: Tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}", **options)
    except ImportError:
        raise
    except Exception as error:  # transformers raises errors of several libraries
        raise EncoderError(
            f"{name}: cannot read the tokenizer in {folder} ({one_line(error)})"
        ) from error
    check_tokenizer(getattr(getattr(tokenizer, "tokenizer", None), "backend_tokenizer", None), name)
    return tokenizer
