"""Small pictures of photos, decoded ahead, for what is drawn of them."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from PIL import Image

from vitsearch.errors import PhotoError
from vitsearch.photos import thumbnail
from vitsearch.photos.decode import open_photo
from vitsearch.photos.decoder import PhotoDecoder
from vitsearch.photos.prefetch import prefetch_map
from vitsearch.types import Photo


def small_pictures(
    paths: Sequence[str], *, root: Path, photos: Mapping[str, Photo], side: int
) -> Iterator[Image.Image | PhotoError]:
    """Yield a picture of each photo, its longest side at most ``side`` pixels, or why it cannot be
    read; paths are relative to ``root``, and ``photos`` has those that are indexed by path.
    """
    with PhotoDecoder() as decoder:

        def load(path: str) -> Image.Image | PhotoError:
            indexed = photos.get(path)
            time = indexed.time if indexed else None
            try:
                with open_photo(root, path, indexed) as file:
                    image = decoder.decode_file(file, at=time, name=path, at_least=side)
                return thumbnail(image, side)
            except PhotoError as error:
                return error

        yield from prefetch_map(load, paths, workers=4, buffer=8, on_stop=decoder.close)
