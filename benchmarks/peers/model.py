"""Save one ViT-B-32-256 with random weights for every program: python benchmarks/peers/model.py
FOLDER. It is rclip's architecture, which has no other.

FOLDER/open_clip is open_clip's layout, FOLDER/transformers that of transformers with equal weights
(checked: both image towers give the same vectors to 1e-5), FOLDER/sentence-transformers the module
files of sentence-transformers around the latter, FOLDER/rclip rclip's three files, exported by its
own settings (TorchScript, opset 18). What is there is kept.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import open_clip
import torch
import transformers
from safetensors.torch import save_file

ARCHITECTURE, SIDE = "ViT-B-32-256", 256
VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"
PREPROCESS = {
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
}
PLACES = {  # in transformers' model, and in open_clip's
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "logit_scale": "logit_scale",
}
NORMS = {
    "text_model.final_layer_norm": "ln_final",
    "vision_model.pre_layrnorm": "visual.ln_pre",
    "vision_model.post_layernorm": "visual.ln_post",
}
LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


def converted(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return open_clip's weights under transformers' names."""
    names = dict(NORMS)
    result = {ours: state[theirs] for ours, theirs in PLACES.items()}
    result["visual_projection.weight"] = state["visual.proj"].T
    result["text_projection.weight"] = state["text_projection"].T
    for tower, prefix in (("text_model", ""), ("vision_model", "visual.")):
        for layer in range(12):
            here, there = (
                f"{tower}.encoder.layers.{layer}",
                f"{prefix}transformer.resblocks.{layer}",
            )
            names |= {f"{here}.{ours}": f"{there}.{theirs}" for ours, theirs in LAYER.items()}
            for kind in ("weight", "bias"):
                for letter, part in zip(
                    "qkv", state[f"{there}.attn.in_proj_{kind}"].chunk(3), strict=True
                ):
                    result[f"{here}.self_attn.{letter}_proj.{kind}"] = part
    return result | {
        f"{ours}.{kind}": state[f"{theirs}.{kind}"]
        for ours, theirs in names.items()
        for kind in ("weight", "bias")
    }


def save_open_clip(folder: Path, shape: dict[str, Any]) -> torch.nn.Module:
    """Save a model of open_clip with seeded random weights in its layout and return it."""
    torch.manual_seed(0)
    net = open_clip.CLIP(**shape).eval()
    folder.mkdir(parents=True)
    config = {"model_cfg": shape, "preprocess_cfg": PREPROCESS}
    (folder / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(
        {name: tensor.contiguous() for name, tensor in net.state_dict().items()},
        folder / "open_clip_model.safetensors",
    )
    return net


def save_transformers(folder: Path, net: torch.nn.Module) -> None:
    """Save the same weights as transformers' CLIPModel, with tokenizer and processor."""
    heads = {"hidden_act": "gelu", "num_hidden_layers": 12}
    text = {
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_attention_heads": 8,
        "eos_token_id": 49407,
        "pad_token_id": 49407,
    }
    vision = {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_attention_heads": 12,
        "image_size": SIDE,
        "patch_size": 32,
    }
    config = transformers.CLIPConfig(
        text_config=text | heads, vision_config=vision | heads, projection_dim=512
    )
    twin = transformers.CLIPModel(config).eval()
    twin.load_state_dict(converted(dict(net.state_dict())), strict=True)
    pixels = torch.randn(2, 3, SIDE, SIDE)
    with torch.inference_mode():
        theirs = twin.visual_projection(twin.vision_model(pixel_values=pixels).pooler_output)
        difference = float((net.encode_image(pixels) - theirs).abs().max())
    if difference > 1e-5:
        raise SystemExit(f"the two layouts give vectors that differ by {difference:.1e}")
    twin.save_pretrained(folder)
    processor = transformers.CLIPImageProcessor(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    )
    transformers.CLIPProcessor(processor, tokenizer()).save_pretrained(folder)


def save_rclip(folder: Path, net: torch.nn.Module) -> None:
    """Write the files that rclip looks for; with the notices there it downloads nothing."""
    model = folder / "ViT-B-32-256-datacomp_s34b_b86k"
    for made in (model, folder / "tokenizer"):
        made.mkdir(parents=True)
    shutil.copy(Path(open_clip.__file__).parent / VOCABULARY, folder / "tokenizer")
    for notice in ("LICENSE", "OPENAI-CLIP-MIT.txt", "README.md", "THIRD_PARTY_NOTICES.md"):
        (folder / notice).write_text("random weights", encoding="utf-8")
    towers = {
        "visual": (net.encode_image, torch.zeros(1, 3, SIDE, SIDE)),
        "textual": (net.encode_text, open_clip.tokenize(["a cat"])),
    }
    for name, (encode, example) in towers.items():
        net.forward = encode  # type: ignore[method-assign]
        torch.onnx.export(
            net,
            (example,),
            str(model / f"{name}.onnx"),
            dynamo=False,
            opset_version=18,
            input_names=["input"],
            output_names=["output"],
            dynamic_axes={"input": {0: "n"}, "output": {0: "n"}},
        )


def tokenizer() -> transformers.CLIPTokenizer:
    """Return transformers' CLIP tokenizer, made from the vocabulary in open_clip's package."""
    plain = open_clip.SimpleTokenizer()
    merges = [pair for pair, _ in sorted(plain.bpe_ranks.items(), key=lambda item: item[1])]
    pieces = {piece: number for piece, number in plain.encoder.items() if number < 49406}
    ends = {"<|startoftext|>": 49406, "<|endoftext|>": 49407}
    return transformers.CLIPTokenizer(vocab=pieces | ends, merges=merges, model_max_length=77)


def save_sentence_transformers(folder: Path, model: Path) -> None:
    """Write the module files that the published CLIP of sentence-transformers has, around
    transformers' folder.
    """
    folder.mkdir(parents=True)
    (folder / "0_CLIPModel").symlink_to(model.resolve(), target_is_directory=True)
    module = {
        "idx": 0,
        "name": "0",
        "path": "0_CLIPModel",
        "type": "sentence_transformers.models.CLIPModel",
    }
    (folder / "modules.json").write_text(json.dumps([module]), encoding="utf-8")


def main() -> None:
    """Save the three folders, whole or not at all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    if folder.exists():
        return
    aside = folder.with_name(folder.name + ".part")
    shutil.rmtree(aside, ignore_errors=True)
    net = save_open_clip(aside / "open_clip", open_clip.get_model_config(ARCHITECTURE))
    save_transformers(aside / "transformers", net)
    save_rclip(aside / "rclip", net)
    aside.rename(folder)
    save_sentence_transformers(folder / "sentence-transformers", folder / "transformers")


if __name__ == "__main__":
    main()
