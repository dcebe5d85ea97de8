"""Index a folder and search it: python examples/quickstart.py PHOTOS "a dog on a beach"."""

import sys

import vitsearch

if len(sys.argv) != 3:
    sys.exit(__doc__)
folder, words = sys.argv[1], sys.argv[2]
report = vitsearch.index_folder(folder)
print(f"{report.total} photos are searchable")
photos = vitsearch.Collection.open(folder)
for hit in photos.search(words, top_k=5):
    print(f"{hit.score:.3f}  {hit.path}")
