"""One fine-tuning run, from labelled photos to the saved model, and its checkpoint."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vitsearch.classifiers import load_trainable
from vitsearch.classifiers.finetune.loop import (
    FeatureHook,
    Learner,
    OnStep,
    copied,
    fit_head,
    train,
)
from vitsearch.classifiers.finetune.settings import (
    EpochResult,
    Example,
    FinetuneReport,
    FinetuneSettings,
    FinetuneStep,
    Photos,
    open_example,
    split,
)
from vitsearch.encoders.torch_encoder import choose_device
from vitsearch.errors import ClassifierError, PhotoError, QueryError
from vitsearch.photos import prefetch_map
from vitsearch.photos.decoder import PhotoDecoder
from vitsearch.records import atomic_file
from vitsearch.untrusted import guarded, parse_json

# -- The checkpoint --------------------------------------------------------------------------------

FILE = "checkpoint.safetensors"


def write_checkpoint(folder: Path, learner: Learner, facts: Mapping[str, Any]) -> None:
    """Write the state of a run aside and rename it; ``facts`` identify the run."""
    tensors: dict[str, Tensor] = {
        f"now/{name}": weight.detach() for name, weight in learner.weights.items()
    }
    tensors |= {f"best/{name}": weight for name, weight in learner.best_weights.items()}
    tensors |= {f"start/{name}": weight for name, weight in learner.start.items()}
    for number, moments in learner.optimizer.state_dict()["state"].items():
        tensors |= {
            f"optimizer/{number}/{name}": torch.as_tensor(value) for name, value in moments.items()
        }
    run = dict(facts) | {
        "results": [result.to_record() for result in learner.results],
        "scaler": learner.scaler.state_dict(),
    }
    try:
        with atomic_file(folder / FILE) as aside:
            save_file(
                {name: tensor.cpu().contiguous() for name, tensor in tensors.items()},
                aside,
                metadata={"run": json.dumps(run)},
            )
    except (OSError, SafetensorError) as error:
        raise ClassifierError(
            f"cannot write {folder / FILE} ({reason_of(error)}): free some space; --resume goes on "
            "from the last"
        ) from error


def read_facts(folder: Path) -> dict[str, Any] | None:
    """Return which run is saved in a folder and how far it is, or None.

    Raises ClassifierError where the checkpoint is damaged.
    """
    file = folder / FILE
    if not file.exists():
        return None
    with guarded(ClassifierError, f"the checkpoint {file}", "delete it to begin anew"):
        with safe_open(file, framework="pt") as checkpoint:
            facts: dict[str, Any] = parse_json((checkpoint.metadata() or {})["run"])
        if not isinstance(facts, dict):
            raise ValueError("no object in it")
        return facts


def read_checkpoint(folder: Path, learner: Learner, facts: Mapping[str, Any]) -> None:
    """Bring a learner to where the run in a folder was.

    Raises ClassifierError where the file is of another model.
    """
    with guarded(
        ClassifierError,
        f"the checkpoint in {folder}",
        "delete it to begin anew",
        problem="does not fit the model",
    ):
        with safe_open(folder / FILE, framework="pt", device="cpu") as checkpoint:
            tensors = {name: checkpoint.get_tensor(name) for name in checkpoint.keys()}  # noqa: SIM118
        with torch.no_grad():
            for name, weight in learner.weights.items():
                weight.copy_(tensors[f"now/{name}"])
        learner.best_weights = {
            name: tensors[f"best/{name}"].to(learner.device) for name in learner.weights
        }
        learner.start = {
            name: tensors[f"start/{name}"].to(learner.device) for name in learner.weights
        }
        _restore_optimizer(learner, tensors)
        learner.scaler.load_state_dict(facts["scaler"])
        learner.results = [EpochResult.from_record(result) for result in facts["results"]]
    for result in learner.results:
        if result.is_better_than(learner.best):
            learner.best = result


def _restore_optimizer(learner: Learner, tensors: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer/"):
            _, number, part = name.split("/")
            state.setdefault(int(number), {})[part] = tensor
    learner.optimizer.load_state_dict(
        {"state": state, "param_groups": learner.optimizer.state_dict()["param_groups"]}
    )


def reason_of(error: Exception) -> str:
    """Return the reason of an error in a few words."""
    return " ".join(str(getattr(error, "strerror", None) or error).split())[:100]


def as_rows(examples: Sequence[Example]) -> list[list[Any]]:
    """Return photos as JSON holds them: lists of [path, class number]."""
    return [[example.path, example.label] for example in examples]


# -- The run ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Task:
    """What to do: the model, the photos below a folder with their classes, and the settings."""

    model: str
    root: Path
    examples: tuple[Example, ...]
    classes: tuple[str, ...]
    settings: FinetuneSettings
    device: str

    def facts(self) -> dict[str, Any]:
        """Return what must be equal in a checkpoint for this task to resume from it."""
        return {
            "model": self.model,
            "classes": list(self.classes),
            "asked": as_rows(self.examples),
            "settings": asdict(self.settings),
        }


@dataclass(frozen=True, slots=True)
class _Run:
    """A run under way: its photos, and those that cannot be read, with the reasons."""

    photos: Photos
    unreadable: list[tuple[str, str]]

    def facts(self) -> dict[str, Any]:
        return {
            "training": as_rows(self.photos.training),
            "judging": as_rows(self.photos.validation),
            "unreadable": [list(entry) for entry in self.unreadable],
        }


def run_finetuning(task: Task, output: Path, *, resume: bool, on_step: OnStep) -> FinetuneReport:
    """Carry out a task; raises as `finetune` does, and OSError where the folder is not writable."""
    start_time = time.perf_counter()
    saved = _saved_run(task, output, resume)
    torch.manual_seed(task.settings.seed)  # of a new head; its fit leaves nothing of it
    learner = Learner(
        load_trainable(task.model, task.classes), task.settings, choose_device(task.device)
    )
    output.mkdir(parents=True, exist_ok=True)
    if saved:
        with guarded(ClassifierError, f"the run in {output}", f"delete {FILE} to begin anew"):
            run = _from_facts(task.root, saved)
        read_checkpoint(output, learner, saved)
    else:
        run = _begin(learner, task, on_step)
    facts = task.facts() | run.facts()
    train(
        learner, run.photos, after=lambda: write_checkpoint(output, learner, facts), on_step=on_step
    )
    _save_best(learner, output)
    assert learner.best is not None
    seconds = time.perf_counter() - start_time
    return FinetuneReport(
        task.classes,
        len(run.photos.training),
        tuple(learner.results),
        learner.best,
        tuple(run.unreadable),
        seconds,
    )


def _saved_run(task: Task, output: Path, resume: bool) -> dict[str, Any] | None:
    """Return the facts of the run to resume, or None to begin.

    Raises ClassifierError where the folder holds another run or a finished one.
    """
    facts = read_facts(output)
    if facts is None:
        if (output / "config.json").exists():
            raise ClassifierError(f"{output} holds a model already: name another folder with -o")
        if output.is_dir() and any(output.iterdir()):
            raise ClassifierError(
                f"{output} holds other files and no run to go on with: name a new or empty folder"
            )
        if output.resolve().is_relative_to(task.root.resolve()):
            raise ClassifierError(
                f"{output} is inside the photo folder {task.root}: name a folder beside it"
            )
        return None
    if not resume:
        raise ClassifierError(
            f"{output} holds a run that was stopped: say --resume to go on, or delete "
            f"{output / FILE} to begin anew"
        )
    differ = [name for name, value in task.facts().items() if facts.get(name) != value]
    if differ:
        named = ", ".join("photos" if name == "asked" else name for name in differ)
        raise ClassifierError(
            f"the run in {output} was begun with other {named}: resume it as it was begun, or name "
            "another folder"
        )
    return facts


def _from_facts(root: Path, facts: dict[str, Any]) -> _Run:
    training, validation = (
        tuple(Example(*row) for row in facts[name]) for name in ("training", "judging")
    )
    unreadable = [(path, reason) for path, reason in facts["unreadable"]]
    return _Run(Photos(root, training, validation), unreadable)


def _begin(learner: Learner, task: Task, on_step: OnStep) -> _Run:
    """Read every photo once, split those that can be read, and fit the head to their features."""
    features, unreadable = _features(learner, task, on_step)
    readable = [example for example in task.examples if example.path in features]
    training, validation = split(readable, task.settings.validation, task.settings.seed)
    seen = {example.label for example in training}
    if len(seen) < len(task.classes):
        missing = next(name for number, name in enumerate(task.classes) if number not in seen)
        raise QueryError(f"no photo of {missing!r} can be read: add some, or take its label out")
    rows = torch.stack([features[example.path] for example in training])
    fit_head(learner.model.head, rows, torch.tensor([example.label for example in training]))
    learner.start = copied(learner.weights)
    return _Run(Photos(task.root, training, validation), unreadable)


@torch.no_grad()
def _features(
    learner: Learner, task: Task, on_step: OnStep
) -> tuple[dict[str, Tensor], list[tuple[str, str]]]:
    """Return what enters the head for each readable photo, by path, and why others failed."""
    learner.model.net.eval()
    hook = FeatureHook(learner.model.head)
    batch_size, workers = task.settings.batch_size, os.cpu_count() or 1
    paths: list[str] = []
    unreadable: list[tuple[str, str]] = []
    pending: list[Tensor] = []
    decoder = PhotoDecoder()
    loaded = prefetch_map(
        lambda example: _prepared(learner, task.root, example, decoder),
        task.examples,
        workers=workers,
        buffer=batch_size + workers,
        on_stop=decoder.close,
    )
    for number, (example, ready) in enumerate(zip(task.examples, loaded, strict=True), start=1):
        if isinstance(ready, PhotoError):
            unreadable.append((example.path, str(ready).removeprefix(f"{example.path}: ")))
        else:
            paths.append(example.path)
            pending.append(ready)
        if pending and (len(pending) == batch_size or number == len(task.examples)):
            learner.model.logits(torch.stack(pending).to(learner.device))
            pending = []
        on_step(FinetuneStep("reading", number, len(task.examples)))
    decoder.close()
    if not paths:
        raise QueryError(
            f"none of the {len(unreadable)} labelled photos can be read ({unreadable[0][0]}: "
            f"{unreadable[0][1]})"
        )
    return dict(zip(paths, hook.collected(), strict=True)), unreadable


def _prepared(
    learner: Learner, root: Path, example: Example, decoder: PhotoDecoder
) -> Tensor | PhotoError:
    try:
        return learner.model.prepare(open_example(root, example, decoder))
    except PhotoError as error:
        return error


def _save_best(learner: Learner, output: Path) -> None:
    """Write the best epoch's weights as a model and remove the checkpoint."""
    with torch.no_grad():
        for name, weight in learner.weights.items():
            weight.copy_(learner.best_weights[name])
    learner.model.net.cpu().eval()
    try:
        learner.model.save(output)
    except (OSError, SafetensorError) as error:
        # without it the folder is not a model, and the checkpoint can be resumed
        (output / "config.json").unlink(missing_ok=True)
        raise ClassifierError(
            f"cannot write the model to {output} ({reason_of(error)}): free "
            "some space; --resume goes on"
        ) from error
    (output / FILE).unlink()
