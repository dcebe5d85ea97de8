"""Vectors of a folder of photos with transformers' CLIPModel and its processor, batch by batch:
MODEL PHOTOS OUT BATCH WORKERS.
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from spent import report
from transformers import AutoProcessor, CLIPModel

source, folder, out, batch, _ = sys.argv[1:]
model = CLIPModel.from_pretrained(f"{source}/transformers").eval()
processor = AutoProcessor.from_pretrained(f"{source}/transformers")
began = time.perf_counter()
files, size, rows = sorted(Path(folder).iterdir()), int(batch), []
with torch.inference_mode():
    for start in range(0, len(files), size):
        inputs = processor(
            images=[Image.open(file) for file in files[start : start + size]], return_tensors="pt"
        )
        features = model.get_image_features(**inputs)
        rows.append(
            torch.nn.functional.normalize(getattr(features, "pooler_output", features)).numpy()
        )
np.save(f"{out}/vectors.npy", np.concatenate(rows))
report(len(files), began)
