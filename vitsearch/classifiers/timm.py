"""``timm:NAME`` and ``local-dir:``: timm's models with the transforms of their configuration."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm

from vitsearch.classifiers.classifier import ImageClassifier
from vitsearch.classifiers.torch_model import TorchHead, Trainable, layers_of, linear_head, square
from vitsearch.encoders.checkpoints import one_line, read_json
from vitsearch.encoders.timm import checked_config
from vitsearch.encoders.torch_encoder import choose_device, choose_dtype
from vitsearch.errors import EncoderError

_data: Any = timm.data  # carries no types


def class_names(model: Any) -> tuple[str, ...]:
    """Return the names in the model's configuration, else ImageNet's, else numbers."""
    names = model.pretrained_cfg.get("label_names")
    if names and len(names) == model.num_classes:
        return tuple(map(str, names))
    subset = _data.infer_imagenet_subset(model)
    if subset:
        info = _data.ImageNetInfo(subset)
        return tuple(str(info.index_to_description(number)) for number in range(model.num_classes))
    return tuple(f"class {number}" for number in range(model.num_classes))


def load_timm_classifier(name: str, *, device: str, dtype: str) -> ImageClassifier:
    """Return the classifier ``timm:NAME`` or a folder that timm saved; raises EncoderError."""
    target = choose_device(device)
    number_format = choose_dtype(dtype, target)
    net = _created(name)
    if not net.num_classes:
        raise EncoderError(
            f"{name} has no classes: choose a model of timm with a classification head"
        )
    config = _data.resolve_data_config({}, model=net)
    transform = _data.create_transform(**config, is_training=False)
    classes = class_names(net)
    head = TorchHead(
        net.to(device=target, dtype=number_format),
        transform,
        lambda model, pixels: model(pixels),
        classes=classes,
    )
    return ImageClassifier(name, head)


def load_timm_trainable(name: str, classes: Sequence[str]) -> Trainable:
    """Return a model of timm with a new head of these classes; raises EncoderError."""
    net = _created(name, num_classes=len(classes))
    config = _data.resolve_data_config({}, model=net)
    shape = _shape_arguments(name) | {"num_classes": len(classes)}

    def save(folder: Path) -> None:
        net.pretrained_cfg["label_names"] = list(classes)
        facts = {"label_names": list(classes)}
        timm.models.save_for_hf(
            net, str(folder), model_config=facts, model_args=shape, safe_serialization=True
        )

    return Trainable(
        net=net,
        logits=net,
        head=linear_head(net.get_classifier(), name),
        layers=layers_of(weight for weight, _ in net.named_parameters()),
        side=square(config["input_size"][1:], name),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        prepare=_data.create_transform(**config, is_training=False),
        save=save,
    )


def _created(name: str, **options: Any) -> Any:
    """Return timm's model with its trained weights; raises EncoderError."""
    source, _, model = name.partition(":")
    spelling = model if source == "timm" else f"local-dir:{Path(model).expanduser()}"
    if source == "timm" and not timm.is_model(model):
        near = (
            ", ".join(timm.list_models(f"*{model.partition('.')[0]}*")[:3])
            or "vit_base_patch16_224, deit_small_patch16_224"
        )
        raise EncoderError(f"timm has no model {model!r}: try {near}")
    if source == "local-dir":
        folder = Path(model).expanduser()
        files = [*folder.glob("*.safetensors"), *folder.glob("*.bin")]
        checked_config(folder, files, name)
    try:
        return timm.create_model(spelling, pretrained=True, **options)
    except Exception as error:  # timm, the hub client, torch and safetensors each raise their own
        raise EncoderError(
            f"{name}: the weights cannot be had ({one_line(error)}): "
            "connect once, or use local-dir:"
        ) from error


def _shape_arguments(name: str) -> dict[str, Any]:
    """Return where a saved model's shape differs from that of its architecture's name.

    A model saved without it could not be read again.
    """
    source, _, model = name.partition(":")
    if source != "local-dir":
        return {}
    return dict(read_json(Path(model).expanduser() / "config.json", name).get("model_args") or {})
