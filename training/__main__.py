"""Run the recipe of `mini`: photos and texts once through the published networks, training, export.

    python -m training --data DIR [--work DIR] [--target DIR]

Each step leaves its results in the working folder, and a step whose results are there is not done again.
"""

import argparse
import time
from pathlib import Path

from training.export import export, load_trained
from training.prepare import prepare
from training.texts import prepare_texts
from training.train import Settings, train

TARGET = Path(__file__).parents[1] / "vitsearch" / "encoders" / "mini"


def main() -> None:
    """Do the four steps and say how long each took."""
    parser = argparse.ArgumentParser(prog="python -m training", description="Make the weights of mini.")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data's tar files (README.md)")
    parser.add_argument("--work", type=Path, default=Path(__file__).parent / "work", help="scratch folder, about 3 GB")
    parser.add_argument("--target", type=Path, default=TARGET, help="where the model's files go")
    arguments = parser.parse_args()
    began = time.time()
    steps = {
        "photos": lambda: prepare(arguments.data, arguments.work),
        "texts": lambda: prepare_texts(arguments.work),
        "training": lambda: None if (arguments.work / "network.pt").exists() else train(arguments.work, Settings()),
        "export": lambda: export(load_trained(arguments.work / "network.pt"), arguments.work, arguments.target),
    }
    for name, step in steps.items():
        start = time.time()
        step()
        print(f"{name}: {time.time() - start:.0f} s", flush=True)
    print(f"in all: {time.time() - began:.0f} s")


if __name__ == "__main__":
    main()
