"""Vectors of a folder of photos with open_clip and a DataLoader: MODEL PHOTOS OUT BATCH WORKERS."""

import sys
import time
from pathlib import Path

import numpy as np
import open_clip
import pillow_heif
import torch
from PIL import Image
from spent import report
from torch.utils.data import DataLoader, Dataset


class Photos(Dataset):
    """The photos of a folder, prepared."""

    def __init__(self, folder, preprocess):
        self.files, self.preprocess = sorted(Path(folder).iterdir()), preprocess

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        return self.preprocess(Image.open(self.files[index]))


if __name__ == "__main__":
    source, folder, out, batch, workers = sys.argv[1:]
    pillow_heif.register_heif_opener()
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{source}/open_clip")
    model.eval()
    began = time.perf_counter()
    rows = []
    with torch.inference_mode():
        for pixels in DataLoader(
            Photos(folder, preprocess), batch_size=int(batch), num_workers=int(workers)
        ):
            rows.append(model.encode_image(pixels, normalize=True).numpy())
    np.save(f"{out}/vectors.npy", np.concatenate(rows))
    report(sum(map(len, rows)), began)
