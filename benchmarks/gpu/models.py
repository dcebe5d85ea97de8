"""Models with seeded random weights, of real shapes or tiny ones, saved as their libraries save
theirs; pictures; and a card whose memory is short.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

SENTENCES = ["a dog on a beach", "two red chairs", "the sea at night", "a cat and a dog"]
TINY = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
BASE = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
}


def save_open_clip(folder: Path, tiny: bool, name: str = "ViT-B-32") -> str:
    """Save a model of open_clip and return its name for vitsearch."""
    import open_clip

    from benchmarks.peers import model

    shape = open_clip.get_model_config(name)
    if tiny:
        few = {"width": 64, "layers": 2}
        shape["vision_cfg"] = {**few, "head_width": 32, "image_size": 64, "patch_size": 16}
        shape["text_cfg"] |= {**few, "heads": 2}
    model.save_open_clip(folder, shape)
    return f"local-dir:{folder}"


def save_clip(folder: Path, tiny: bool) -> str:
    """Save a CLIP of transformers."""
    from benchmarks.peers.model import tokenizer

    side, patch = (64, 16) if tiny else (224, 32)
    text = (TINY if tiny else BASE) | {"eos_token_id": 49407, "pad_token_id": 49407}
    vision = (TINY if tiny else BASE) | {"image_size": side, "patch_size": patch}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision)
    pictures = transformers.CLIPImageProcessor(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}
    )
    return _saved(folder, transformers.CLIPModel, config, pictures, tokenizer())


def save_siglip(folder: Path, tiny: bool) -> str:
    """Save a SigLIP of transformers."""
    side = 64 if tiny else 224
    tower, words = TINY if tiny else BASE, _word_tokenizer()
    text = tower | {"vocab_size": len(words), "bos_token_id": 1, "eos_token_id": 1}
    text |= {"projection_size": tower["hidden_size"]}
    vision = tower | {"image_size": side, "patch_size": 16}
    config = transformers.SiglipConfig(text_config=text, vision_config=vision)
    pictures = transformers.SiglipImageProcessor(size={"height": side, "width": side})
    return _saved(folder, transformers.SiglipModel, config, pictures, words)


def save_siglip2(folder: Path, tiny: bool) -> str:
    """Save a SigLIP 2 of transformers that keeps the shape of a picture (NaFlex)."""
    tower, words = TINY if tiny else BASE, _word_tokenizer()
    text = tower | {"vocab_size": len(words), "projection_size": tower["hidden_size"]}
    vision = tower | {"patch_size": 16, "num_patches": 16 if tiny else 256}
    config = transformers.Siglip2Config(text_config=text, vision_config=vision)
    pictures = transformers.Siglip2ImageProcessorPil(max_num_patches=256, patch_size=16)
    return _saved(folder, transformers.Siglip2Model, config, pictures, words)


def save_classifier(folder: Path, tiny: bool) -> str:
    """Save a ViT-B/16 of transformers with ten classes."""
    side = 32 if tiny else 224
    config = transformers.ViTConfig(
        **(TINY if tiny else BASE),
        image_size=side,
        patch_size=16,
        id2label={number: f"class {number}" for number in range(10)},
    )
    pictures = transformers.ViTImageProcessor(size={"height": side, "width": side})
    return _saved(folder, transformers.ViTForImageClassification, config, pictures)


def save_timm_classifier(folder: Path, tiny: bool) -> str:
    """Save a ViT of timm with ten classes."""
    torch.manual_seed(0)
    shape = {"img_size": 32, "depth": 2} if tiny else {}
    name = "vit_tiny_patch16_224" if tiny else "vit_base_patch16_224"
    net = timm.create_model(name, num_classes=10, **shape).eval()
    _scatter(net)
    timm.models.save_for_hf(net, str(folder), model_args=shape, safe_serialization=True)
    return f"local-dir:{folder}"


TWO_TOWERS: dict[str, Callable[[Path, bool], str]] = {
    "open_clip ViT-B-32": save_open_clip,
    "transformers CLIP": save_clip,
    "transformers SigLIP": save_siglip,
    "transformers SigLIP 2": save_siglip2,
}
CLASSIFIERS: dict[str, Callable[[Path, bool], str]] = {
    "transformers ViT-B/16": save_classifier,
    "timm ViT-B/16": save_timm_classifier,
}


def pictures(count: int, side: int = 256, seed: int = 1) -> list[Image.Image]:
    """Return pictures of smooth noise, a third higher than wide."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (count, 20, 20, 3), dtype=np.uint8)
    size = (side, side * 4 // 3)
    return [Image.fromarray(each).resize(size, Image.Resampling.BICUBIC) for each in coarse]


def save_jpegs(folder: Path, count: int, side: int) -> Path:
    """Write pictures as JPEGs and return their folder."""
    folder.mkdir(parents=True)
    few = pictures(min(count, 64), side)
    for number in range(count):  # no two files alike: content that is known is not embedded
        picture = few[number % len(few)]
        picture.putpixel((number // len(few) % side, 0), (number % 256, 0, 0))
        picture.save(folder / f"{number:06}.jpg", quality=90)
    return folder


@contextmanager
def capped(device: str, spare: int) -> Iterator[None]:
    """Let PyTorch have so many bytes of the card's memory more than it holds now."""
    if not device.startswith("cuda"):
        yield
        return
    torch.cuda.empty_cache()
    index = torch.device(device).index or 0  # a fraction is set by number alone
    total = torch.cuda.get_device_properties(index).total_memory
    share = min(1.0, (torch.cuda.memory_reserved(index) + spare) / total)
    torch.cuda.set_per_process_memory_fraction(share, index)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, index)


def _saved(folder: Path, kind: Any, config: Any, pictures: Any, tokenizer: Any = None) -> str:
    torch.manual_seed(0)
    net = kind(config).eval()
    _scatter(net)
    for part in (net, pictures, *([tokenizer] if tokenizer else [])):
        part.save_pretrained(folder)
    return f"local-dir:{folder}"


def _scatter(net: torch.nn.Module) -> None:
    """Move the weights, of which some begin as zeros, so that a forgotten one shows."""
    with torch.no_grad():
        for name, weight in net.named_parameters():
            if "logit" not in name:
                weight.add_(0.02 * torch.randn(weight.shape))


def _word_tokenizer() -> transformers.PreTrainedTokenizerFast:
    names = ["<pad>", "</s>", "<unk>", *sorted(set(" ".join(SENTENCES).split()))]
    vocabulary = {name: number for number, name in enumerate(names)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    marks = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=64, padding_side="right", **marks
    )
