"""Words against trained classes on photos in one folder a label: python
examples/compare_zero_shot_and_supervised.py PHOTOS cat dog car.
"""

import sys

import vitsearch

folder, labels = sys.argv[1], sys.argv[2:]
vitsearch.index_folder(folder)
photos = vitsearch.Collection.open(folder)
result = vitsearch.compare(photos, labels, model="mini", truth="folders")
for way in result.ways:
    low, high = way.accuracy.interval
    print(
        f"{way.name:10} {way.accuracy.right} of {way.accuracy.total} right ({low:.0%} to "
        f"{high:.0%})"
    )
agreed = result.agreement["zero-shot", "supervised"]
print(f"they agree on {agreed.right} of {agreed.total} photos")
for place in result.disagreements:
    answers = ", ".join(
        f"{way.name} {way.answers[place][0]}" for way in result.ways if way.answers[place]
    )
    print(f"{result.photos[place]}: {answers}, truth {result.truth[place]}")
