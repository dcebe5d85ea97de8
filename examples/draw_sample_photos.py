"""Draw a folder of simple pictures (a red circle, a blue square ...), the same on every run.

python examples/draw_sample_photos.py FOLDER
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

WIDTH, HEIGHT = 320, 240
CIRCLE, SQUARE, GROUND = (90, 50, 230, 190), (95, 55, 225, 185), (0, 110, WIDTH, HEIGHT)
WHITE, RED, BLUE, GREEN, YELLOW = "#f5f5f0", "#d22328", "#2850c8", "#32963c", "#f5cd32"
ORANGE, PURPLE, PINK, BROWN = "#f0821e", "#7d3caa", "#f08cb4", "#7d502d"
BLACK, GRAY, SKY = "#19191e", "#828282", "#82bef0"
FLOWERS = [(x, y, x + 45, y + 45) for x in (30, 140, 250) for y in (35, 150)]
STRIPES = [(x, 0, x + 25, HEIGHT) for x in range(15, WIDTH, 55)]

# name -> background, shape, colour, the boxes or corners of the shapes
PICTURES = {
    "red-circle.jpg": (WHITE, "ellipse", RED, [CIRCLE]),
    "blue-square.jpg": (WHITE, "rectangle", BLUE, [SQUARE]),
    "yellow-triangle.jpg": (WHITE, "polygon", YELLOW, [(160, 40, 245, 195, 75, 195)]),
    "green-field.jpg": (SKY, "rectangle", GREEN, [GROUND]),
    "orange-sunset.jpg": (ORANGE, "rectangle", PURPLE, [GROUND]),
    "brown-desert.jpg": (SKY, "rectangle", BROWN, [GROUND]),
    "black-night.jpg": (BLACK, "ellipse", WHITE, [(225, 30, 265, 70)]),
    "pink-flowers.jpg": (GREEN, "ellipse", PINK, FLOWERS),
    "gray-road.jpg": (GREEN, "polygon", GRAY, [(140, 0, 180, 0, 280, HEIGHT, 40, HEIGHT)]),
    "purple-stripes.jpg": (WHITE, "rectangle", PURPLE, STRIPES),
    "shapes/red-square.png": (WHITE, "rectangle", RED, [SQUARE]),
    "shapes/blue-circle.png": (WHITE, "ellipse", BLUE, [CIRCLE]),
}


def draw_sample_photos(folder: Path) -> list[Path]:
    """Write the pictures, with a little grain, into a folder and return their paths."""
    rng = np.random.default_rng(0)
    paths = []
    for name, (background, shape, colour, boxes) in PICTURES.items():
        image = Image.new("RGB", (WIDTH, HEIGHT), background)
        for box in boxes:
            getattr(ImageDraw.Draw(image), shape)(box, fill=colour)
        grain = rng.normal(0, 3, (HEIGHT, WIDTH, 1))
        pixels = np.asarray(image.filter(ImageFilter.GaussianBlur(1)), dtype=np.float64) + grain
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path, quality=80)
        paths.append(path)
    return paths


if __name__ == "__main__":
    for drawn in draw_sample_photos(Path(sys.argv[1] if len(sys.argv) > 1 else "sample-photos")):
        print(drawn)
