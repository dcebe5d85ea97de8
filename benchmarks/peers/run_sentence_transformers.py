"""Vectors of a folder of photos with sentence-transformers: MODEL PHOTOS OUT BATCH WORKERS.

Its page about image search gives all pictures to one call of ``encode``, which would keep every
decoded photo in memory; here it is one call for each batch, with equal work.
"""

import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image
from sentence_transformers import SentenceTransformer
from spent import report

source, folder, out, batch, _ = sys.argv[1:]
model = SentenceTransformer(f"{source}/sentence-transformers", device="cpu")
began = time.perf_counter()
files, size, rows = sorted(Path(folder).iterdir()), int(batch), []
for start in range(0, len(files), size):
    images = [Image.open(file) for file in files[start : start + size]]
    rows.append(
        model.encode(images, batch_size=size, normalize_embeddings=True, show_progress_bar=False)
    )
np.save(f"{out}/vectors.npy", np.concatenate(rows))
report(len(files), began)
