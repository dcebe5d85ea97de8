"""Vectors of a folder of photos with `clip-retrieval inference`: MODEL PHOTOS OUT BATCH WORKERS.

Its own statistics are read: the time from asking for the first batch until the last one is written
to its buffer, past loading and warming up; listing the files and the last flush to disk are not in
it.
"""

import json
import sys
from pathlib import Path

import numpy as np
from clip_retrieval.clip_inference.main import main

if __name__ == "__main__":
    source, folder, out, batch, workers = sys.argv[1:]
    weights = Path(source).resolve() / "open_clip" / "open_clip_model.safetensors"
    main(
        input_dataset=folder,
        output_folder=out,
        enable_text=False,
        batch_size=int(batch),
        num_prepro_workers=int(workers),
        clip_model=f"open_clip:ViT-B-32-256/{weights}",
    )
    stats = json.loads(next(Path(out, "stats").glob("[0-9]*.json")).read_text())
    stages = {name: stats[f"{name}_duration"] for name in ("read", "inference", "write")}
    count = sum(len(np.load(file)) for file in Path(out, "img_emb").glob("*.npy"))
    print("\n" + json.dumps({"count": count, "seconds": stats["total_duration"], "stages": stages}))
