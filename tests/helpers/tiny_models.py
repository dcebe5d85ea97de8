"""Tiny models with random weights, saved as open_clip and as transformers save theirs; both
libraries are needed.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

SENTENCES = [
    "a photo of a cat",
    "a photo of a dog on a beach",
    "two red chairs",
    "the sea at night",
    "a cat and a dog",
    "",
]
OPEN_CLIP_CONFIG: dict[str, Any] = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
SHALLOW_CONFIG = {  # of one layer each, for what depth proves nothing of and takes time
    **OPEN_CLIP_CONFIG,
    "vision_cfg": {**OPEN_CLIP_CONFIG["vision_cfg"], "layers": 1},
    "text_cfg": {**OPEN_CLIP_CONFIG["text_cfg"], "layers": 1},
}
PREPROCESS = {
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
}


def photos() -> list[Image.Image]:
    """Return pictures of several shapes; the margins of their crops are even, so that every
    rounding rule gives the same crop.
    """
    rng = np.random.default_rng(3)
    sizes = [(32, 32), (64, 32), (32, 48), (200, 100), (9, 9)]
    return [
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        for width, height in sizes
    ]


def scramble(net: torch.nn.Module, seed: int = 5) -> torch.nn.Module:
    """Give every weight a random value, so that a swapped or forgotten one shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in net.named_parameters():
            if "logit" not in name:
                is_scale = weight.ndim == 1 and name.endswith("weight")  # of a norm
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.2 + float(is_scale))
    return net.eval()


def save_open_clip(
    folder: Path, config: dict[str, Any] = OPEN_CLIP_CONFIG, seed: int = 5
) -> torch.nn.Module:
    """Save a random open_clip model as an open_clip folder and return it."""
    custom_text = bool(config.get("custom_text"))
    kind = open_clip.CustomTextCLIP if custom_text else open_clip.CLIP
    net = scramble(
        kind(**{key: value for key, value in config.items() if key != "custom_text"}), seed
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": PREPROCESS}), encoding="utf-8"
    )
    save_file(
        {name: tensor.contiguous() for name, tensor in net.state_dict().items()},
        folder / "open_clip_model.safetensors",
    )
    return net


def clip_from_open_clip(theirs: torch.nn.Module) -> transformers.CLIPModel:
    """Return transformers' CLIPModel with the weights of open_clip's model."""
    layers = len(theirs.transformer.resblocks)
    tower = {
        "hidden_size": 32,
        "intermediate_size": 128,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "hidden_act": "quick_gelu",
    }
    config = transformers.CLIPConfig(
        text_config=tower
        | {
            "vocab_size": 49408,
            "max_position_embeddings": 77,
            "eos_token_id": 49407,
            "pad_token_id": 49407,
        },
        vision_config=tower | {"image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    net = transformers.CLIPModel(config)
    net.load_state_dict(_clip_state(dict(theirs.state_dict()), layers), strict=True)
    return net.eval()


def _clip_state(state: dict[str, torch.Tensor], layers: int) -> dict[str, torch.Tensor]:
    result = {
        "logit_scale": state["logit_scale"],
        "visual_projection.weight": state["visual.proj"].T,
        "text_projection.weight": state["text_projection"].T,
        "text_model.embeddings.token_embedding.weight": state["token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": state["positional_embedding"],
        "vision_model.embeddings.class_embedding": state["visual.class_embedding"],
        "vision_model.embeddings.patch_embedding.weight": state["visual.conv1.weight"],
        "vision_model.embeddings.position_embedding.weight": state["visual.positional_embedding"],
    }
    norms = {
        "text_model.final_layer_norm": "ln_final",
        "vision_model.pre_layrnorm": "visual.ln_pre",
        "vision_model.post_layernorm": "visual.ln_post",
    }
    for ours, theirs in norms.items():
        result |= {f"{ours}.{part}": state[f"{theirs}.{part}"] for part in ("weight", "bias")}
    for tower, prefix in (("text_model", ""), ("vision_model", "visual.")):
        for layer in range(layers):
            result |= _clip_layer(
                state, f"{prefix}transformer.resblocks.{layer}.", f"{tower}.encoder.layers.{layer}."
            )
    return result


def _clip_layer(state: dict[str, torch.Tensor], theirs: str, ours: str) -> dict[str, torch.Tensor]:
    result = {}
    parts = {
        "ln_1": "layer_norm1",
        "ln_2": "layer_norm2",
        "attn.out_proj": "self_attn.out_proj",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
    }
    for kind in ("weight", "bias"):
        result |= {
            f"{ours}{new}.{kind}": state[f"{theirs}{old}.{kind}"] for old, new in parts.items()
        }
        for letter, matrix in zip(
            "qkv", state[f"{theirs}attn.in_proj_{kind}"].chunk(3), strict=True
        ):
            result[f"{ours}self_attn.{letter}_proj.{kind}"] = matrix
    return result


def save_clip(folder: Path, theirs: torch.nn.Module) -> transformers.CLIPModel:
    """Save the same weights as a transformers folder, with the CLIP vocabulary from open_clip's
    package.
    """
    net = clip_from_open_clip(theirs)
    net.save_pretrained(folder)
    clip_tokenizer().save_pretrained(folder)
    transformers.CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    ).save_pretrained(folder)
    return net


def clip_tokenizer() -> transformers.CLIPTokenizer:
    """Return transformers' CLIP tokenizer, made from the vocabulary in open_clip's package."""
    plain = open_clip.SimpleTokenizer()
    merges = [pair for pair, _ in sorted(plain.bpe_ranks.items(), key=lambda item: item[1])]
    vocabulary = {piece: number for piece, number in plain.encoder.items() if number < 49406} | {
        "<|startoftext|>": 49406,
        "<|endoftext|>": 49407,
    }
    return transformers.CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)


def tiny_tokenizer(length: int) -> transformers.PreTrainedTokenizerFast:
    """Return a case-keeping tokenizer of a few dozen pieces that ends each text with ``</s>``."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=90, special_tokens=["<pad>", "</s>", "<unk>"], show_progress=False
    )
    tokenizer.train_from_iterator([*SENTENCES, "A B C D E ! ,"], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=length,
        padding_side="right",
    )


def save_siglip(folder: Path, length: int = 16, layers: int = 2) -> transformers.SiglipModel:
    """Save a random SigLIP that reads ``length`` tokens, with a tiny tokenizer, as a transformers
    folder and return it.
    """
    tower = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
    }
    config = transformers.SiglipConfig(
        text_config=tower
        | {
            "vocab_size": 90,
            "max_position_embeddings": length,
            "projection_size": 32,
            "bos_token_id": 1,
            "eos_token_id": 1,
        },
        vision_config=tower | {"image_size": 32, "patch_size": 8},
    )
    net = scramble(transformers.SiglipModel(config))
    with torch.no_grad():
        net.logit_scale.fill_(2.3)
        net.logit_bias.fill_(-3.5)
    net.save_pretrained(folder)
    tiny_tokenizer(length).save_pretrained(folder)
    transformers.SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return net


_WORDS = sorted({*" ".join(SENTENCES).split(), *"abcdefghijklmnopqrstuvwxyz.,!中文的猫狗é"})
_TOWER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


def save_dual(folder: Path, kind: str) -> tuple[torch.nn.Module, Any]:
    """Save a random model of two towers of that kind, with its processor, as transformers does, and
    return both.
    """
    tokenizer, text = _tokenizer_of(kind)
    vision = _TOWER | {"image_size": 32, "patch_size": 8}
    options: dict[str, Any] = {} if kind in ("siglip2", "tipsv2") else {"projection_dim": 16}
    if kind == "siglip2":
        vision = _TOWER | {"patch_size": 16, "num_patches": 16}
    if kind == "tipsv2":
        vision = _TOWER | {"image_size": 28, "patch_size": 14}
    if kind == "align":
        vision = {"image_size": 32, "width_coefficient": 0.25, "depth_coefficient": 0.25}
        vision |= {"hidden_dim": 80}
        options = {"projection_dim": 80}  # the tower ends in 320 / 4 channels
    classes = {
        "metaclip_2": ("MetaClip2", "CLIPProcessor", "CLIPImageProcessorPil"),
        "chinese_clip": ("ChineseCLIP", "ChineseCLIPProcessor", "ChineseCLIPImageProcessorPil"),
        "altclip": ("AltCLIP", "AltCLIPProcessor", "CLIPImageProcessorPil"),
        "siglip2": ("Siglip2", "Siglip2Processor", "Siglip2ImageProcessorPil"),
        "tipsv2": ("Tipsv2", "Tipsv2Processor", "Tipsv2ImageProcessor"),
        "align": ("Align", "AlignProcessor", "EfficientNetImageProcessorPil"),
        "blip": ("Blip", "BlipProcessor", "BlipImageProcessorPil"),
        "aimv2": ("Aimv2", "CLIPProcessor", "CLIPImageProcessorPil"),
    }
    model, processor, pictures = classes[kind]
    config = getattr(transformers, f"{model}Config")(
        text_config=text, vision_config=vision, **options
    )
    net = scramble(getattr(transformers, f"{model}Model")(config))
    if hasattr(net, "temperature"):
        net.temperature.data.fill_(0.05)
    net.save_pretrained(folder)
    how: dict[str, Any] = {"size": {"height": 32, "width": 32}}
    if "CLIP" in pictures:
        how = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    if kind == "siglip2":
        how = {"max_num_patches": 256, "patch_size": 16}
    if kind == "tipsv2":
        how = {"size": {"height": 28, "width": 28}}
    if kind == "align":
        how = {"size": {"height": 40, "width": 40}, "crop_size": {"height": 32, "width": 32}}
        how |= {"do_center_crop": True, "rescale_offset": True, "rescale_factor": 1 / 127.5}
    made = getattr(transformers, processor)(
        image_processor=getattr(transformers, pictures)(**how), tokenizer=tokenizer
    )
    made.save_pretrained(folder)
    return net, made


def _tokenizer_of(kind: str) -> tuple[Any, dict[str, Any]]:
    """Return a tokenizer of a kind of model, and the settings of the text tower."""
    tower: dict[str, Any] = {**_TOWER, "max_position_embeddings": 24, "projection_dim": 16}
    if kind in ("metaclip_2", "altclip"):
        names = ["<s>", "<pad>", "</s>", "<unk>", "\u2581", *_WORDS]
        names += [f"\u2581{word}" for word in _WORDS] + ["<mask>"]
        pieces = [(name, -float(place)) for place, name in enumerate(names)]
        tokenizer: Any = transformers.XLMRobertaTokenizer(vocab=pieces, model_max_length=24)
        tower |= {"vocab_size": len(pieces), "pad_token_id": 1, "eos_token_id": 2}
        if kind == "altclip":
            tower |= {"max_position_embeddings": 20, "project_dim": 16}
        return tokenizer, tower
    if kind in ("chinese_clip", "align", "blip"):
        names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_WORDS]
        names += [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
        vocabulary = {name: place for place, name in enumerate(names)}
        tokenizer = transformers.BertTokenizer(vocab=vocabulary, model_max_length=512)
        tower |= {"vocab_size": len(vocabulary), "pad_token_id": 0}
        if kind == "align":
            tower |= {"max_position_embeddings": 72}
        return tokenizer, tower
    if kind == "aimv2":
        return clip_tokenizer(), tower | {
            "vocab_size": 49408,
            "max_position_embeddings": 77,
            "eos_token_id": 49407,
        }
    marks = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    if kind == "tipsv2":
        marks = ["<pad>", "<unk>"]
    names = [*marks, "\u2581", *dict.fromkeys("".join(_WORDS)), "ca", "cat"]
    vocabulary = {name: place for place, name in enumerate(names)}
    merges = [("c", "a"), ("ca", "t")]
    tower |= {"vocab_size": len(vocabulary), "max_position_embeddings": 64, "projection_size": 32}
    if kind == "tipsv2":
        return transformers.Tipsv2Tokenizer(vocab=vocabulary, merges=merges), tower
    tokenizer = transformers.Siglip2Tokenizer(
        vocab=vocabulary, merges=merges, padding_side="right", model_max_length=64
    )
    return tokenizer, tower


def siglip_like() -> dict[str, Any]:
    """Return the settings of a SigLIP of open_clip with `tiny_tokenizer`, of one layer each."""
    text = {
        "context_length": 16,
        "vocab_size": 90,
        "width": 32,
        "heads": 2,
        "layers": 1,
        "pool_type": "last",
        "no_causal_mask": True,
    }
    text |= {
        "hf_tokenizer_name": "acme/tiny-siglip",
        "tokenizer_kwargs": {"clean": "canonicalize"},
        "proj_bias": True,
    }
    return {
        **SHALLOW_CONFIG,
        "custom_text": True,
        "init_logit_bias": -10,
        "quick_gelu": False,
        "text_cfg": text,
    }
