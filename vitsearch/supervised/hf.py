"""``hf:ORG/NAME`` and ``local-dir:``: transformers' image classifiers with the processor that lies beside their weights."""

from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor
from transformers import AutoImageProcessor, AutoModelForImageClassification

from vitsearch.encoders.hf import check_complete, read_weights
from vitsearch.encoders.hub import hub_folder
from vitsearch.encoders.model_files import TRANSFORMERS_FILES, check_saved, local_folder, one_line, read_json
from vitsearch.encoders.torch_encoder import choose_device, choose_dtype
from vitsearch.errors import EncoderError
from vitsearch.supervised.classifier import ImageClassifier
from vitsearch.supervised.torch_head import TorchHead
from vitsearch.types import Activation

FILES = TRANSFORMERS_FILES[:3]  # all but the tokenizer


def load_hf_classifier(name: str, *, device: str, dtype: str) -> ImageClassifier:
    """Return the classifier ``hf:ORG/NAME`` or ``local-dir:/path``; raises EncoderError naming the file that is missing or damaged."""
    source, _, model = name.partition(":")
    folder = hub_folder(model, FILES) if source == "hf" else local_folder(model)
    check_saved(folder, FILES, name)
    place = choose_device(device)
    number_format = choose_dtype(dtype, place)
    _check_kind(read_json(folder / "config.json", name), name)
    net, processor = _read(folder, name)

    def prepare(image: Image.Image) -> Tensor:
        pixels: Tensor = processor(images=image, return_tensors="pt")["pixel_values"][0]
        return pixels

    classes, activation = _classes(net.config)
    net = net.to(device=place, dtype=number_format)
    head = TorchHead(net, prepare, lambda ready, pixels: ready(pixel_values=pixels).logits, classes=classes, activation=activation)
    return ImageClassifier(name, head)


def _classes(config: Any) -> tuple[tuple[str, ...], Activation]:
    """Return the names of the classes, and how transformers' own pipeline turns logits into scores."""
    names = {int(number): str(name) for number, name in config.id2label.items()}
    several = config.problem_type == "multi_label_classification" or len(names) == 1
    return tuple(names[number] for number in range(len(names))), "sigmoid" if several else "softmax"


def _check_kind(config: dict[str, Any], name: str) -> None:
    kinds = [str(kind) for kind in config.get("architectures") or ()]
    if not any("ForImageClassification" in kind for kind in kinds):
        kind = ", ".join(kinds) or config.get("model_type")
        raise EncoderError(f"{name} is a {kind}, which has no classes: a classifier is a ...ForImageClassification")


def _read(folder: Path, name: str) -> tuple[Any, Any]:
    """Return the model and its processor."""
    processors: Any = AutoImageProcessor  # carries no types
    try:
        processor = processors.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        net, report = read_weights(AutoModelForImageClassification, folder)
    except (ImportError, MemoryError):
        raise
    except Exception as error:  # transformers, torch and safetensors each raise their own
        raise EncoderError(f"{name}: cannot read the model in {folder} ({one_line(error)}): fetch it again") from error
    check_complete(report, folder, name)
    return net, processor
