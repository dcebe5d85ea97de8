"""Tiny supervised classifiers."""

from pathlib import Path

from helpers.lazy import library

torch = library("torch")
transformers = library("transformers")

SHAPE = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


NAMES = {0: "cat", 1: "dog", 2: "car", 3: "tree", 4: "house", 5: "boat"}


def save_classifier(folder: Path, kind: str = "ViT", **options: object) -> Path:
    """Save a random classifier of transformers with its processor."""
    torch.manual_seed(7)
    config = getattr(transformers, f"{kind}Config")(
        **SHAPE, id2label=NAMES, label2id={name: i for i, name in NAMES.items()}, **options
    )
    net = getattr(transformers, f"{kind}ForImageClassification")(config).eval()
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(0.1 * torch.randn(weight.shape))
    net.save_pretrained(folder)
    size = {"height": 32, "width": 32}
    processor = transformers.ViTImageProcessor(
        size=size, image_mean=[0.5, 0.4, 0.3], image_std=[0.2, 0.3, 0.4]
    )
    processor.save_pretrained(folder)
    return folder
