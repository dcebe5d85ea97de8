"""One fine-tuning run from its labelled photos to the saved model."""

import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from vitsearch.encoders.torch_encoder import choose_device
from vitsearch.errors import ClassifierError, PhotoError, QueryError
from vitsearch.finetune.checkpoint import FILE, as_rows, read_checkpoint, read_facts, reason_of, write_checkpoint
from vitsearch.finetune.examples import Example, Photos, open_example, split
from vitsearch.finetune.head import FeatureTap, fit_head
from vitsearch.finetune.loop import Learner, Tell, copied, train
from vitsearch.finetune.settings import FinetuneReport, FinetuneSettings, FinetuneStep
from vitsearch.photos import map_ahead
from vitsearch.supervised import load_trainable


@dataclass(frozen=True, slots=True)
class Task:
    """What is asked: the model, the photos below a folder with their classes, and how."""

    model: str
    root: Path
    examples: tuple[Example, ...]
    classes: tuple[str, ...]
    settings: FinetuneSettings
    device: str

    def facts(self) -> dict[str, Any]:
        """Return what a checkpoint must agree in to be this run's."""
        return {"model": self.model, "classes": list(self.classes), "asked": as_rows(self.examples), "settings": asdict(self.settings)}


@dataclass(frozen=True, slots=True)
class _Begun:
    """A run under way: its photos, and those that cannot be read, with the reasons."""

    photos: Photos
    unreadable: list[tuple[str, str]]

    def facts(self) -> dict[str, Any]:
        chosen = {"training": as_rows(self.photos.training), "judging": as_rows(self.photos.judging)}
        return chosen | {"unreadable": [list(one) for one in self.unreadable]}


def run_finetuning(task: Task, output: Path, *, resume: bool, tell: Tell) -> FinetuneReport:
    """Carry out a task; raises as `finetune` does, and OSError where the folder cannot be written."""
    began = time.perf_counter()
    kept = _kept_run(task, output, resume)
    torch.manual_seed(task.settings.seed)  # of a new head; its fit leaves nothing of it
    learner = Learner(load_trainable(task.model, task.classes), task.settings, choose_device(task.device))
    output.mkdir(parents=True, exist_ok=True)
    if kept:
        begun = _from_facts(task.root, kept)
        read_checkpoint(output, learner, kept)
    else:
        begun = _begin(learner, task, tell)
    facts = task.facts() | begun.facts()
    train(learner, begun.photos, after=lambda: write_checkpoint(output, learner, facts), tell=tell)
    _save_best(learner, output)
    assert learner.best is not None
    seconds = time.perf_counter() - began
    return FinetuneReport(task.classes, len(begun.photos.training), tuple(learner.results), learner.best, tuple(begun.unreadable), seconds)


def _kept_run(task: Task, output: Path, resume: bool) -> dict[str, Any] | None:
    """Return the run to go on with, or None to begin; raises ClassifierError where the folder holds another or a finished one."""
    facts = read_facts(output)
    if facts is None:
        if (output / "config.json").exists():
            raise ClassifierError(f"{output} holds a model already: name another folder with -o")
        if output.is_dir() and any(output.iterdir()):
            raise ClassifierError(f"{output} holds other files and no run to go on with: name a new or empty folder")
        if output.resolve().is_relative_to(task.root.resolve()):
            raise ClassifierError(f"{output} is inside the photo folder {task.root}: name a folder beside it")
        return None
    if not resume:
        raise ClassifierError(f"{output} holds a run that was stopped: say --resume to go on, or delete {output / FILE} to begin anew")
    differ = [name for name, value in task.facts().items() if facts.get(name) != value]
    if differ:
        named = ", ".join("photos" if name == "asked" else name for name in differ)
        raise ClassifierError(f"the run in {output} was begun with other {named}: resume it as it was begun, or name another folder")
    return facts


def _from_facts(root: Path, facts: dict[str, Any]) -> _Begun:
    training, judging = (tuple(Example(*row) for row in facts[name]) for name in ("training", "judging"))
    return _Begun(Photos(root, training, judging), [(path, reason) for path, reason in facts["unreadable"]])


def _begin(learner: Learner, task: Task, tell: Tell) -> _Begun:
    """Read every photo once: learn which cannot be read, split the others, and set the head to what the frozen network sees."""
    features, unreadable = _features(learner, task, tell)
    readable = [example for example in task.examples if example.path in features]
    training, judging = split(readable, task.settings.validation, task.settings.seed)
    if len({example.label for example in training}) < len(task.classes):
        seen = {example.label for example in training}
        missing = next(name for number, name in enumerate(task.classes) if number not in seen)
        raise QueryError(f"no photo of {missing!r} can be read: add some, or take its label out")
    rows = torch.stack([features[example.path] for example in training])
    fit_head(learner.model.head, rows, torch.tensor([example.label for example in training]))
    learner.start = copied(learner.weights)
    return _Begun(Photos(task.root, training, judging), unreadable)


@torch.no_grad()
def _features(learner: Learner, task: Task, tell: Tell) -> tuple[dict[str, Tensor], list[tuple[str, str]]]:
    """Return what enters the head for each photo that can be read, and the reasons for the others."""
    learner.model.net.eval()
    tap, size, workers = FeatureTap(learner.model.head), task.settings.batch_size, os.cpu_count() or 1
    paths: list[str] = []
    unreadable: list[tuple[str, str]] = []
    waiting: list[Tensor] = []
    loaded = map_ahead(lambda one: _prepared(learner, task.root, one), task.examples, workers=workers, ahead=size + workers)
    for number, (example, ready) in enumerate(zip(task.examples, loaded, strict=True), start=1):
        if isinstance(ready, PhotoError):
            unreadable.append((example.path, str(ready).removeprefix(f"{example.path}: ")))
        else:
            paths.append(example.path)
            waiting.append(ready)
        if waiting and (len(waiting) == size or number == len(task.examples)):
            learner.model.logits(torch.stack(waiting).to(learner.device))
            waiting = []
        tell(FinetuneStep("reading", number, len(task.examples)))
    if not paths:
        raise QueryError(f"none of the {len(unreadable)} labelled photos can be read ({unreadable[0][0]}: {unreadable[0][1]})")
    return dict(zip(paths, tap.taken(), strict=True)), unreadable


def _prepared(learner: Learner, root: Path, example: Example) -> Tensor | PhotoError:
    try:
        return learner.model.prepare(open_example(root, example))
    except PhotoError as error:
        return error


def _save_best(learner: Learner, output: Path) -> None:
    """Write the best epoch's weights as a model and take the checkpoint away."""
    with torch.no_grad():
        for name, weight in learner.weights.items():
            weight.copy_(learner.best_weights[name])
    learner.model.net.cpu().eval()
    try:
        learner.model.save(output)
    except (OSError, SafetensorError) as error:
        (output / "config.json").unlink(missing_ok=True)  # not a model: the checkpoint beside it goes on
        raise ClassifierError(f"cannot write the model to {output} ({reason_of(error)}): free some space; --resume goes on") from error
    (output / FILE).unlink()
