"""Photos a second through the image tower, and texts a second: PyTorch, ONNX Runtime in float32 and
in int8, in turn.

    python -m benchmarks.runtime local-dir:/path/to/model
    python -m benchmarks.runtime --random ViT-B-32 --folder models/random-b32

``--random`` saves an open_clip architecture with random weights first: how fast it is does not
depend on what the weights are. Medians of several rounds, the runtimes alternating within each, so
that what else the machine does meets all of them.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from vitsearch.encoders import Encoder, load_encoder

RUNTIMES = {
    "torch": ("torch", "float32"),
    "onnx": ("onnx", "float32"),
    "onnx int8": ("onnx", "int8"),
}
PREPROCESS = {
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
}


def save_random(architecture: str, folder: Path) -> str:
    """Save an architecture with random weights as an open_clip folder, once, and return the
    encoder's name.
    """
    import open_clip
    import torch
    from safetensors.torch import save_file

    if not (folder / "open_clip_config.json").is_file():
        torch.manual_seed(0)
        net = open_clip.create_model(architecture, load_weights=False)
        folder.mkdir(parents=True, exist_ok=True)
        save_file(
            {name: tensor.contiguous() for name, tensor in net.state_dict().items()},
            folder / "open_clip_model.safetensors",
        )
        facts = {
            "model_cfg": open_clip.get_model_config(architecture),
            "preprocess_cfg": PREPROCESS,
        }
        (folder / "open_clip_config.json").write_text(json.dumps(facts), encoding="utf-8")
    return f"local-dir:{folder}"


def seconds(work: Callable[[], object]) -> float:
    """Return how long one call takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def measure(encoders: dict[str, Encoder], photos: int, rounds: int) -> dict[str, dict[str, float]]:
    """Return medians of photos and texts a second by runtime, and the least cosine to the first."""
    rng = np.random.default_rng(0)
    first = next(iter(encoders.values()))
    shape = first.prepare(_picture(rng)).shape
    batch = list(rng.integers(0, 256, (photos, *shape), dtype=np.uint8))
    texts = [f"a photo of {number} things on a table" for number in range(photos)]
    expected = first.encode_prepared(batch)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in encoders}
    cosines = {
        name: float((encoder.encode_prepared(batch) * expected).sum(axis=1).min())
        for name, encoder in encoders.items()
    }
    for encoder in encoders.values():
        encoder.encode_texts(texts[:2])
    for _ in range(rounds):
        for name, encoder in encoders.items():
            times[name].append(
                (
                    seconds(lambda e=encoder: e.encode_prepared(batch)),
                    seconds(lambda e=encoder: e.encode_texts(texts)),
                )
            )
    return {
        name: {
            "photos_per_s": round(photos / statistics.median(pair[0] for pair in pairs), 2),
            "texts_per_s": round(photos / statistics.median(pair[1] for pair in pairs), 2),
            "least_cosine": round(cosines[name], 5),
        }
        for name, pairs in times.items()
    }


def _picture(rng: np.random.Generator):  # type: ignore[no-untyped-def]
    from PIL import Image

    return Image.fromarray(rng.integers(0, 256, (300, 400, 3), dtype=np.uint8))


def main() -> None:
    """Measure and print one line of JSON a runtime, with the ratio to torch."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("encoder", nargs="?")
    parser.add_argument("--random", metavar="ARCH")
    parser.add_argument("--folder", type=Path, default=Path("models/random"))
    parser.add_argument("--photos", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    name = save_random(chosen.random, chosen.folder.resolve()) if chosen.random else chosen.encoder
    encoders = {
        label: load_encoder(name, "cpu", dtype, runtime=runtime)
        for label, (runtime, dtype) in RUNTIMES.items()
    }
    rows = measure(encoders, chosen.photos, chosen.rounds)
    for label, row in rows.items():
        ratios = {
            f"{what}_ratio": round(row[f"{what}_per_s"] / rows["torch"][f"{what}_per_s"], 2)
            for what in ("photos", "texts")
        }
        print(json.dumps({"runtime": label, **row, **ratios}))


if __name__ == "__main__":
    main()
