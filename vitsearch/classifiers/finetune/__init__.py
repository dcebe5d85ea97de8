"""Fine-tuning a Vision Transformer on a folder of labelled photos."""

import os
from collections.abc import Callable
from pathlib import Path

from vitsearch.classifiers.finetune.settings import (
    EpochResult,
    FinetuneReport,
    FinetuneSettings,
    FinetuneStep,
    labelled_photos,
)
from vitsearch.errors import ClassifierError, EncoderError
from vitsearch.storage import photo_root

__all__ = ["EpochResult", "FinetuneReport", "FinetuneSettings", "FinetuneStep", "finetune"]

DEFAULTS = FinetuneSettings()


def finetune(
    photos: str | os.PathLike[str],
    labels_from: str,
    output: str | os.PathLike[str],
    *,
    model: str = "mini",
    settings: FinetuneSettings = DEFAULTS,
    device: str = "auto",
    resume: bool = False,
    progress: Callable[[FinetuneStep], None] | None = None,
) -> FinetuneReport:
    """Fine-tune a classifier on labelled photos, save it to a folder, and return the report.

    `load_classifier("local-dir:...")` reads that folder. ``labels_from`` is "folders" or a CSV file
    (see `read_labels`), ``model`` a name as in `load_classifier`. A share of the photos of each
    class (``settings.validation``) is left out to choose the best epoch and to stop early; photos
    that cannot be read are left out and counted. After each epoch the run is saved in
    ``output/checkpoint.safetensors``; with ``resume`` it continues from there and ends with the
    weights that it would have had. The augmentation and the layer-wise rates are those of DeiT
    (Touvron et al. 2021, arXiv:2012.12877) and BEiT (Bao et al. 2022, arXiv:2106.08254). Raises
    QueryError for labels that cannot be learned from, EncoderError for a model that cannot be
    loaded or trained, ClassifierError where the folder holds another run or cannot be written.
    """
    try:
        from vitsearch.classifiers.finetune.run import Task, run_finetuning
    except ImportError as error:
        raise EncoderError(
            f"fine-tuning needs PyTorch and torchvision ({error.name or error}): pip install "
            "'vitsearch[clip]'"
        ) from error

    root, folder = photo_root(photos), Path(output)
    examples, classes = labelled_photos(root, labels_from)
    task = Task(model, root, examples, classes, settings, device)
    try:
        return run_finetuning(task, folder, resume=resume, on_step=progress or (lambda _: None))
    except OSError as error:
        raise ClassifierError(
            f"cannot write the classifier to {folder} "
            f"({error.strerror or error}): choose another place"
        ) from error
