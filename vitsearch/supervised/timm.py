"""``timm:NAME`` and ``local-dir:``: timm's models with the transform that their configuration asks for."""

from pathlib import Path
from typing import Any

import timm

from vitsearch.encoders.model_files import one_line
from vitsearch.encoders.torch_encoder import choose_device, choose_dtype
from vitsearch.errors import EncoderError
from vitsearch.supervised.classifier import ImageClassifier
from vitsearch.supervised.torch_head import TorchHead

_data: Any = timm.data  # carries no types


def class_names(model: Any) -> tuple[str, ...]:
    """Return the names in the model's configuration, or ImageNet's where its classes are that, or numbers."""
    given = model.pretrained_cfg.get("label_names")
    if given and len(given) == model.num_classes:
        return tuple(map(str, given))
    subset = _data.infer_imagenet_subset(model)
    if subset:
        info = _data.ImageNetInfo(subset)
        return tuple(str(info.index_to_description(number)) for number in range(model.num_classes))
    return tuple(f"class {number}" for number in range(model.num_classes))


def load_timm_classifier(name: str, *, device: str, dtype: str) -> ImageClassifier:
    """Return the classifier ``timm:NAME`` or a folder that timm saved; raises EncoderError."""
    source, _, model = name.partition(":")
    place = choose_device(device)
    number_format = choose_dtype(dtype, place)
    asked = model if source == "timm" else f"local-dir:{Path(model).expanduser()}"
    if source == "timm" and not timm.is_model(model):
        near = ", ".join(timm.list_models(f"*{model.partition('.')[0]}*")[:3]) or "vit_base_patch16_224, deit_small_patch16_224"
        raise EncoderError(f"timm has no model {model!r}: try {near}")
    try:
        net = timm.create_model(asked, pretrained=True)
    except Exception as error:  # timm, the hub client, torch and safetensors each raise their own
        raise EncoderError(f"{name}: the weights cannot be had ({one_line(error)}): connect once, or use local-dir:") from error
    if not net.num_classes:
        raise EncoderError(f"{name} has no classes: choose a model of timm with a classification head")
    transform = _data.create_transform(**_data.resolve_data_config({}, model=net), is_training=False)
    classes = class_names(net)
    head = TorchHead(net.to(device=place, dtype=number_format), transform, lambda ready, pixels: ready(pixels), classes=classes)
    return ImageClassifier(name, head)
