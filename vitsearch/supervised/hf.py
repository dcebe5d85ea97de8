"""``hf:ORG/NAME`` and ``local-dir:``: transformers' image classifiers with the processor that lies beside their weights."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import AutoImageProcessor, AutoModelForImageClassification

from vitsearch.encoders.hf import without_bar
from vitsearch.encoders.hub import hub_folder
from vitsearch.encoders.model_files import Groups, missing_from, one_line, read_json
from vitsearch.encoders.torch_encoder import choose_device, choose_dtype
from vitsearch.errors import EncoderError
from vitsearch.supervised.classifier import ImageClassifier

FILES: Groups = [
    ["config.json"],
    ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"],
    ["preprocessor_config.json", "processor_config.json"],
]


class TransformersHead:
    """An image classifier of transformers on one device, in one number format."""

    def __init__(self, model: Any, processor: Any, device: torch.device, dtype: torch.dtype) -> None:
        self._model = model.to(device=device, dtype=dtype).eval()
        self._processor, self._device, self._dtype = processor, device, dtype
        names = {int(number): str(name) for number, name in model.config.id2label.items()}
        self.classes = tuple(names[number] for number in range(len(names)))
        several = model.config.problem_type == "multi_label_classification" or len(names) == 1
        self.activation: Literal["softmax", "sigmoid"] = "sigmoid" if several else "softmax"

    def prepare(self, image: Image.Image) -> Tensor:
        """Return ``(channels, height, width)`` float32, as the model's own processor makes it."""
        pixels: Tensor = self._processor(images=image, return_tensors="pt")["pixel_values"][0]
        return pixels

    @torch.inference_mode()
    def logits(self, batch: Sequence[Any]) -> NDArray[np.float32]:
        """Return ``(n, classes)`` float32 logits."""
        pixels = torch.stack(list(batch)).to(device=self._device, dtype=self._dtype)
        result: NDArray[np.float32] = self._model(pixel_values=pixels).logits.float().cpu().numpy()
        return result


def load_hf_classifier(name: str, *, device: str, dtype: str) -> ImageClassifier:
    """Return the classifier ``hf:ORG/NAME`` or ``local-dir:/path``; raises EncoderError naming the file that is missing or damaged."""
    source, _, model = name.partition(":")
    folder = hub_folder(model, FILES) if source == "hf" else Path(model).expanduser()
    if not folder.is_dir():
        raise EncoderError(f"there is no folder {folder}: local-dir: takes the folder of a model, as in local-dir:/path/to/model")
    missing = missing_from(folder, FILES)
    if missing:
        raise EncoderError(f"{name} lacks the file {folder / missing}: save the model again with its processor (save_pretrained)")
    place = choose_device(device)
    number_format = choose_dtype(dtype, place)
    config = read_json(folder / "config.json", name)
    if not any("ForImageClassification" in str(kind) for kind in config.get("architectures") or ()):
        kind = ", ".join(map(str, config.get("architectures") or ())) or config.get("model_type")
        raise EncoderError(f"{name} is a {kind}, which has no classes: a classifier is a ...ForImageClassification")
    try:
        processors: Any = AutoImageProcessor  # carries no types
        processor = processors.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        with without_bar():
            net, report = AutoModelForImageClassification.from_pretrained(
                folder, dtype=torch.float32, local_files_only=True, trust_remote_code=False, output_loading_info=True
            )
    except (ImportError, MemoryError):
        raise
    except Exception as error:  # transformers, torch and safetensors each raise their own
        raise EncoderError(f"{name}: cannot read the model in {folder} ({one_line(error)}): fetch it again") from error
    absent = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if absent:
        raise EncoderError(f"{name}: the weights in {folder} lack {len(absent)} tensors ({absent[0]}, ...): fetch the model again")
    return ImageClassifier(name, TransformersHead(net, processor, place, number_format))
