"""``hf:ORG/NAME`` and ``local-dir:``: transformers' image classifiers and their processors."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor, nn
from transformers import AutoImageProcessor, AutoModelForImageClassification

from vitsearch.classifiers.classifier import ImageClassifier
from vitsearch.classifiers.torch_model import TorchHead, Trainable, layers_of, linear_head, square
from vitsearch.encoders.checkpoints import (
    TRANSFORMERS_FILES,
    check_saved,
    check_settings,
    check_sides,
    local_folder,
    one_line,
    read_json,
)
from vitsearch.encoders.hub import hub_folder
from vitsearch.encoders.huggingface import check_complete, read_weights, without_bar
from vitsearch.encoders.torch_encoder import choose_device, choose_dtype
from vitsearch.errors import EncoderError
from vitsearch.types import Activation
from vitsearch.untrusted import guarded

FILES = TRANSFORMERS_FILES[:3]  # all but the tokenizer


def load_hf_classifier(name: str, *, device: str, dtype: str) -> ImageClassifier:
    """Return the classifier ``hf:ORG/NAME`` or ``local-dir:/path``.

    Raises EncoderError naming the file that is missing or damaged.
    """
    folder = _folder(name)
    target = choose_device(device)
    number_format = choose_dtype(dtype, target)
    net, processor = _read(folder, name)
    with guarded(EncoderError, f"{name}: the settings in {folder}", "fetch it again"):
        classes, activation = _classes(net.config)
        _preparation(processor)(Image.new("RGB", (64, 48)))
    net = net.to(device=target, dtype=number_format)
    forward = lambda model, pixels: model(pixel_values=pixels).logits  # noqa: E731
    return ImageClassifier(
        name,
        TorchHead(net, _preparation(processor), forward, classes=classes, activation=activation),
    )


def load_hf_trainable(name: str, classes: Sequence[str]) -> Trainable:
    """Return a transformers model with a new head of these classes; raises EncoderError."""
    folder = _folder(name)
    numbered = dict(enumerate(classes))
    net, processor = _read(folder, name)
    net.classifier = nn.Linear(
        linear_head(getattr(net, "classifier", None), name).in_features, len(classes)
    )
    net.config.id2label = numbered
    net.config.label2id = {label: number for number, label in numbered.items()}
    net.config.problem_type = "single_label_classification"
    net.num_labels = len(classes)
    prepare = _preparation(processor)
    side = square(prepare(Image.new("RGB", (64, 48))).shape[1:], name)

    def save(folder: Path) -> None:
        with without_bar():
            net.save_pretrained(folder)
        processor.save_pretrained(folder)

    return Trainable(
        net=net,
        logits=lambda pixels: net(pixel_values=pixels).logits,
        head=net.classifier,
        layers=layers_of(weight for weight, _ in net.named_parameters()),
        side=side,
        mean=tuple(processor.image_mean),
        std=tuple(processor.image_std),
        prepare=prepare,
        save=save,
    )


def _folder(name: str) -> Path:
    """Return the folder of a model with all its files."""
    source, _, model = name.partition(":")
    folder = hub_folder(model, FILES) if source == "hf" else local_folder(model)
    if (folder / "classifier.json").is_file() and not (folder / "config.json").exists():
        raise EncoderError(
            f"{folder} is a classifier of vectors: vitsearch label PHOTOS "
            f"--classifier {folder} uses it"
        )
    check_saved(folder, FILES, name)
    return folder


def _preparation(processor: Any) -> Callable[[Image.Image], Tensor]:
    def prepare(image: Image.Image) -> Tensor:
        pixels: Tensor = processor(images=image, return_tensors="pt")["pixel_values"][0]
        return pixels

    return prepare


def _classes(config: Any) -> tuple[tuple[str, ...], Activation]:
    """Return the names of the classes and the activation, as transformers' pipeline picks it."""
    names = {int(number): str(name) for number, name in config.id2label.items()}
    several = config.problem_type == "multi_label_classification" or len(names) == 1
    return tuple(names[number] for number in range(len(names))), "sigmoid" if several else "softmax"


def _check_kind(config: dict[str, Any], name: str) -> None:
    stated = config.get("architectures")
    kinds = [str(kind) for kind in stated] if isinstance(stated, list) else []
    if not any("ForImageClassification" in kind for kind in kinds):
        kind = ", ".join(kinds) or config.get("model_type")
        raise EncoderError(
            f"{name} is a {kind}, which has no classes: a classifier is a ...ForImageClassification"
        )


def _read(folder: Path, name: str) -> tuple[Any, Any]:
    """Return the model and its processor."""
    config = read_json(folder / "config.json", name)
    _check_kind(config, name)
    check_settings(config, sorted(folder.glob("*model*")), name)
    for file in (folder / group for group in FILES[2]):
        check_sides(read_json(file, name) if file.is_file() else {}, name)
    processors: Any = AutoImageProcessor  # carries no types
    try:
        processor = processors.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        net, report = read_weights(AutoModelForImageClassification, folder)
    except ImportError:
        raise
    except Exception as error:  # transformers, torch and safetensors each raise their own
        raise EncoderError(
            f"{name}: cannot read the model in {folder} ({one_line(error)}): fetch it again"
        ) from error
    check_complete(report, folder, name)
    return net, processor
