"""`vitsearch demo`: index real photographs, search and label them, and draw the results."""

import hashlib
import os
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import click

from vitsearch.cli.output import ProgressBar, print_line, printable
from vitsearch.collection import Collection
from vitsearch.collection.update import index_folder
from vitsearch.errors import CollectionError
from vitsearch.outputs.contact_sheet import write_sheet
from vitsearch.types import OnProgress, SearchResult

# the photographs among the sample pictures that the two packages ship (scikit-image 0.24 and
# scikit-learn 1.5 or newer)
SAMPLES = {
    "skimage": (
        "data",
        "astronaut.png brick.png camera.png chelsea.png clock_motion.png coffee.png coins.png "
        "grass.png gravel.png hubble_deep_field.jpg ihc.png moon.png motorcycle_left.png "
        "motorcycle_right.png page.png retina.jpg rocket.jpg text.png",
    ),
    "sklearn": ("datasets/images", "china.jpg flower.jpg"),
}
SEARCHES = ("a cat", "a cup of coffee", "a rocket launch", "an elephant")
LABELS = (
    "cat",
    "astronaut",
    "flower",
    "temple",
    "motorcycle",
    "rocket",
    "cup of coffee",
    "printed text",
    "brick wall",
    "coins",
    "grass",
    "moon",
)
MIN_PROBABILITY = 0.5  # of a label that is shown
OWN_SEARCHES = ("people", "an animal", "a landscape", "an elephant")
OWN_LABELS = (
    "person",
    "animal",
    "landscape",
    "building",
    "food",
    "vehicle",
    "document or screenshot",
)


def run_demo(
    output: Path,
    photos: Path | None,
    *,
    say: Callable[[str], None],
    progress: OnProgress,
    collection: Path | None = None,
    encoder: str = "mini",
) -> list[Path]:
    """Index, search and label sample photos, or those of a folder, and return the contact sheets
    written below ``output``.

    Unless ``collection`` is given it is made below ``output`` too, one for each folder, so that
    nothing is written into ``photos``. ``say`` takes each line of the report. Raises
    CollectionError where the sample photos are not installed and no folder is given.
    """
    folder = photos or copy_samples(output / "photos")
    searches, labels = (OWN_SEARCHES, OWN_LABELS) if photos else (SEARCHES, LABELS)
    where = collection or output / (_collection_name(photos) if photos else "collection")
    report = index_folder(folder, collection=where, encoder=encoder, progress=progress)
    say(
        f"{report.total} photos in {folder} are searchable ({report.seconds:.1f} s, and "
        f"{report.load_seconds:.1f} s to load the model)"
    )
    with Collection.open(folder, collection=where) as opened:
        sections = [(f"“{words}”", _tiles(opened.search(words, 4))) for words in searches]
        sections += _alike(opened, [path for _, tiles in sections for path, _ in tiles])
        predictions = opened.label(labels, threshold=MIN_PROBABILITY)
    sections = [(title if tiles else f"{title}: nothing fits", tiles) for title, tiles in sections]
    for title, tiles in sections:
        say(f"\n{title}")
        for path, score in tiles:
            say(f"  {score}  {path}")
    labels_title = f"labels of at least {MIN_PROBABILITY:g}"
    say(f"\n{labels_title}")
    shown = predictions[:20]
    for prediction in shown:
        say(f"  {prediction.score:.3f}  {prediction.label:20} {prediction.path}")
    labelled = [(each.path, f"{each.label} {each.score:.2f}") for each in shown]
    sections.append((labels_title, labelled))
    sheets = [output / "contact-sheet.png", output / "contact-sheet.html"]
    for sheet in sheets:
        write_sheet(sheet, sections, root=folder)
    return sheets


def _alike(opened: Collection, results: list[str]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the photos that look alike most, or where none do those like a result."""
    groups = sorted(opened.lookalikes(), key=lambda group: -group.others[0][1])
    if groups:
        alike = [(photo.path, f"{score:.3f}") for photo, score in groups[0].others[:3]]
        return [("photos that look alike", [(groups[0].photo.path, "1.000"), *alike])]
    first = results[0] if results else next(iter(opened.photos())).path
    return [(f"photos like {first}", _tiles(opened.similar(opened.root / first, 4)))]


def copy_samples(folder: Path) -> Path:
    """Copy the sample photographs of the installed packages into a folder and return it; raises
    CollectionError where there are none.
    """
    files = [
        file
        for package, (subfolder, names) in SAMPLES.items()
        for file in _installed(package, subfolder, names.split())
    ]
    if not files:
        raise CollectionError(
            "the sample photos are not installed: pip install 'vitsearch[demo]', "
            "or name a folder of photos"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        if not (folder / file.name).exists():
            shutil.copyfile(file, folder / file.name)
    return folder


def _installed(package: str, subfolder: str, names: list[str]) -> list[Path]:
    """Return the files that are there, found without importing the package."""
    spec = find_spec(package)
    roots = spec.submodule_search_locations if spec else None
    return [
        file
        for root in roots or []
        for name in names
        if (file := Path(root) / subfolder / name).is_file()
    ]


def _collection_name(photos: Path) -> str:
    """Return a name that two folders do not share, though they be called the same."""
    folder = photos.resolve()
    digest = hashlib.blake2b(os.fsencode(folder), digest_size=4).hexdigest()
    return f"collection-of-{folder.name}-{digest}"


def _tiles(hits: list[SearchResult]) -> list[tuple[str, str]]:
    return [(hit.path, f"{hit.score:.3f}") for hit in hits]


@click.command()
@click.argument("photos", required=False, metavar="[PHOTOS]")
@click.option(
    "--output",
    default="demo",
    show_default=True,
    metavar="DIR",
    help="Where the collection and the contact sheets go.",
)
@click.option("--collection", metavar="DIR", help="The collection, if it is to be elsewhere.")
def demo(photos: str | None, output: str, collection: str | None) -> int:
    """Index sample photos (or PHOTOS), search and label them, and draw a contact sheet as PNG and
    HTML.
    """
    with ProgressBar() as bar:
        sheets = run_demo(
            Path(output),
            Path(photos) if photos else None,
            say=print_line,
            progress=bar,
            collection=Path(collection) if collection else None,
        )
    for sheet in sheets:
        print_line(f"wrote {printable(str(sheet))}")
    return 0
