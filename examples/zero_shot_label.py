"""Label the photos of an indexed folder with any words.

python examples/zero_shot_label.py PHOTOS cat dog car
"""

import sys
from collections import Counter

import vitsearch

if len(sys.argv) < 3:
    sys.exit(__doc__)
folder, labels = sys.argv[1], sys.argv[2:]
photos = vitsearch.Collection.open(folder)
predictions = photos.label(labels, templates="simple")
for prediction in predictions:
    print(f"{prediction.score:.2f}  {prediction.label:12}  {prediction.path}")
print(Counter(prediction.label for prediction in predictions).most_common())
