"""Vectors of a folder of photos with rclip: MODEL PHOTOS OUT BATCH WORKERS.

It chooses its workers itself, one a core, and its batches of 8 by default, which are faster for it
than those of 32: BATCH is not used. Opening the model and one picture through it come before the
clock starts.
"""

import os
import sys
import time
from pathlib import Path

source, folder, out, *_ = sys.argv[1:]
data = Path(out, "rclip")
data.mkdir()
for file in Path(source, "rclip").iterdir():
    (data / file.name).symlink_to(file.resolve())
os.environ["RCLIP_DATADIR"] = str(data)

from PIL import Image  # noqa: E402
from rclip.main import init_rclip  # noqa: E402
from spent import report  # noqa: E402

rclip, model, database = init_rclip(folder, indexing_batch_size=8, no_indexing=True)
model.compute_image_features([Image.new("RGB", (256, 256))], for_indexing=True)
began = time.perf_counter()
rclip.ensure_index(folder)
ended = time.perf_counter()
rclip.close()
(count,) = database._con.execute("SELECT COUNT(*) FROM images").fetchone()
report(count, began, ended)
