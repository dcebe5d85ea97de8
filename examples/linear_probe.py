"""Train a classifier on a few labelled photos.

python examples/linear_probe.py PHOTOS folders|LABELS.csv MODEL_FOLDER
"""

import sys

import vitsearch
from vitsearch.evaluation import load_trained
from vitsearch.labels.metrics import accuracy_interval

if len(sys.argv) != 4:
    sys.exit(__doc__)
folder, labels, output = sys.argv[1:]
vitsearch.index_folder(folder)
photos = vitsearch.Collection.open(folder)
classifier, report = vitsearch.train_classifier(photos, labels, "probe")
classifier.save(output)
if report.validated:
    low, high = accuracy_interval(report.right, report.validated)
    print(
        f"{report.right} of {report.validated} photos right that were left out in turn (95 % "
        f"interval: {low:.2f} to {high:.2f})"
    )
for prediction in photos.label(load_trained(output)):
    print(f"{prediction.score:.2f}  {prediction.label:12}  {prediction.path}")
