"""Measure the image tower of a PyTorch model alone, in each number format and way, and which share
of that an index of photos reaches.

python -m benchmarks.gpu.tower --model local-dir:/path [--device cuda] [--batch 128] [--photos DIR |
--count 2000] [--rounds 20]

The ceiling is the tower on pictures that lie on the device already. What bounds it is printed
beside it: operations of a picture (torch's flop counter, a multiply and an add are two) and the
bytes of one that travel to the device. "Index" is `vitsearch index` of the folder, or of drawn
JPEGs, with the tower as it is, in the device's own number format. Vectors of compiled ways are held
against those of the tower as it is. Without a GPU one line says so; --device cpu measures the CPU.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu.models import save_jpegs
from benchmarks.machine import machine
from vitsearch import index_folder, load_encoder
from vitsearch.encoders.checkpoints import one_line
from vitsearch.encoders.torch_encoder import (
    METHODS,
    Method,
    TorchEncoder,
    compiled,
    in_fixed_batches,
    seconds,
)

SIDE = 480  # of the drawn photos


def opened(name: str, device: str, dtype: str) -> TorchEncoder:
    """Return the model on PyTorch, the weights of its image tower read."""
    encoder = load_encoder(name, device, dtype, runtime="torch")
    if not isinstance(encoder, TorchEncoder):
        raise SystemExit(
            f"{name} does not run on PyTorch: take open_clip:ARCH/TAG, hf:ORG/NAME or "
            "local-dir:/path"
        )
    encoder.towers.load("image")
    return encoder


def some_pictures(encoder: TorchEncoder, batch: int) -> torch.Tensor:
    """Return normalised noise on the device."""
    height, width = encoder.preprocess.size
    return encoder.normalise(
        np.random.default_rng(0).integers(0, 256, (batch, height, width, 3), dtype=np.uint8)
    )


def operations(encoder: TorchEncoder) -> int:
    """Return the floating-point operations of one picture."""
    # with gradients, for without them attention runs as one operation that the counter does not
    # know; plain matrix products, which it does
    with (
        FlopCounterMode(display=False) as counter,
        torch.enable_grad(),
        sdpa_kernel(SDPBackend.MATH),
    ):
        encoder.towers.encode_images(some_pictures(encoder, 1))
    return int(counter.get_total_flops())


def ceiling(encoder: TorchEncoder, method: Method, batch: int, rounds: int) -> tuple[float, float]:
    """Return pictures a second of the tower alone, and the least cosine to the vectors of the tower
    as it is.
    """
    pixels, plain = some_pictures(encoder, batch), encoder.towers.encode_images
    run = compiled(plain, method)
    with torch.inference_mode():
        for _ in range(3):
            rows = in_fixed_batches(run, pixels, batch)
        took = [
            seconds(lambda: in_fixed_batches(run, pixels, batch), pixels.device)
            for _ in range(rounds)
        ]
        cosine = torch.cosine_similarity(rows.float(), plain(pixels).float()).min()
    return batch / statistics.median(took), float(cosine)


def row(
    encoder: TorchEncoder, method: Method, batch: int, *, rounds: int, flops: int
) -> tuple[str, float]:
    """Return a line of the table and its pictures a second, 0 where the way fails."""
    try:
        rate, cosine = ceiling(encoder, method, batch, rounds)
    except Exception as error:  # the compilers behind torch.compile each raise their own
        return f"| {encoder.dtype} | {method} | failed: {one_line(error)} |", 0.0
    return (
        f"| {encoder.dtype} | {method} | {rate:,.0f} | {rate * flops / 1e12:.2f} | {cosine:.6f} |",
        rate,
    )


def indexed(encoder: TorchEncoder, photos: Path, batch: int) -> float:
    """Return photos a second of an index made from nothing."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        report = index_folder(
            photos, collection=Path(folder) / "collection", encoder=encoder, batch_size=batch
        )
        return report.indexed / (time.perf_counter() - began)


def measure(options: argparse.Namespace) -> None:
    """Print the table, and what the index reaches."""
    first = opened(options.model, options.device, options.dtypes[0])
    flops, automatic = operations(first), opened(options.model, options.device, "auto")
    sent = 3 * first.preprocess.size[0] * first.preprocess.size[1]
    is_gpu = options.device.startswith("cuda")
    name = torch.cuda.get_device_name(options.device) if is_gpu else "no GPU"
    run = f"{options.model}, batches of {options.batch}"
    print(f"{machine()}; {name}; PyTorch {torch.__version__}; {run}")
    print(f"one picture: {flops:,} operations, {sent:,} bytes to the device\n")
    print(
        "| number format | way | pictures/s | TFLOP/s | least cosine to eager "
        "|\n|---|---|---|---|---|"
    )
    best = 0.0
    for dtype in options.dtypes:
        encoder = opened(options.model, options.device, dtype)
        for method in options.ways:
            line, rate = row(encoder, method, options.batch, rounds=options.rounds, flops=flops)
            best = max(best, rate) if dtype == automatic.dtype else best
            print(line, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        photos = options.photos or save_jpegs(Path(folder) / "photos", options.count, SIDE)
        reached = indexed(automatic, photos, options.batch)
    share = f", {reached / best:.0%} of the best of it in {automatic.dtype}" if best else ""
    print(
        f"\nindex: {reached:,.0f} photos/s in {automatic.dtype}{share}; "
        f"{reached * sent / 1e6:,.1f} MB/s to the device"
    )


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument(
        "--dtypes",
        nargs="+",
        default=["float16", "bfloat16"],
        choices=["float32", "float16", "bfloat16"],
    )
    parser.add_argument("--ways", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--count", type=int, default=2000)
    options = parser.parse_args()
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        print("PyTorch sees no GPU here: nothing is measured (--device cpu measures the CPU)")
        return
    measure(options)


if __name__ == "__main__":
    main()
