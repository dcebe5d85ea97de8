"""Fine-tune a Vision Transformer: python examples/finetune_vit.py PHOTOS folders|LABELS.csv
MODEL_FOLDER [mini|hf:NAME|local-dir:DIR].
"""

import sys

import vitsearch

folder, labels, output, *model = sys.argv[1:]


def tell(step: vitsearch.FinetuneStep) -> None:
    """Print what each epoch brought."""
    if step.stage == "judged" and step.last:
        print(
            f"epoch {step.epoch}: {step.last.right} of {step.last.judged} photos left out are right"
        )


settings = vitsearch.FinetuneSettings(epochs=6)
report = vitsearch.classifiers.finetune(
    folder, labels, output, model=model[0] if model else "mini", settings=settings, progress=tell
)
print(
    f"kept epoch {report.best.epoch} of {report.epochs[-1].epoch}, trained on {report.photos} "
    f"photos in {report.seconds:.0f} s"
)
for path, found in vitsearch.load_classifier(f"local-dir:{output}").stream(folder, top_k=1):
    print(
        f"{found[0].score:.2f}  {found[0].label:12}  {path}"
        if isinstance(found, list)
        else f"{path}: {found}"
    )
