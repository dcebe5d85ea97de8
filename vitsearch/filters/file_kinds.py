"""The kinds of files that a query may name: screenshots, videos, panoramas, photos in portrait.

Each has regular expressions over a query in lower case without accents, read only where it has one
of the ``stems``, and a filter. START and END are those of the query, PHOTOS words for photos.
"""

from typing import Any

from vitsearch.filters.word_lists import comma_words

FILE_KINDS: list[dict[str, Any]] = [
    {
        "kind": "file",
        "title": "screenshots",
        "stems": comma_words("screen, captura, pantallazo"),
        "forms": [
            r"screen ?(?:shots|grabs|captures|caps)",
            r"capturas(?: de pantalla)?",
            r"pantallazos",
            r"START(?:screen ?shot|captura de pantalla|pantallazo)"
            r"(?= (?:of|from|with|de|con|in|en|last|this|\d)|END)",
        ],
        "where": (
            "path like '%screenshot%' "
            "or path like '%screen shot%' "
            "or path like '%screen_shot%' "
            "or path like '%captura de pantalla%' "
            "or path like '%capturas de pantalla%'"
        ),
    },
    {
        "kind": "file",
        "title": "videos",
        "stems": comma_words("video, clip"),
        "forms": [
            r"(?<!music )(?<!game )(?<!home )videos(?! (?:games?|calls?|cameras?))",
            r"START(?:(?:video |movie )?clip|video)s?(?= (?:of|from|de|del) )",
            r"START(?:video|video clip)s?(?= (?:last|this|\d))",
            r"START(?:video|video clip|movie clip)s?(?=END)",
        ],
        "format": "Video",
    },
    {
        "kind": "file",
        "title": "RAW files",
        "stems": comma_words("raw"),
        "forms": [
            r"raw (?:files|PHOTOS)",
            r"(?:archivos|fotos) (?:en )?raw",
        ],
        "format": "RAW",
    },
    {
        "kind": "file",
        "title": "GIFs",
        "stems": comma_words("gif"),
        "forms": [
            r"(?:animated )?gifs(?: animados)?",
            r"(?:animated )?gif (?:files|PHOTOS)",
            r"START(?:an? )?(?:animated )?gif(?= (?:of|from|de) )",
        ],
        "format": "GIF",
    },
    {
        "kind": "file",
        "title": "PNG files",
        "stems": comma_words("png"),
        "forms": [
            r"pngs",
            r"png (?:files|PHOTOS)",
            r"archivos png",
        ],
        "format": "PNG",
    },
    {
        "kind": "file",
        "title": "JPEG files",
        "stems": comma_words("jpg, jpeg"),
        "forms": [
            r"jpe?gs",
            r"jpe?g (?:files|PHOTOS)",
            r"archivos jpe?g",
        ],
        "format": "JPEG",
    },
    {
        "kind": "file",
        "title": "HEIC files",
        "stems": comma_words("hei"),
        "forms": [
            r"hei[cf] (?:files|PHOTOS)",
            r"archivos hei[cf]",
        ],
        "format": "HEIC",
    },
    {
        "kind": "shape",
        "title": "panoramas",
        "stems": comma_words("panoram"),
        "forms": [
            r"panoramas",
            r"panoram(?:a|ic) (?:PHOTOS|shots|views?)",
            r"(?:fotos|imagenes|vistas) panoramicas",
            r"START(?:panorama|panoramica)(?= (?:of|from|de) |END)",
            r"panorama(?=END)",
            r"panoramicas",
        ],
        "where": "aspect >= 2",
    },
    {
        "kind": "shape",
        "title": "portrait format",
        "stems": comma_words("portrait, vertical"),
        "forms": [
            r"portrait (?:PHOTOS|shots|orientation|format)",
            r"(?<= in )portrait(?=END)",
            r"vertical (?:PHOTOS|shots|orientation|format)",
            r"(?:portrait|vertical)(?= videos)",
            r"(?<=videos )(?:en )?vertical(?:es)?",
            r"verticales",
            r"(?:fotos?|imagen|imagenes) (?:en )?vertical(?:es)?",
            r"(?<= en )vertical(?=END)",
        ],
        "where": "aspect < 1",
    },
    {
        "kind": "shape",
        "title": "landscape format",
        "stems": comma_words("landscape, horizontal, apaisad"),
        "forms": [
            r"landscape (?:orientation|format)",
            r"horizontal (?:PHOTOS|shots|orientation|format)",
            r"(?:landscape|horizontal)(?= videos)",
            r"(?<=videos )(?:en )?(?:horizontal(?:es)?|apaisad[oa]s?)",
            r"(?:fotos?|imagen|imagenes) (?:en )?(?:horizontal"
            r"(?:es)?|apaisad[oa]s?)",
        ],
        "where": "aspect > 1",
    },
    {
        "kind": "shape",
        "title": "square photos",
        "stems": comma_words("square, cuadrad"),
        "forms": [
            r"square (?:PHOTOS|format|crops?)",
            r"square(?= videos)",
            r"(?:fotos|imagenes) cuadradas",
        ],
        "where": "aspect between 0.98 and 1.02",
    },
]
