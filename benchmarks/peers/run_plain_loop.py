"""Vectors of a folder of photos with `mini` in a plain loop, PIL then the model, batch after batch:
PHOTOS OUT BATCH.
"""

import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image
from spent import report

from vitsearch import load_encoder

if __name__ == "__main__":
    folder, out, batch = sys.argv[1:]
    model = load_encoder("mini")
    model.encode_images([Image.new("RGB", (8, 8))])  # opens the tower
    began = time.perf_counter()
    files, rows = sorted(Path(folder).iterdir()), []
    for start in range(0, len(files), int(batch)):
        images = [Image.open(file).convert("RGB") for file in files[start : start + int(batch)]]
        rows.append(model.encode_images(images))
    np.save(f"{out}/vectors.npy", np.concatenate(rows))
    report(sum(map(len, rows)), began)
