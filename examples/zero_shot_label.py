"""Label the photos of an indexed folder with any words: python examples/zero_shot_label.py PHOTOS
cat dog car.
"""

import sys
from collections import Counter

import vitsearch

folder, labels = sys.argv[1], sys.argv[2:]
photos = vitsearch.Collection.open(folder)
predictions = photos.label(labels, templates="simple")
for one in predictions:
    print(f"{one.score:.2f}  {one.label:12}  {one.path}")
print(Counter(one.label for one in predictions).most_common())
