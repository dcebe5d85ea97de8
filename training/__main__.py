"""Run the recipe of `mini`: pictures and texts once through the published networks, Spanish,
training in three stages, export.

    python -m training --data DIR [--work DIR] [--target DIR] [--resume]

Each step leaves its results in the working folder; with --resume, what is there is not done again
(a stage of training goes on from its last finished round).
"""

import argparse
import time
from pathlib import Path

from training.export import export, load_trained
from training.prepare import prepare
from training.spanish import prepare_spanish, teach_spanish
from training.stages import STAGES, TrainingConfig
from training.texts import prepare_texts
from training.train import mini_config, train


def learn_spanish(data: Path, work: Path) -> None:
    """Widen the tokenizer and teach the text tower."""
    prepare_spanish(data, work)
    teach_spanish(work, mini_config(work))


TARGET = Path(__file__).parents[1] / "vitsearch" / "encoders" / "mini"


def main() -> None:
    """Do the five steps and say how long each took."""
    parser = argparse.ArgumentParser(
        prog="python -m training", description="Make the weights of mini."
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="folder of the data's tar files (README.md)"
    )
    parser.add_argument(
        "--work",
        type=Path,
        default=Path(__file__).parent / "work",
        help="scratch folder, about 9 GB",
    )
    parser.add_argument("--target", type=Path, default=TARGET, help="where the model's files go")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from what an earlier run left in the scratch folder",
    )
    arguments = parser.parse_args()
    if not arguments.resume and arguments.work.is_dir() and any(arguments.work.iterdir()):
        parser.error(
            f"{arguments.work} holds an earlier run: go on from it with --resume, or name "
            "another folder with --work"
        )
    arguments.work.mkdir(parents=True, exist_ok=True)
    began = time.time()
    steps = {
        "pictures": lambda: prepare(arguments.data, arguments.work),
        "texts": lambda: prepare_texts(arguments.work),
        "spanish": lambda: learn_spanish(arguments.data, arguments.work),
        "training": lambda: train(arguments.work, TrainingConfig()),
        "export": lambda: export(
            load_trained(arguments.work / f"{STAGES[-1].name}.pt"), arguments.work, arguments.target
        ),
    }
    for name, step in steps.items():
        start = time.time()
        step()
        print(f"{name}: {time.time() - start:.0f} s", flush=True)
    print(f"in all: {time.time() - began:.0f} s")


if __name__ == "__main__":
    main()
