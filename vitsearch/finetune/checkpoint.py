"""What a run needs to go on: weights, optimiser and results in one safetensors file, written after each epoch."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vitsearch.errors import ClassifierError
from vitsearch.finetune.examples import Example
from vitsearch.finetune.loop import Learner
from vitsearch.finetune.settings import EpochResult

FILE = "checkpoint.safetensors"


def write_checkpoint(folder: Path, learner: Learner, facts: Mapping[str, Any]) -> None:
    """Write the state of a run aside and rename it; ``facts`` say which run it is."""
    tensors: dict[str, Tensor] = {f"now/{name}": weight.detach() for name, weight in learner.weights.items()}
    tensors |= {f"best/{name}": weight for name, weight in learner.best_weights.items()}
    tensors |= {f"start/{name}": weight for name, weight in learner.start.items()}
    for number, moments in learner.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{number}/{name}": torch.as_tensor(value) for name, value in moments.items()}
    told = dict(facts) | {"results": [asdict(result) for result in learner.results], "scaler": learner.scaler.state_dict()}
    aside = folder / f"{FILE}.new"
    try:
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, aside, metadata={"run": json.dumps(told)})
        os.replace(aside, folder / FILE)
    except (OSError, SafetensorError) as error:
        aside.unlink(missing_ok=True)
        raise ClassifierError(
            f"cannot write {folder / FILE} ({reason_of(error)}): free some space; --resume goes on from the last"
        ) from error


def read_facts(folder: Path) -> dict[str, Any] | None:
    """Return which run is kept in a folder and how far it is, or None; raises ClassifierError where it is damaged."""
    file = folder / FILE
    if not file.exists():
        return None
    try:
        with safe_open(file, framework="pt") as kept:
            facts: dict[str, Any] = json.loads((kept.metadata() or {})["run"])
        return facts
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise ClassifierError(f"the checkpoint {file} is damaged ({reason_of(error)}): delete it to begin anew") from error


def read_checkpoint(folder: Path, learner: Learner, facts: Mapping[str, Any]) -> None:
    """Bring a learner to where the run in a folder was; raises ClassifierError where the file is of another model."""
    try:
        with safe_open(folder / FILE, framework="pt", device="cpu") as kept:
            tensors = {name: kept.get_tensor(name) for name in kept.keys()}  # noqa: SIM118
        with torch.no_grad():
            for name, weight in learner.weights.items():
                weight.copy_(tensors[f"now/{name}"])
        learner.best_weights = {name: tensors[f"best/{name}"].to(learner.device) for name in learner.weights}
        learner.start = {name: tensors[f"start/{name}"].to(learner.device) for name in learner.weights}
        _restore_optimizer(learner, tensors)
    except (KeyError, RuntimeError, OSError, SafetensorError) as error:
        raise ClassifierError(f"the checkpoint in {folder} does not fit the model ({error}): delete it to begin anew") from error
    learner.scaler.load_state_dict(facts["scaler"])
    learner.results = [EpochResult(**result) for result in facts["results"]]
    for result in learner.results:
        if result.is_better_than(learner.best):
            learner.best = result


def _restore_optimizer(learner: Learner, tensors: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer/"):
            _, number, part = name.split("/")
            state.setdefault(int(number), {})[part] = tensor
    learner.optimizer.load_state_dict({"state": state, "param_groups": learner.optimizer.state_dict()["param_groups"]})


def reason_of(error: Exception) -> str:
    """Return the reason of an error in a few words."""
    return " ".join(str(getattr(error, "strerror", None) or error).split())[:100]


def as_rows(examples: Sequence[Example]) -> list[list[Any]]:
    """Return photos as JSON keeps them."""
    return [[example.path, example.label] for example in examples]
