"""Step 3: teach the text tower Spanish before any picture is seen.

The tokenizer gains the commonest Spanish words, each of which begins as the mean of the English
words that it stands for in parallel sentences (IBM model 1: Brown et al. 1993, "The Mathematics of
Statistical Machine Translation"). Then Spanish sentences are drawn to where MiniLM puts their
English ones (Reimers and Gurevych 2020, arXiv:2004.09813), while English ones stay where they are.
"""

import gzip
import json
import random
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from training.checkpoint import save
from training.texts import embed_texts, extract_minilm, load_minilm, load_tokenizer, pad
from vitsearch.encoders.mini.network import MiniConfig, TextTower

TOKENIZER = "tokenizer.json"
MAX_WORDS = 13_000  # that the tokenizer gains: a word costs 388 bytes of the weights file
MIN_COUNT = 2
ALIGNED = 8  # English words that a Spanish one begins as
ROUNDS_OF_ALIGNMENT = 6
STEPS, BATCH, ENGLISH = 320, 256, 64
RATE, WORD_RATE = 8e-5, 4e-4
SCALE = 20.0
FAMILIAR = ("tom", "mary")  # who appear in a third of Tatoeba's sentences: one in five is kept
FAMILIAR_SHARE = 0.2

Pairs = list[tuple[str, str]]


def translate(lines: list[str]) -> list[str]:
    """Return what the rule-based apertium-en-es makes of English lines, its marks taken off; ""
    where a line is of a single word that it does not know.
    """
    done = subprocess.run(
        ["apertium", "eng-spa"],
        input="\n".join(line.replace("\n", " ") for line in lines) + "\n",
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert len(done) == len(lines), f"apertium gave {len(done)} lines for {len(lines)}"
    return [
        "" if any(mark in line for mark in "*@#") and len(line.split()) < 3 else clean(line)
        for line in done
    ]


def clean(line: str) -> str:
    """Take off the marks of words that apertium does not know or cannot inflect."""
    return "".join(letter for letter in line if letter not in "*@#").strip()


def read_parallel(archive: Path) -> Pairs:
    """Return the English and Spanish sentences, most of those with Tom and Mary left out."""
    rng, pairs = random.Random(0), []
    with gzip.open(archive, "rt", encoding="utf-8") as file:
        for line in file:
            english, spanish, _ = line.rstrip("\n").split("\t")
            familiar = any(name in english.lower() for name in FAMILIAR)
            if not familiar or rng.random() < FAMILIAR_SHARE:
                pairs.append((english, spanish))
    return pairs


def words_of(tokenizer: Tokenizer, line: str) -> list[str]:
    """Return the words that the tokenizer cuts into pieces, in lower case and without accents."""
    normal = tokenizer.normalizer.normalize_str(line)
    return [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal)]


def align(pairs: list[tuple[list[str], list[str]]]) -> dict[str, Counter[str]]:
    """Return for each Spanish word how often it stands for which English ones (IBM model 1)."""
    english: dict[str, int] = {}
    spanish: dict[str, int] = {}
    left: list[int] = []
    right: list[int] = []
    places: list[int] = []  # which Spanish word of which sentence
    place = 0
    for first, second in pairs:
        numbers = [english.setdefault(word, len(english)) for word in first]
        for word in second:
            number = spanish.setdefault(word, len(spanish))
            left += numbers
            right += [number] * len(numbers)
            places += [place] * len(numbers)
            place += 1
    keys, pair = np.unique(
        np.array(right, dtype=np.int64) * len(english) + np.array(left), return_inverse=True
    )
    at, source = np.array(places), (keys % len(english)).astype(np.int64)
    chance = np.ones(len(keys))
    counts = chance
    for _ in range(ROUNDS_OF_ALIGNMENT):
        each = chance[pair]
        each /= np.bincount(at, weights=each, minlength=place)[at]
        counts = np.bincount(pair, weights=each, minlength=len(keys))
        chance = counts / np.bincount(source, weights=counts)[source]
    names, result = list(english), {word: Counter[str]() for word in spanish}
    words = list(spanish)
    for key, count in zip(keys.tolist(), counts.tolist(), strict=True):
        if count > 0.1:
            result[words[key // len(english)]][names[key % len(english)]] = count
    return result


def choose_words(tokenizer: Tokenizer, lines: list[list[str]]) -> list[str]:
    """Return the commonest words of Spanish lines that the tokenizer would cut into pieces."""
    known = tokenizer.get_vocab()
    counts = Counter(word for line in lines for word in line)
    chosen = [
        word
        for word, count in counts.items()
        if count >= MIN_COUNT and len(word) > 2 and word.isalpha() and word not in known
    ]
    return sorted(chosen, key=lambda word: (-counts[word], word))[:MAX_WORDS]


def widen_tokenizer(source: Path, words: list[str], target: Path) -> None:
    """Write the tokenizer with more whole words."""
    stored = json.loads(source.read_text(encoding="utf-8"))
    vocabulary = stored["model"]["vocab"]
    vocabulary |= {word: len(vocabulary) + k for k, word in enumerate(words)}
    target.write_text(json.dumps(stored, ensure_ascii=False), encoding="utf-8")


def first_vectors(
    tokenizer: Tokenizer, tower: TextTower, words: list[str], aligned: dict[str, Counter[str]]
) -> Tensor:
    """Return the word vectors ``(n, 384)`` that the new words begin as, of common length."""
    table = tower.words.weight.detach()
    rows = torch.zeros(len(words), table.shape[1])
    for row, word in zip(rows, words, strict=True):
        best = aligned[word].most_common(ALIGNED)
        for english, count in best:
            ids = tokenizer.encode(english, add_special_tokens=False).ids
            row += count * table[ids].mean(dim=0)
    return F.normalize(rows) * table.norm(dim=1).mean()


def prepare_spanish(data: Path, work: Path) -> None:
    """Write ``spanish.json`` (pairs of texts), ``spanish.npy`` (MiniLM's vectors of the English
    ones), the wider tokenizer and the first vectors of its words.
    """
    if (work / "spanish.words.pt").exists():
        return
    began = time.time()
    texts = json.loads((work / "texts.json").read_text())
    short = [
        text
        for kind in ("words", "hypernyms", "phrases", "labels", "ngrams")
        for text in texts[kind]
    ]
    prompts = texts["prompts"][:2000]
    parallel = read_parallel(data / "parallel-es.tsv.gz")
    captions = translate(texts["captions"])
    others = [
        (english, spanish)
        for english, spanish in zip(short + prompts, translate(short + prompts), strict=True)
        if spanish and spanish.lower() != english.lower()
    ]
    config, folder = MiniConfig(), extract_minilm(work)
    tower, tokenizer = load_minilm(folder, config), load_tokenizer(folder, config.context)
    both = [*parallel, *zip(texts["captions"], captions, strict=True), *others]
    cut = [(words_of(tokenizer, first), words_of(tokenizer, second)) for first, second in both]
    words = choose_words(tokenizer, [second for _, second in cut])
    widen_tokenizer(folder / TOKENIZER, words, work / TOKENIZER)
    vectors = embed_texts(tower, tokenizer, [english for english, _ in parallel + others])
    np.save(work / "spanish.npy", vectors.numpy().astype(np.float16))
    (work / "spanish.json").write_text(
        json.dumps({"captions": captions, "sentences": [es for _, es in parallel + others]})
    )
    save({"words": first_vectors(tokenizer, tower, words, align(cut))}, work / "spanish.words.pt")
    print(
        f"spanish: {len(parallel)} sentences, {len(others)} words and phrases, {len(words)} more "
        f"words in the tokenizer, in {time.time() - began:.0f} s",
        flush=True,
    )


def wide_tower(work: Path, config: MiniConfig) -> TextTower:
    """Return MiniLM with the new words' first vectors."""
    tower = load_minilm(extract_minilm(work), MiniConfig())
    more = torch.load(work / "spanish.words.pt", weights_only=True)["words"]
    words = torch.nn.Embedding(config.vocabulary, more.shape[1])
    words.weight.data.copy_(torch.cat([tower.words.weight.detach(), more]))
    tower.words = words
    return tower


class SpanishBank:
    """Tokens of the Spanish texts and MiniLM's vectors of their English ones."""

    def __init__(self, work: Path, tokenizer: Tokenizer) -> None:
        stored = json.loads((work / "spanish.json").read_text())
        captions, sentences = (
            [encoding.ids for encoding in tokenizer.encode_batch(stored[kind])]
            for kind in ("captions", "sentences")
        )
        self.captions, self.sentences = captions, sentences
        self.vectors = np.load(work / "spanish.npy", mmap_mode="r")

    def sentence(self, places: Tensor) -> tuple[list[list[int]], Tensor]:
        """Return the tokens of some sentences and their English vectors."""
        vectors: NDArray[np.float32] = self.vectors[places.numpy()].astype(np.float32)
        return [self.sentences[place] for place in places.tolist()], torch.from_numpy(vectors)


def teach_spanish(work: Path, config: MiniConfig) -> None:
    """Train the text tower and write ``spanish.pt``."""
    if (work / "spanish.pt").exists():
        return
    began = time.time()
    torch.manual_seed(0)
    tower, tokenizer = wide_tower(work, config), load_tokenizer(work, config.context)
    bank, stored = SpanishBank(work, tokenizer), np.load(work / "texts.npz")
    english = json.loads((work / "texts.json").read_text())["captions"]
    tokens = [encoding.ids for encoding in tokenizer.encode_batch(english)]
    vectors = torch.from_numpy(stored["captions"].reshape(-1, 384))
    body = [weight for name, weight in tower.named_parameters() if name != "words.weight"]
    optimiser = torch.optim.AdamW(
        [{"params": body, "lr": RATE}, {"params": [tower.words.weight], "lr": WORD_RATE}],
        betas=(0.9, 0.98),
        weight_decay=0.0,
    )
    tops, total = [RATE, WORD_RATE], 0.0
    for step, (rows, target) in zip(range(STEPS), batches(bank, vectors), strict=False):
        factor = min((step + 1) / 30, 1.0) * (1 - step / STEPS) + 1e-3
        for group, top in zip(optimiser.param_groups, tops, strict=True):
            group["lr"] = top * factor
        own = torch.randint(len(tokens), (ENGLISH,))
        spanish = tower(*pad(rows))
        stay = tower(*pad([tokens[place] for place in own.tolist()]))
        far = (1 - (spanish * target).sum(dim=1)).mean()
        moved = (1 - (stay * vectors[own]).sum(dim=1)).mean()
        apart = F.cross_entropy(spanish @ target.T * SCALE, torch.arange(len(rows)))
        loss = 10 * far + 10 * moved + 0.3 * apart
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(tower.parameters()), 1.0)
        optimiser.step()
        total += float(far.detach())
        if (step + 1) % 60 == 0:
            print(
                f"spanish {step + 1}/{STEPS}: {total / 60:.3f} from English, English moved by "
                f"{float(moved):.4f}, {time.time() - began:.0f} s",
                flush=True,
            )
            total = 0.0
    save(tower.state_dict(), work / "spanish.pt")


def batches(bank: SpanishBank, captions: Tensor) -> Iterator[tuple[list[list[int]], Tensor]]:
    """Yield for ever the tokens and English vectors of batches of texts of like length."""
    count = len(bank.sentences)
    lengths = torch.tensor([len(row) for row in (*bank.sentences, *bank.captions)])
    while True:
        pool = torch.randperm(len(lengths))[: BATCH * 60]
        pool = pool[lengths[pool].argsort()]
        chunks = list(pool.split(BATCH))
        for number in torch.randperm(len(chunks)).tolist():
            chosen = chunks[number]
            plain, captioned = chosen[chosen < count], chosen[chosen >= count] - count
            rows, vectors = bank.sentence(plain)
            rows += [bank.captions[place] for place in captioned.tolist()]
            yield rows, torch.cat([vectors, captions[captioned]])
