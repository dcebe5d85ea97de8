"""Measure from which cosine an encoder should take two photos for one view: copies found, and
different photos taken for copies.

    python benchmarks/lookalikes.py PHOTOS [--count 200] [--encoder mini] [--sheet pairs.html]

Each of the photos is copied in six ways (half the size, JPEG quality 40 and 70, 3 % and 5 % cropped
on each side, 15 % brighter). A copy is found where its cosine with its photo reaches the threshold;
a false pair is two different photos that reach it, of all count^2 / 2. With mini and the 1,000
photos of Flickr8k's dev split, of 224 x 224 pixels (half of which is fewer than mini looks at):

    threshold                 0.85   0.88   0.90   0.92   0.93   0.94   0.95   0.96   0.97
    all copies                .983   .963   .935   .888   .853   .806   .742   .661   .545
    half size                 .916   .822   .713   .570   .476   .360   .236   .128   .047
    JPEG 40                   .990   .981   .957   .905   .859   .784   .681   .535   .321
    crop 5 %                  .994   .979   .958   .903   .852   .794   .708   .557   .359
    false pairs of 499,500      59     26     14      5      2      0      0      0      0

These are figures of the `mini` before the one that reads Spanish; with this one, 400 of the photos
give at 0.94 .53 (half size), .85 (crop 5 %) and no false pair.

The false pairs from 0.92 on are slopes of snow, greyhounds in a race, and moments of one football
match.

``--sheet`` draws the most alike pairs of different photos: some sets hold the same scene twice,
which is not a mistake of the encoder.
"""

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from machine import machine
from PIL import Image, ImageEnhance

from vitsearch import load_encoder
from vitsearch.arrays import Vectors, unit_rows
from vitsearch.outputs.contact_sheet import write_sheet
from vitsearch.photos import read_photo
from vitsearch.photos.walk import walk

THRESHOLDS = (0.80, 0.85, 0.88, 0.90, 0.91, 0.92, 0.93, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99)
PAIRS = 12


def saved_again(image: Image.Image, quality: int) -> Image.Image:
    """Return what is left of a picture after JPEG."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")


def cropped(image: Image.Image, share: float) -> Image.Image:
    """Return a picture without a share of its width and height on each side."""
    x, y = round(image.width * share), round(image.height * share)
    return image.crop((x, y, image.width - x, image.height - y))


WAYS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "half size": lambda image: image.resize(
        (image.width // 2, image.height // 2), Image.Resampling.LANCZOS
    ),
    "JPEG 70": lambda image: saved_again(image, 70),
    "JPEG 40": lambda image: saved_again(image, 40),
    "crop 3 %": lambda image: cropped(image, 0.03),
    "crop 5 %": lambda image: cropped(image, 0.05),
    "15 % brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.15),
}


def stored(rows: Vectors) -> Vectors:
    """Return rows as a collection keeps them."""
    return unit_rows(rows.astype(np.float16))


def main() -> None:
    """Print the share of copies found, by way, and the false pairs, at several thresholds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--encoder", default="mini")
    parser.add_argument("--sheet", type=Path)
    chosen = parser.parse_args()
    encoder = load_encoder(chosen.encoder)
    paths = [file.path for file in walk(chosen.photos) if file.problem is None][: chosen.count]
    images = [read_photo(chosen.photos / path).image.convert("RGB") for path in paths]
    rows = stored(encoder.encode_images(images))
    copies = {
        name: (stored(encoder.encode_images([change(image) for image in images])) * rows).sum(
            axis=1
        )
        for name, change in WAYS.items()
    }
    likeness = np.where(np.tri(len(rows), dtype=bool), -1, rows @ rows.T)  # each pair once
    print(
        f"{machine()}; {encoder.name}, {len(images):,} photos, "
        f"{len(images) * (len(images) - 1) // 2:,} pairs of different photos"
    )
    print(
        "threshold  " + "  ".join(f"{name:>13}" for name in WAYS) + "            all  false pairs"
    )
    for threshold in THRESHOLDS:
        shares = [float((scores >= threshold).mean()) for scores in copies.values()]
        cells = "  ".join(f"{share:13.3f}" for share in [*shares, float(np.mean(shares))])
        print(f"{threshold:9.2f}  {cells}  {int((likeness >= threshold).sum()):11,}")
    best = np.dstack(np.unravel_index(np.argsort(-likeness, axis=None)[:PAIRS], likeness.shape))[0]
    print(
        "most alike of different photos: "
        + ", ".join(f"{likeness[first, second]:.3f}" for first, second in best)
    )
    if chosen.sheet:
        pairs = [
            [(paths[first], f"{likeness[first, second]:.3f}"), (paths[second], "")]
            for first, second in best
        ]
        write_sheet(
            chosen.sheet,
            [(f"pair {number}", pair) for number, pair in enumerate(pairs, start=1)],
            root=chosen.photos,
        )


if __name__ == "__main__":
    main()
