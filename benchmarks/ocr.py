"""Measure how many words of drawn documents are read: python benchmarks/ocr.py [--count 100]
[--seed 0] [--photos FOLDER].

Draws letters, receipts, tables, screenshots light and dark, slides, signs and notes with the fonts
of the system, in English and Spanish; turns them a little, adds noise, and saves them as JPEG of a
quality from 35 to 95. A word is found where the text that was read holds it, in any case and with
or without accents, as the filter ``text contains`` finds it; another column asks for the accents
too. Needs the extra [ocr].
"""

import argparse
import io
import random
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter, ImageFont

from vitsearch.photos.decode import decode
from vitsearch.photos.text import READ, TextReader, plain_words

FONTS = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSansMono", "DejaVuSansCondensed",
    "NimbusSans-Regular", "NimbusRoman-Regular", "NimbusMonoPS-Regular", "C059-Roman",
    "P052-Roman", "URWBookman-Light", "URWGothic-Book", "NotoSansMono-Regular",
)  # fmt: skip
MONO = ("DejaVuSansMono", "NotoSansMono-Regular", "NimbusMonoPS-Regular")
ENGLISH = """the garden was open until eight and nobody had seen the keeper leave
please send the signed contract before friday so that payment can be arranged
our train leaves from platform seven at half past nine in the morning
the committee has decided to move the yearly meeting to september
remember to water the plants while we are away and feed the neighbour's cat
delivery is free for orders above fifty euros within the country
this certificate confirms that the holder has finished the course with honours
the museum is closed on mondays except during the summer holidays
results of the experiment were better than expected by every measure
keep this receipt because exchanges are impossible without it""".splitlines()
SPANISH = """el jardín estará abierto hasta las ocho y mañana también
envíe por favor el contrato firmado antes del miércoles próximo
según la dirección, el número de teléfono ya no es válido
la reunión del año será en septiembre, después de la cosecha
niños menores de diez años viajan gratis con sus papás
información útil: el café está detrás de la estación
¿dónde dejó usted su equipaje? pregunte en la oficina señalada
el pingüino caminó más rápido que el camión averiado
gestión técnica y financiación pública de la región
aquí se prohíbe fumar según la ley número treinta y ocho""".splitlines()
GOODS = """Bread,Milk,Cheese,Apples,Coffee,Olive oil,Rice,Tomatoes,Salmon,Chocolate,Jamón,Piña,
Champú,Limón,Azúcar,Batteries,Notebook,Umbrella,Light bulb,Honey""".replace("\n", "").split(",")
NAMES = (
    "Ana",
    "Bruno",
    "Carla",
    "Diego",
    "Emma",
    "Farid",
    "Greta",
    "Hugo",
    "Inés",
    "Jonas",
    "Karin",
    "Luís",
    "Marta",
    "Noah",
)
HEADS = ("Item", "Quantity", "Price", "Tax", "Total", "City", "Year", "Share")
CITIES = (
    "Lisbon",
    "Madrid",
    "Oslo",
    "Vienna",
    "Bogotá",
    "Cádiz",
    "Zürich",
    "Toronto",
    "Málaga",
    "Kyoto",
    "Nairobi",
)


def font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """Return a font of the system, or Pillow's own where it is missing."""
    for suffix in (".ttf", ".otf"):
        try:
            return ImageFont.truetype(name + suffix, size)
        except OSError:
            continue
    return ImageFont.load_default(size)


@dataclass
class Page:
    """A picture that is being drawn, and the words that stand in it."""

    rng: random.Random
    size: tuple[int, int]
    paper: tuple[int, int, int]
    ink: tuple[int, int, int]
    words: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.image = Image.new("RGB", self.size, self.paper)
        self.draw = ImageDraw.Draw(self.image)

    def write(self, place: tuple[float, float], text: str, face: ImageFont.FreeTypeFont, **how):
        """Draw text, whose words count where they lie inside the picture."""
        _, _, right, bottom = self.draw.textbbox(place, text, font=face)
        if right > self.size[0] or bottom > self.size[1]:
            raise ValueError(f"{text!r} is not inside the picture")
        self.draw.text(place, text, font=face, **{"fill": self.ink, **how})
        self.words += text.split()

    def lines(self, place: tuple[int, int], text: str, face, *, width: int, gap: float) -> int:
        """Draw text in lines of a width, and return where the next line would begin."""
        left, top = place
        step, line = face.size * gap, ""
        for word in [*text.split(), ""]:
            wider = f"{line} {word}".strip()
            if word and self.draw.textlength(wider, font=face) <= width:
                line = wider
                continue
            if top + step > self.size[1]:
                break
            if line:
                self.write((left, top), line, face)
                top += step
            line = word
        return int(top)


def sentences(rng: random.Random, count: int, spanish: bool) -> str:
    """Return so many different sentences."""
    chosen = rng.sample(SPANISH if spanish else ENGLISH, count)
    return " ".join(
        each[0].upper() + each[1:] + ("" if each[-1] in "?.!" else ".") for each in chosen
    )


def price(rng: random.Random) -> str:
    """Return a sum of money."""
    return f"{rng.randint(1, 899)}.{rng.randint(0, 99):02}"


def letter(rng: random.Random) -> Page:
    """A page of prose with a heading, an address and a date."""
    page = Page(rng, (1240, 1600), (250, 249, 245), (30, 30, 40))
    name, size, spanish = rng.choice(FONTS), rng.randint(19, 32), rng.random() < 0.5
    face, big = font(name, size), font(name, 2 * size)
    page.write((90, 90), rng.choice(["Invoice", "Contrato", "Notice", "Certificado"]), big)
    page.write((90, 220), f"{rng.choice(NAMES)} Müller, {rng.choice(CITIES)}", face)
    page.write(
        (90, 270), f"{rng.randint(1, 28)} {rng.choice(['March', 'mayo', 'July'])} 2024", face
    )
    top = 360
    for _ in range(3):
        top = page.lines((90, top), sentences(rng, 4, spanish), face, width=1050, gap=1.45) + 30
    return page


def receipt(rng: random.Random) -> Page:
    """A narrow receipt of a till."""
    size = rng.randint(18, 26)
    page = Page(rng, (26 * size, 46 * size), (246, 245, 240), (60, 60, 62))
    face = font(rng.choice(MONO), size)
    page.write((2 * size, size), f"SUPERMARKET {rng.choice(CITIES).upper()}", face)
    page.write((2 * size, 3 * size), f"Receipt No. {rng.randint(1000, 99999)}", face)
    for line, good in enumerate(rng.sample(GOODS, 12)):
        top = (6 + 2 * line) * size
        page.write((2 * size, top), good, face)
        page.write((18 * size, top), price(rng), face)
    page.write((2 * size, 32 * size), "TOTAL", face)
    page.write((18 * size, 32 * size), price(rng), face)
    page.write((2 * size, 35 * size), "Thank you for your visit", face)
    return page


def table(rng: random.Random) -> Page:
    """A table with rules, as in a report or a spreadsheet."""
    page = Page(rng, (1300, 800), (255, 255, 255), (25, 25, 25))
    face = font(rng.choice(FONTS), rng.randint(16, 24))
    page.write((60, 30), f"Report {rng.randint(1990, 2025)}", font("DejaVuSans-Bold", 34))
    heads = rng.sample(HEADS, 5)
    for row in range(12):
        for column, head in enumerate(heads):
            place = (70 + 240 * column, 112 + 52 * row)
            text = head if row == 0 else rng.choice(CITIES) if column == 0 else price(rng)
            page.write(place, text, face)
    for row in range(13):
        page.draw.line((60, 100 + 52 * row, 1260, 100 + 52 * row), fill=(150, 150, 150))
    for column in range(6):
        page.draw.line((60 + 240 * column, 100, 60 + 240 * column, 724), fill=(150, 150, 150))
    return page


def chat(rng: random.Random) -> Page:
    """A screenshot of messages on a phone, half of them in dark mode."""
    dark = rng.random() < 0.5
    paper, ink = ((18, 20, 24), (232, 232, 235)) if dark else ((236, 232, 224), (20, 20, 20))
    page = Page(rng, (1080, 1920), paper, ink)
    face, small = font("DejaVuSans", rng.randint(30, 38)), font("DejaVuSans", 24)
    page.write((60, 40), rng.choice(NAMES), font("DejaVuSans-Bold", 44))
    top = 150
    for message in range(6):
        mine = message % 2
        bubble = (
            ((0, 92, 75) if mine else (38, 45, 50))
            if dark
            else ((217, 253, 211) if mine else (255, 255, 255))
        )
        left = 240 if mine else 50
        page.draw.rounded_rectangle((left, top, left + 780, top + 215), 24, fill=bubble)
        page.lines(
            (left + 30, top + 18), sentences(rng, 1, rng.random() < 0.5), face, width=700, gap=1.35
        )
        page.write((left + 640, top + 170), f"{rng.randint(10, 23)}:{rng.randint(10, 59)}", small)
        top += 250
    return page


def settings(rng: random.Random) -> Page:
    """A screenshot of a program's settings in dark mode, in small letters."""
    page = Page(rng, (1366, 768), (32, 33, 36), (218, 220, 224))
    face, head = font("DejaVuSans", rng.randint(13, 17)), font("DejaVuSans-Bold", 22)
    page.write((40, 24), "Settings", head)
    names = (
        "General",
        "Appearance",
        "Privacy",
        "Notifications",
        "Language",
        "Storage",
        "Accounts",
        "Downloads",
        "Keyboard",
        "Accessibility",
        "Security",
        "Updates",
    )
    for number, name in enumerate(names):
        page.write((40, 80 + 52 * number), name, face)
    top = 80
    for _ in range(5):
        top = page.lines((330, top), sentences(rng, 2, False), face, width=900, gap=1.6) + 24
    return page


def code(rng: random.Random) -> Page:
    """A screenshot of an editor with colours."""
    page = Page(rng, (1200, 800), (30, 30, 46), (205, 214, 244))
    face = font(rng.choice(MONO), rng.randint(16, 22))
    colours = ((137, 180, 250), (166, 227, 161), (245, 194, 231), (205, 214, 244))
    for line in range(18):
        words = " ".join(rng.choice(ENGLISH).split()[:6])
        text = rng.choice(
            [
                f"# {words}",
                f"return {rng.choice(NAMES).lower()} + {rng.randint(10, 999)}",
                f'print("{words}")',
                f"for {rng.choice(NAMES).lower()} in range(100)",
            ]
        )
        page.write((40 + 40 * (line % 3), 30 + 41 * line), text, face, fill=rng.choice(colours))
    return page


def slide(rng: random.Random) -> Page:
    """A slide of large letters on a colour."""
    paper = rng.choice([(20, 60, 120), (250, 240, 220), (90, 20, 60), (240, 240, 240)])
    page = Page(rng, (1600, 900), paper, (250, 250, 250) if sum(paper) < 400 else (40, 40, 40))
    name = rng.choice(FONTS)
    page.write((100, 90), f"{rng.choice(CITIES)} {rng.randint(2000, 2030)}", font(name, 90))
    top = 280
    for _ in range(3):
        top = (
            page.lines(
                (130, top),
                sentences(rng, 1, rng.random() < 0.5),
                font(name, 42),
                width=1350,
                gap=1.4,
            )
            + 40
        )
    return page


def sign(rng: random.Random) -> Page:
    """A photo of a sign, a small part of a large and uneven picture."""
    scene = Image.effect_noise((100, 75), 60).resize((3200, 2400), Image.Resampling.BICUBIC)
    page = Page(rng, (3200, 2400), (0, 0, 0), (255, 255, 255))
    page.image.paste(
        Image.merge("RGB", (scene, scene.point(lambda v: v * 0.9), scene.point(lambda v: v * 0.7)))
    )
    left, top = rng.randint(200, 1700), rng.randint(200, 1500)
    page.draw.rectangle(
        (left, top, left + 1200, top + 620),
        fill=rng.choice([(0, 90, 60), (20, 50, 130), (150, 30, 30)]),
    )
    name = rng.choice(FONTS[:6])
    page.write(
        (left + 60, top + 50),
        rng.choice(["EXIT", "SALIDA", "PARKING", "ESTACIÓN"]),
        font(name, 110),
    )
    page.lines(
        (left + 60, top + 220),
        sentences(rng, 1, rng.random() < 0.5),
        font(name, 52),
        width=1080,
        gap=1.4,
    )
    return page


def note(rng: random.Random) -> Page:
    """A short note on coloured paper, photographed from far away."""
    page = Page(rng, (4000, 3000), (120, 110, 100), (40, 40, 60))
    left, top = rng.randint(300, 1900), rng.randint(300, 1500)
    page.draw.rectangle(
        (left, top, left + 1700, top + 1200),
        fill=rng.choice([(255, 242, 150), (250, 250, 250), (200, 230, 255)]),
    )
    page.lines(
        (left + 90, top + 90),
        sentences(rng, 4, rng.random() < 0.5),
        font(rng.choice(FONTS), rng.randint(50, 66)),
        width=1500,
        gap=1.5,
    )
    return page


KINDS: tuple[Callable[[random.Random], Page], ...] = (
    letter, receipt, table, chat, settings, code, slide, sign, note, letter,
)  # fmt: skip


def document(number: int, seed: int = 0) -> tuple[str, bytes, list[str]]:
    """Return the kind, the JPEG and the words of a document, the same for a number and a seed."""
    rng = random.Random(f"{seed}/{number}")
    page = KINDS[number % len(KINDS)](rng)
    kind = page_kind = KINDS[number % len(KINDS)].__name__
    image = page.image
    if page_kind not in ("chat", "settings", "code", "table"):
        angle = rng.uniform(-4, 4)
        image = image.rotate(angle, Image.Resampling.BICUBIC, expand=True, fillcolor=page.paper)
        grain = Image.effect_noise(image.size, rng.uniform(5, 25)).convert("RGB")
        image = Image.blend(image, grain, 0.06).filter(
            ImageFilter.GaussianBlur(rng.uniform(0, 0.8))
        )
    out = io.BytesIO()
    image.save(out, "JPEG", quality=rng.randint(35, 95))
    return kind, out.getvalue(), page.words


def found_words(words: list[str], text: str, *, accents: bool = False) -> tuple[int, int]:
    """Return how many of the drawn words were read, and how many were drawn; with ``accents`` each
    as it is written.
    """
    split = (lambda each: re.findall(r"\w+", each.casefold())) if accents else plain_words
    drawn = Counter(split(" ".join(words)))
    return (drawn & Counter(split(text))).total(), drawn.total()


def main() -> None:
    """Read the documents and print the share of their words that was found, by kind."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, help="number of the first document")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--photos", type=Path, help="a folder of photos, timed besides")
    chosen = parser.parse_args()
    reader = TextReader()
    rows: dict[str, list[tuple[int, int, int, float]]] = defaultdict(list)
    for number in range(chosen.first, chosen.first + chosen.count):
        kind, data, words = document(number, chosen.seed)
        image = decode(data, side=READ)[0]
        started = time.process_time()
        text = reader.read(image).text
        seconds = time.process_time() - started
        found, drawn = found_words(words, text)
        exact, _ = found_words(words, text, accents=True)
        rows[kind].append((found, exact, drawn, seconds))
    if rows:
        rows["all"] = [row for group in rows.values() for row in group]
    print("kind      words   found  with accents  CPU s")
    for kind, group in rows.items():
        found, exact, drawn, seconds = (sum(column) for column in zip(*group, strict=True))
        shares = f"{100 * found / drawn:6.2f} %  {100 * exact / drawn:10.2f} %"
        print(f"{kind:8}  {drawn:5}  {shares}  {seconds / len(group):5.2f}", flush=True)
    if chosen.photos:
        photos(reader, chosen.photos)


def photos(reader: TextReader, folder: Path) -> None:
    """Print the time that photos take, and what is read in them."""
    times: dict[bool, list[float]] = defaultdict(list)
    for file in sorted(folder.glob("*.jpg")):
        image = decode(file.read_bytes(), side=READ)[0]
        started = time.process_time()
        text = reader.read(image).text
        times[bool(text)].append(time.process_time() - started)
        if text:
            print(f"{file.name}: {text!r}"[:100])
    for has_text, seconds in sorted(times.items()):
        what = "with text" if has_text else "without"
        print(f"{len(seconds)} photos {what}: {sum(seconds) / len(seconds):.2f} s of CPU each")


if __name__ == "__main__":
    main()
