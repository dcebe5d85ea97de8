"""What WordNet 3.0 says of ImageNet-1k's classes, as vitsearch/imagenet_classes.tsv: python -m
training.class_names.

Needs Debian's wordnet-base and timm, whose list of WNIDs is in order of class.
"""

import argparse
from importlib.util import find_spec
from pathlib import Path

from training.texts import WORDNET, Synset, read_nouns

PACKAGE = Path(__file__).parents[1] / "vitsearch"
# they are above nearly everything and say nothing about a photo
EMPTY = {
    *(
        "entity",
        "physical entity",
        "abstraction",
        "object",
        "whole",
        "matter",
        "thing",
        "causal agent",
        "psychological feature",
    ),
    *(
        "attribute",
        "relation",
        "group",
        "part",
        "substance",
        "unit",
        "event",
        "act",
        "communication",
        "measure",
        "collection",
        "content",
    ),
}
HEAD = """\
# ImageNet-1k's classes in order, then the meanings above them, as WordNet 3.0 has them (its
# licence: NOTICE, beside this file); made by training/class_names.py. Columns: WNID; class name;
# words, with | between; WNIDs right above, with spaces between.
"""


def wnids_in_order() -> list[str]:
    """Return the 1,000 WNIDs in order of class."""
    spec = find_spec("timm")
    if spec is None or spec.origin is None:
        raise SystemExit("timm is missing: pip install timm")
    return (Path(spec.origin).parent / "data/_info/imagenet_synsets.txt").read_text().split()


def speaking_above(offset: str, nouns: dict[str, Synset]) -> list[str]:
    """Return the meanings right above one, without those that say nothing."""
    return [above for above in nouns[offset].above if nouns[above].lemmas[0] not in EMPTY]


def row(offset: str, name: str, nouns: dict[str, Synset]) -> str:
    """Return a line of the file."""
    above = " ".join(f"n{above_offset}" for above_offset in speaking_above(offset, nouns))
    return "\t".join((f"n{offset}", name, "|".join(nouns[offset].lemmas), above))


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wordnet", type=Path, default=WORDNET, help="WordNet's data.noun")
    nouns = read_nouns(parser.parse_args().wordnet)
    classes = [wnid[1:] for wnid in wnids_in_order()]
    names = (PACKAGE / "encoders/mini/classes.txt").read_text(encoding="utf-8").splitlines()
    rows = [row(offset, name, nouns) for offset, name in zip(classes, names, strict=True)]
    met, todo = (
        set(classes),
        [above for offset in classes for above in speaking_above(offset, nouns)],
    )
    while todo:
        offset = todo.pop(0)
        if offset not in met:
            met.add(offset)
            rows.append(row(offset, "", nouns))
            todo += speaking_above(offset, nouns)
    (PACKAGE / "imagenet_classes.tsv").write_text(HEAD + "\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
