"""Compare words with trained classes on photos in one folder per label.

python examples/compare_zero_shot_and_supervised.py PHOTOS cat dog car
"""

import sys

import vitsearch

if len(sys.argv) < 4:
    sys.exit(__doc__)
folder, labels = sys.argv[1], sys.argv[2:]
vitsearch.index_folder(folder)
photos = vitsearch.Collection.open(folder)
result = vitsearch.compare(photos, labels, model="mini", truth="folders")
for method in result.methods:
    low, high = method.accuracy.interval
    print(
        f"{method.name:10} {method.accuracy.right} of {method.accuracy.total} right ({low:.0%} to "
        f"{high:.0%})"
    )
agreed = result.agreement["zero-shot", "supervised"]
print(f"they agree on {agreed.right} of {agreed.total} photos")
for i in result.disagreements:
    answers = [
        f"{method.name} {method.answers[i][0]}" for method in result.methods if method.answers[i]
    ]
    print(f"{result.photos[i]}: {', '.join(answers)}, truth {result.truth[i]}")
