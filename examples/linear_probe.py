"""A classifier from a few labelled photos: python examples/linear_probe.py PHOTOS
folders|LABELS.csv MODEL_FOLDER.
"""

import sys

import vitsearch
from vitsearch.labels.metrics import accuracy_interval

folder, labels, output = sys.argv[1:]
vitsearch.index_folder(folder)
photos = vitsearch.Collection.open(folder)
classifier, report = vitsearch.train_classifier(photos, labels, "probe")
classifier.save(output)
if report.judged:
    low, high = accuracy_interval(report.right, report.judged)
    print(
        f"{report.right} of {report.judged} photos right that were left out in turn (95 % "
        f"interval: {low:.2f} to {high:.2f})"
    )
for one in photos.label(vitsearch.load_trained(output)):
    print(f"{one.score:.2f}  {one.label:12}  {one.path}")
