"""rclip's side of benchmarks/search.py, in its own environment; RCLIP_DATADIR names its folder.

fill VECTORS.npy FOLDER      one row a photo of FOLDER into its database
warm FOLDER QUERIES.json     the median milliseconds of its search by words, after the first quarter
"""

import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np
from rclip.db import DB, NewImage
from rclip.main import init_rclip
from rclip.utils import helpers

what, *arguments = sys.argv[1:]
if what == "fill":
    vectors, folder = np.load(arguments[0]), Path(arguments[1])
    database = DB(helpers.get_app_datadir() / "db.sqlite3")
    for number, vector in enumerate(vectors):
        path = str(folder / f"{number}.jpg")
        row = NewImage(
            filepath=path, modified_at=0.0, size=0, vector=vector.tobytes(), hash=f"{number:032x}"
        )
        database.upsert_image(row, commit=False)
    database.close()
else:
    folder, queries = arguments[0], json.loads(Path(arguments[1]).read_text())
    rclip, *_ = init_rclip(folder, indexing_batch_size=8, no_indexing=True)
    times = []
    for query in queries:
        began = time.perf_counter()
        rclip.search(query, folder, 10)
        times.append(time.perf_counter() - began)
    print(1000 * statistics.median(times[len(times) // 4 :]))
