"""What is attacked: every reader of files, queries and requests that may be a stranger's."""

import io
import json
import shutil
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from fuzzing.mutations import ODD_VALUES, odd_bytes, odd_json, odd_text
from fuzzing.running import Run, Target
from helpers.photos import paint, shade
from vitsearch.errors import VitsearchError

# -- Photos ----------------------------------------------------------------------------------------


def pictures(folder: Path) -> Run:
    from helpers.odd_files import good_contents
    from vitsearch.photos.decode import decode

    seeds = [data for data in good_contents().values() if len(data) < 30_000]
    seeds += _newer_contents()

    def run(random: Random) -> None:
        data = odd_bytes(random.choice(seeds), random)
        side = random.choice((None, 64, 448))
        decode(data, max_pixels=4_000_000, **{random.choice(("at_least", "side")): side})

    return run


def _newer_contents() -> list[bytes]:
    """Return photos of the formats that `good_contents` leaves out, where they are read here."""
    from helpers.dng import dng
    from helpers.odd_files import encoded, picture

    small = picture(3, (48, 32))
    psd = struct.pack(">4sH6xHIIHH", b"8BPS", 1, 3, 32, 48, 8, 3) + bytes(14) + small.tobytes()
    contents = [psd, dng(small), dng(small, picture(4, (64, 48))), *_RAW_HEADS]
    for format_name in ("TGA", "QOI", "ICO", "DDS", "AVIF", "JXL", "HEIF"):
        with suppress(KeyError, OSError):  # Pillow cannot write it here
            contents.append(encoded(small, format_name))
    return contents


_RAW_HEADS = [
    head + bytes(300)
    for head in (b"FUJIFILMCCD-RAW 0201", b"FOVb", b"IIRO", b"\0\0\0\x18ftypcrx \0\0\0\1crx isom")
]


def photo_sources(folder: Path) -> Run:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from helpers.sources import pack
    from vitsearch.photos.sources import open_source

    photo = paint(folder / "a.png", "red").read_bytes()
    tar = pack(folder / "a.tar", {"a.png": photo, "b/c.png": photo, "d.txt": b"x"}).read_bytes()
    parquets = []
    for columns in ({"image": [photo] * 3}, {"path": ["a.png", None, "/etc/passwd"]}):
        out = io.BytesIO()
        pq.write_table(pa.table(columns), out)
        parquets.append(out.getvalue())

    def run(random: Random) -> None:
        ending, data = random.choice((("tar", tar), *(("parquet", each) for each in parquets)))
        file = folder / f"odd.{ending}"
        file.write_bytes(odd_bytes(data, random))
        source = open_source(str(file))
        entries = []
        for entry in source.entries():
            entries.append(entry)
            assert len(entries) < 10_000
        for _ in source.read(entries):
            pass

    return run


# -- Sets of vectors -------------------------------------------------------------------------------


def shard_sets(folder: Path) -> Run:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from helpers.shard_sets import row, write_set
    from vitsearch.encoders.colour import ColourEncoder
    from vitsearch.interop import import_shards

    seed = write_set(folder / "seed", [row("a.png"), row("b.png", 1), row("c.png", error="cut")])
    manifest = (seed / "vitsearch.json").read_text()
    shard = (seed / "shards" / "000000.parquet").read_bytes()
    table = pq.read_table(io.BytesIO(shard))
    encoder = ColourEncoder()

    def odd_table(random: Random) -> bytes:
        rows = table.to_pylist()
        for _ in range(random.choice((1, 2))):
            random.choice(rows)[random.choice(table.schema.names)] = random.choice(ODD_VALUES)
        kinds = [pa.field(field.name, field.type) for field in table.schema]
        out = io.BytesIO()
        try:
            pq.write_table(pa.Table.from_pylist(rows, pa.schema(kinds)), out)
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            return odd_bytes(shard, random)  # a value that no column of the kind takes
        return out.getvalue()

    def run(random: Random) -> None:
        output, target = folder / "set", folder / "collection"
        shutil.rmtree(target, ignore_errors=True)
        (output / "shards").mkdir(parents=True, exist_ok=True)
        kind = random.randrange(3)
        (output / "vitsearch.json").write_text(
            odd_json(manifest, random) if kind == 0 else manifest
        )
        content = {1: odd_bytes, 2: lambda _, source: odd_table(source)}.get(kind)
        changed = content(shard, random) if content else shard
        (output / "shards" / "000000.parquet").write_bytes(changed)
        import_shards(output, collection=target, encoder=random.choice((encoder, None)))

    return run


def exported_folders(folder: Path) -> Run:
    """Exports for clip-retrieval; and the paths of FAISS folders, whose indexes take a process."""
    from helpers.interop import vectors_of, write_layout
    from vitsearch.interop import import_clip_retrieval

    photos = folder / "photos"
    names = ["red.png", "green.png", "blue.png"]
    for name in names:
        paint(photos / name, name.partition(".")[0])
    seed = write_layout(folder / "seed", (names, vectors_of(photos, names)))
    files = {file.relative_to(seed): file.read_bytes() for file in seed.rglob("*.*")}
    files[Path("vitsearch.json")] = _export_manifest().encode()

    def run(random: Random) -> None:
        shutil.rmtree(folder / "collection", ignore_errors=True)
        odd = random.choice(sorted(files))
        for name, data in files.items():
            file = folder / "set" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            changed = data
            if name == odd:
                is_json = name.suffix == ".json"
                changed = odd_json(data, random).encode() if is_json else odd_bytes(data, random)
            file.write_bytes(changed)
        if odd.suffix != ".json":
            (folder / "set" / "vitsearch.json").unlink()
        import_clip_retrieval(
            folder / "set", photos, collection=folder / "collection", encoder="colour"
        )

    return run


def _export_manifest() -> str:
    from vitsearch.encoders.base import golden_vectors
    from vitsearch.encoders.colour import DIM, ColourEncoder

    encoder = ColourEncoder()
    facts = {"layout": "clip-retrieval", "photos": 3, "encoder": "colour", "dtype": "float32"}
    golden = golden_vectors(encoder).tolist()
    return json.dumps(
        facts
        | {"encoder_fingerprint": encoder.fingerprint, "dim": DIM, "golden": golden, "format": 1}
    )


def faiss_folders(folder: Path) -> Run:
    import faiss

    from helpers.interop import vectors_of
    from vitsearch.encoders.colour import DIM
    from vitsearch.interop import import_faiss

    photos, names = folder / "photos", ["red.png", "green.png"]
    for name in names:
        paint(photos / name, name.partition(".")[0])
    seeds = []
    for factory in ("Flat", "IDMap,Flat", "HNSW8,Flat", "IVF1,Flat"):
        index = faiss.index_factory(DIM, factory, faiss.METRIC_INNER_PRODUCT)
        vectors = vectors_of(photos, names)
        index.train(vectors)
        if factory.startswith("ID"):
            index.add_with_ids(vectors, np.arange(2))
        else:
            index.add(vectors)
        seeds.append(faiss.serialize_index(index).tobytes())
    lines = "".join(json.dumps({"id": n, "path": name}) + "\n" for n, name in enumerate(names))

    def run(random: Random) -> None:
        target = folder / "set"
        target.mkdir(exist_ok=True)
        shutil.rmtree(folder / "collection", ignore_errors=True)
        index, paths = random.choice(seeds), lines
        if random.random() < 0.8:
            index = odd_bytes(index, random)
        else:
            first, _, second = lines.partition("\n")
            paths = odd_json(first, random) + "\n" + second
        (target / "index.faiss").write_bytes(index)
        (target / "paths.jsonl").write_text(paths)
        import_faiss(target, photos, collection=folder / "collection", encoder="colour")

    return run


# -- Collections and their indexes -----------------------------------------------------------------


def _indexed(folder: Path, count: int = 6) -> Path:
    from vitsearch import index_folder
    from vitsearch.encoders.colour import ColourEncoder

    for number in range(count):
        paint(folder / f"{number}.png", shade(number))
    index_folder(folder, encoder=ColourEncoder())
    return folder


def collections(folder: Path) -> Run:
    from vitsearch import Collection
    from vitsearch.encoders.colour import ColourEncoder

    photos = _indexed(folder / "photos")
    store = photos / ".vitsearch"
    seeds = {
        file.relative_to(store): file.read_bytes()
        for file in store.rglob("*")
        if file.is_file() and file.name not in ("lock", "photos.db-wal", "photos.db-shm")
    }
    encoder = ColourEncoder()

    def run(random: Random) -> None:
        shutil.rmtree(store)
        odd = random.choice(sorted(seeds))
        for name, data in seeds.items():
            (store / name).parent.mkdir(parents=True, exist_ok=True)
            changed = data
            if name == odd:
                is_json = name.suffix == ".json" and random.random() < 0.8
                changed = odd_json(data, random).encode() if is_json else odd_bytes(data, random)
            (store / name).write_bytes(changed)
        with Collection.open(photos, encoder=encoder) as found:
            found.search("red", 3)
            found.search("blue", 3, where="year > 2000 or width > 3")
            found.info()

    return run


def index_files(folder: Path) -> Run:
    """Index folders whose manifests are those of the odd files, as who made them would write."""
    from vitsearch.index.manifest import facts_of, read_manifest, write_manifest
    from vitsearch.index.recipe import Recipe
    from vitsearch.index.snapshot import FILES, build_snapshot, open_snapshot

    rows = np.random.default_rng(0).standard_normal((300, 32)).astype(np.float16)
    seeds = []
    for number, factory in enumerate((None, "HNSW8", "IVF4,SQ8", "SQ8", "IVF4,PQ4")):
        recipe = Recipe("r", factory=factory) if factory else Recipe("e", "exact")
        seed = folder / f"seed{number}"
        build_snapshot(
            seed, [(np.arange(300), rows)], recipe=recipe, dim=32, generation=1, fingerprint="f"
        )
        seeds.append({file.name: file.read_bytes() for file in seed.iterdir()})
    query = rows[0].astype(np.float32)

    def run(random: Random) -> None:
        shutil.rmtree(folder / "index", ignore_errors=True)
        (folder / "index").mkdir()
        seed = random.choice(seeds)
        for name, data in seed.items():
            (folder / "index" / name).write_bytes(data)
        odd = random.choice(sorted(seed))
        file = folder / "index" / odd
        if odd == "manifest.json":
            file.write_text(odd_json(seed[odd], random))
        elif random.random() < 0.5:
            file.write_bytes(odd_bytes(seed[odd], random))
        else:
            manifest = read_manifest(folder / "index")
            changed = bytearray(seed[odd])
            at = random.randrange(len(changed))
            changed[at : at + 4] = random.randbytes(4)
            file.write_bytes(bytes(changed[: len(seed[odd])]))
            files = {path.name: facts_of(path) for path in (folder / "index").iterdir()
                     if path.name in FILES and path.name != "index.faiss"}  # fmt: skip
            kept = {name: facts for name, facts in manifest.files.items() if name not in files}
            write_manifest(folder / "index", replace(manifest, files=files | kept))
        found = open_snapshot(folder / "index")
        found.search(query, 10)

    return run


def recipes(folder: Path) -> Run:
    from vitsearch.index.backends import check_recipe
    from vitsearch.index.faiss_index import build_faiss_index
    from vitsearch.index.recipe import Recipe, predict

    rows, ids = np.random.default_rng(0).standard_normal((60, 16)).astype(np.float16), np.arange(60)
    words = [
        'name = "x"',
        'factory = "',
        '"',
        "\n",
        'kind = "faiss"',
        "lists = ",
        '"auto"',
        "{lists}",
        "{pq}",
        "[search]",
        "nprobe = ",
        "efSearch = ",
        "overfetch = ",
        "recall = ",
        "memory = ",
        "train_size = ",
        "on_disk = ",
        "gpu = ",
        "true",
        "0.95",
        "1",
        "-1",
        "1e400",
        "nan",
        "99999999999999999999",
        "[[",
        "]]",
        "'''",
        "#",
    ]
    parts = [
        "IVF",
        "PQ",
        "OPQ",
        "PCA",
        "PCAR",
        "Pad",
        "RR",
        "L2norm",
        "HNSW",
        "NSG",
        "SQ",
        "SQ8",
        "SQfp16",
        "Flat",
        "IDMap",
        "IDMap2",
        "RFlat",
        "Refine",
        "RQ",
        "LSQ",
        "PRQ",
        "RCQ",
        "RaBitQ",
        "ITQ",
        "LSH",
        "(",
        ")",
        ",",
        ",",
        ",",
        "_",
        "x",
        "0",
        "1",
        "2",
        "4",
        "8",
        "16",
        "64",
        "1000",
        "16777216",
        "1000000000",
        "fs",
        "np",
        "-",
        "+",
    ]
    good = 'name = "x"\nfactory = "%s"\n[search]\n%s = %s\n'

    def run(random: Random) -> None:
        if random.random() < 0.3:
            text = odd_text(words, random, 14)
        else:
            factory = odd_text(parts, random, 8).replace('"', "").replace("\\", "")
            if random.random() < 0.6:
                tail = random.choice(("Flat", "SQ8", "PQ4", "RaBitQ", "PQ8x4fs", "RQ2x4", "SQfp16"))
                head = random.choice(("", "IVF4,", "PCA8,", "OPQ4,", "L2norm,", "IDMap,", "RR8,"))
                end = random.choice(("", "", ",RFlat", ",Refine(SQ8)", f"_{random.choice(parts)}"))
                factory = head + random.choice((tail, tail, f"HNSW8,{tail}")) + end
            value = random.choice(("1", "8", "0", "-5", "1e6", "2000000000", "0.5", "true"))
            text = good % (factory, random.choice(("nprobe", "efSearch", "ht", "k_factor")), value)
            text = text if random.random() < 0.3 else text.partition("[search]")[0]
        recipe = Recipe.from_toml(text, source="a recipe")
        predict(recipe, 1_000_000, 16)
        if recipe.kind == "faiss" and recipe.factory:
            check_recipe(recipe, 16)
            if "LSQ" not in recipe.factory:  # minutes of training, as its papers say
                build_faiss_index(recipe, rows, ids).search(rows[0].astype(np.float32), 5)

    return run


# -- Models ----------------------------------------------------------------------------------------


def classifiers(folder: Path) -> Run:
    from vitsearch.labels import LinearClassifier
    from vitsearch.labels.classifier import class_probabilities, classifier_kind
    from vitsearch.labels.few_shot import TipClassifier

    rng = np.random.default_rng(0)
    weight = rng.standard_normal((3, 8)).astype(np.float32)
    LinearClassifier(("a", "b", "c"), weight, np.zeros(3, np.float32)).save(folder / "seed")
    facts = (folder / "seed" / "classifier.json").read_text()
    numbers = (folder / "seed" / "classifier.safetensors").read_bytes()
    rows = rng.standard_normal((2, 8)).astype(np.float32)

    def run(random: Random) -> None:
        target, is_json = folder / "odd", random.random() < 0.5
        target.mkdir(exist_ok=True)
        (target / "classifier.json").write_text(odd_json(facts, random) if is_json else facts)
        content = numbers if is_json else odd_bytes(numbers, random)
        (target / "classifier.safetensors").write_bytes(content)
        classifier_kind(target)
        kind: Any = random.choice((LinearClassifier, LinearClassifier, TipClassifier))
        class_probabilities(kind.load(target), rows)

    return run


def _model_folder(
    folder: Path, save: Callable[[Path], object], use: Callable[[Path], object]
) -> Run:
    import torch

    torch.set_num_threads(1)
    save(folder / "seed")
    seeds = {file.name: file.read_bytes() for file in (folder / "seed").iterdir()}

    def run(random: Random) -> None:
        target = folder / "odd"
        target.mkdir(exist_ok=True)
        odd = random.choice(sorted(seeds))
        for name, data in seeds.items():
            changed = data
            if name == odd:
                is_json = name.endswith(".json") and random.random() < 0.85
                changed = odd_json(data, random).encode() if is_json else odd_bytes(data, random)
            (target / name).write_bytes(changed)
        use(target)

    return run


def encoders(folder: Path) -> Run:
    from helpers.tiny_models import save_siglip
    from vitsearch.encoders import load_encoder

    def use(target: Path) -> None:
        from PIL import Image

        found = load_encoder(f"local-dir:{target}", "cpu", runtime="torch")
        found.encode_texts(["a dog"])
        found.encode_images([Image.new("RGB", (40, 30))])

    return _model_folder(folder, save_siglip, use)


def photo_classifiers(folder: Path) -> Run:
    from helpers.classifiers import save_classifier
    from vitsearch import load_classifier

    def use(target: Path) -> None:
        from PIL import Image

        load_classifier(f"local-dir:{target}", device="cpu")(Image.new("RGB", (40, 30)), 2)

    return _model_folder(folder, save_classifier, use)


# -- Text that a person gives ----------------------------------------------------------------------

WORDS = [
    "red",
    "a dog",
    "+",
    "-",
    " + ",
    " - ",
    "2:",
    "-1:",
    "1e400:",
    "nan:",
    '"',
    "'",
    "./a.png",
    "~/x",
    "/etc/passwd",
    "../",
    ":",
    "*",
    "%",
    "(",
    ")",
    "not ",
    "and ",
    "or ",
    "year",
    "month",
    "path",
    "like",
    "in",
    "between",
    "is null",
    "is not null",
    "contains",
    "width",
    "taken_at",
    "latitude",
    "label",
    "=",
    "!=",
    ">=",
    "<",
    ",",
    "2019",
    "'2019-02-31'",
    "1e999",
    "-1",
    "99999999999999999999",
    "'%_'",
    "''''",
    "\x00",
    "�",
    "é",
    "\u202e",
    ";",
    "--",
    "/*",
    "keywords",
]


PHRASES = [
    *("last ", "summer ", "in ", "2019", "-07", "christmas ", "may ", "since ", "2 years ago"),
    *("99999999", "0", "-13", "from ", "to ", "Paris", "iPhone ", "with ", "yesterday", "rated 5 "),
    *("between ", "and ", "portrait ", "29 february ", "9999-12-31", "0001-01-01", "week ", "ago"),
]


def queries(folder: Path) -> Run:
    from vitsearch import Collection
    from vitsearch.collection.query import parse_query
    from vitsearch.encoders.colour import ColourEncoder

    found = Collection.open(_indexed(folder / "photos"), encoder=ColourEncoder())

    def run(random: Random) -> None:
        text = odd_text(WORDS if random.random() < 0.5 else [*WORDS[:3], *PHRASES], random)
        parse_query(text)
        found.understand(text)
        found.search(text, random.choice((1, 5, 10**9)), offset=random.choice((0, 3, 2**40)))

    return run


def filters(folder: Path) -> Run:
    from vitsearch import Collection
    from vitsearch.encoders.colour import ColourEncoder
    from vitsearch.filters import parse_filter

    found = Collection.open(_indexed(folder / "photos"), encoder=ColourEncoder())
    starts = ("", "year >= 2019 and ", "path like '%a' or ", "not (", "width in (")
    good = ("width > 3", "year is null", "path contains 'a'", "not label = 'x'", "rating in (1, 2)")

    def run(random: Random) -> None:
        text = random.choice(starts) + odd_text(WORDS[20:], random)
        if random.random() < 0.5:
            joined = random.choice((" and ", " or ", " "))
            text = joined.join((*random.choices(good, k=random.randrange(1, 40)), text))
            text = odd_bytes(text.encode("utf-8", "replace"), random).decode("utf-8", "replace")
            text = text if random.random() < 0.7 else text.rpartition(joined)[0]
        parse_filter(text)
        found.search("red", 3, where=text)

    return run


def tables(folder: Path) -> Run:
    """Class maps, and labels in CSV files."""
    from vitsearch.evaluation import read_class_map
    from vitsearch.labels.labels import read_labels

    map_words = [
        "cat",
        "dog",
        " = ",
        "-",
        "\n",
        "\r\n",
        ",",
        "#",
        "é",
        "\x00",
        "\ufeff",
        "animal > dog",
        "car",
        "=",
    ]
    csv_words = [
        "path,label\n",
        "a.png",
        ",",
        '"',
        "\n",
        "b/c.png",
        "dog",
        '""',
        "\r",
        "\x00",
        "é",
        "x",
        ";",
        "\ufeff",
    ]

    def run(random: Random) -> None:
        if random.random() < 0.5:
            text = odd_text(map_words, random, 30).encode("utf-8", "surrogatepass")
            text = b"cat = animal > dog\ndog = -\n" + text * (random.random() < 0.8)
            (folder / "map.txt").write_bytes(odd_bytes(text, random))
            read_class_map(folder / "map.txt", ["cat", "dog", "car"], ["animal > dog", "cat"])
        else:
            text = b"path,label\na.png,dog\n" + odd_text(csv_words, random, 30).encode(
                "utf-8", "surrogatepass"
            )
            (folder / "l.csv").write_bytes(odd_bytes(text, random))
            read_labels(str(folder / "l.csv"), ["a.png", "b/c.png"])

    return run


def sidecars(folder: Path) -> Run:
    from vitsearch.outputs.sidecars import labelled
    from vitsearch.outputs.xmp import EMPTY, NotXmp
    from vitsearch.types import Prediction

    labels = [Prediction("a.png", label, 0.5) for label in ("cat", "animal/dog", "é & <b>")]
    seeds = [labelled(EMPTY, labels[:1]), labelled(labelled(EMPTY, labels), labels[1:])]

    def run(random: Random) -> None:
        try:
            labelled(odd_bytes(random.choice(seeds), random), random.choices(labels, k=2))
        except NotXmp as refused:
            raise VitsearchError(" ".join(str(refused).split()) or "not XMP") from refused

    return run


def http(folder: Path) -> Run:
    from starlette.testclient import TestClient

    from vitsearch.encoders.colour import ColourEncoder
    from vitsearch.web import ServeSettings
    from vitsearch.web.app import make_app
    from vitsearch.web.service import PhotoService

    photos, settings = _indexed(folder / "photos"), ServeSettings()
    service = PhotoService.open(photos, encoder=ColourEncoder(), settings=settings)
    app = make_app(service, settings)
    client = TestClient(app, base_url="http://127.0.0.1:8765", client=("127.0.0.1", 50_000))
    client.__enter__()
    paths = [*sorted(app.openapi()["paths"]), "/", "/photo/1", "/static/x", "/failures", "/map"]
    names = [
        "q",
        "k",
        "where",
        "offset",
        "id",
        "path",
        "terms",
        "size",
        "sort",
        "label",
        "page",
        "min_score",
        "diverse",
        "collapse",
        "like",
    ]
    photo = (photos / "0.png").read_bytes()

    def run(random: Random) -> None:
        path = random.choice(paths).replace("{", "").replace("}", "")
        for part in ("photo_id", "id"):
            path = path.replace(part, random.choice(("1", "-1", "0", "9" * 30, "a", "..", "%00")))
        chosen = {
            random.choice(names): odd_text(WORDS, random).encode("utf-8", "replace").decode()
            for _ in range(random.randrange(5))
        }
        method = random.choice(("GET", "GET", "POST", "PUT", "DELETE", "HEAD"))
        body: dict[str, Any] = {}
        if method == "POST":
            body = random.choice(
                (
                    {"content": odd_json('{"q": "red", "k": 3, "where": null}', random)},
                    {"content": random.randbytes(200)},
                    {"files": {"photo": ("a.png", odd_bytes(photo, random), "image/png")}},
                    {"data": {key: value for key, value in chosen.items() if value}},
                )
            )
            if "content" in body:
                body["headers"] = {"content-type": "application/json"}
        answer = client.request(method, path, params=chosen, follow_redirects=False, **body)
        assert answer.status_code < 500 or answer.status_code == 503, (method, path, answer.text)

    return run


_SETS = ("helpers.shard_sets", "helpers.interop", "vitsearch.interop", "vitsearch.interop.shards")
_MODELS = ("torch", "transformers", "helpers.tiny_models", "helpers.classifiers")
_COLLECTION = ("vitsearch.collection", "vitsearch.collection.update")
_INDEX = ("vitsearch.index", "vitsearch.index.faiss_index")
_READERS = tuple(
    name
    for name, package in {
        "vitsearch.photos.decode": "PIL",
        "pillow_heif": "pillow_heif",
        "pillow_jxl": "pillow_jxl",
        "vitsearch.photos.raw": "rawpy",
    }.items()
    if find_spec(package)
)
TARGETS = [
    Target("pictures", 4500, pictures, 500, ("helpers.odd_files", *_READERS)),
    Target("photo sources", 1500, photo_sources, 500, ("vitsearch.photos.sources.parquet",)),
    Target("shard sets", 2000, shard_sets, 200, _SETS),
    Target("clip-retrieval folders", 1000, exported_folders, 200, _SETS),
    Target("FAISS folders", 150, faiss_folders, 50, _SETS),
    Target("collections", 1500, collections, 200, _COLLECTION),
    Target("index files", 1500, index_files, 200, _INDEX),
    Target("recipes", 2500, recipes, 250, _INDEX),
    Target("classifiers of vectors", 1500, classifiers, 500, ("vitsearch.labels.few_shot",)),
    Target("encoders", 300, encoders, 100, (*_MODELS, "vitsearch.encoders.huggingface")),
    Target("classifiers of photos", 300, photo_classifiers, 100, _MODELS),
    Target("queries", 1500, queries, 500, _COLLECTION),
    Target("filters", 1500, filters, 500, _COLLECTION),
    Target("class maps and labels", 1000, tables, 500, ("vitsearch.evaluation",)),
    Target("XMP sidecars", 700, sidecars, 500, ("vitsearch.outputs.sidecars",)),
    Target("HTTP", 1500, http, 250, ("helpers.web_client", *_COLLECTION)),
]
