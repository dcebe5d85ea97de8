"""Fine-tune a Vision Transformer.

python examples/finetune_vit.py PHOTOS folders|LABELS.csv MODEL_FOLDER [mini|hf:NAME|local-dir:DIR]
"""

import sys

import vitsearch
from vitsearch.classifiers.finetune import FinetuneSettings, FinetuneStep

if len(sys.argv) not in (4, 5):
    sys.exit(__doc__)
folder, labels, output, *model = sys.argv[1:]


def print_epoch(step: FinetuneStep) -> None:
    """Print the result of each epoch."""
    result = step.last
    if step.stage == "judged" and result:
        print(f"epoch {step.epoch}: {result.right} of {result.validated} photos left out are right")


report = vitsearch.finetune(
    folder,
    labels,
    output,
    model=model[0] if model else "mini",
    settings=FinetuneSettings(epochs=6),
    progress=print_epoch,
)
print(
    f"kept epoch {report.best.epoch} of {report.epochs[-1].epoch}, trained on {report.photos} "
    f"photos in {report.seconds:.0f} s"
)
classifier = vitsearch.load_classifier(f"local-dir:{output}")
for path, result in classifier.stream(folder, top_k=1):
    if isinstance(result, list):
        print(f"{result[0].score:.2f}  {result[0].label:12}  {path}")
    else:
        print(f"{path}: {result}")
