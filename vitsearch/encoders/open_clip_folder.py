"""An open_clip model in a folder: ``open_clip_config.json``, weights, and a tokenizer where the model brings its own."""

from pathlib import Path
from typing import Any

import open_clip
from safetensors import SafetensorError, safe_open

from vitsearch.encoders.model_files import decisive_files, missing_from, one_line, read_json
from vitsearch.encoders.open_clip import TOKENIZER_FILES, Tokenizer, preprocess_of, read_model, tokenizer_facts, towers_of
from vitsearch.encoders.torch_encoder import TorchEncoder, choose_device, choose_dtype
from vitsearch.encoders.weights_hash import weights_hash
from vitsearch.errors import EncoderError

CONFIG = "open_clip_config.json"
_WEIGHTS = [  # in the order in which open_clip looks for them
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
]


def load_open_clip_folder(folder: Path, name: str, *, device: str, dtype: str) -> TorchEncoder:
    """Return the encoder in a folder with ``open_clip_config.json``; raises EncoderError naming the file that is missing or damaged."""
    place, number_format = choose_device(device), choose_dtype(dtype, choose_device(device))
    config = read_json(folder / CONFIG, name).get("model_cfg")
    if not isinstance(config, dict) or not {"embed_dim", "vision_cfg", "text_cfg"} <= config.keys():
        raise EncoderError(f"{name}: the file {folder / CONFIG} is damaged (no complete model_cfg in it): fetch it again")
    weights = _weights_in(folder, name)
    net, waiting = read_model(f"local-dir:{folder}", name, weights, {})
    facts = {
        "source": "open_clip folder",
        "config": config,
        "weights": weights_hash([weights]),
        "tokenizer": {**tokenizer_facts(config["text_cfg"]), "files": weights_hash(sorted(folder.glob("*token*")))},
    }
    towers = towers_of(net, config, _tokenizer(folder, name, config), decisive_files(folder), waiting)
    return TorchEncoder(name, towers, preprocess=preprocess_of(net), facts=facts, device=place, dtype=number_format)


def _weights_in(folder: Path, name: str) -> Path:
    """Return the file that open_clip will load; raises EncoderError where there is none or it is cut."""
    found = [folder / file for file in _WEIGHTS if (folder / file).is_file()]
    found += sorted(folder.glob("*.safetensors")) + sorted([*folder.glob("*.bin"), *folder.glob("*.pth")])
    if not found:
        raise EncoderError(f"{name} lacks the file {folder / _WEIGHTS[0]}: put the weights beside {CONFIG}")
    if found[0].suffix == ".safetensors":
        try:
            with safe_open(found[0], framework="pt") as tensors:
                tensors.keys()
        except (SafetensorError, OSError) as error:
            raise EncoderError(f"{name}: the file {found[0]} is damaged ({one_line(error)}): fetch it again") from error
    return found[0]


def _tokenizer(folder: Path, name: str, config: dict[str, Any]) -> Tokenizer:
    wants_files = bool(config["text_cfg"].get("hf_tokenizer_name"))
    missing = missing_from(folder, TOKENIZER_FILES) if wants_files else None
    if missing:
        raise EncoderError(f"{name} lacks the file {folder / missing}: put the tokenizer beside {CONFIG}")
    try:
        options = {"local_files_only": True} if wants_files else {}
        tokenizer: Tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}", **options)
    except ImportError:
        raise
    except Exception as error:  # transformers raises errors of several libraries
        raise EncoderError(f"{name}: cannot read the tokenizer in {folder} ({one_line(error)})") from error
    return tokenizer
