"""What a process runs that decodes JPEGs on the device of a model, and resizes and crops them
there, by torchvision: nvJPEG on an NVIDIA GPU, libjpeg on a CPU.

    parent -> child: a JSON header (of each JPEG its bytes, its size, how it is turned and what its
                     picture is to become), the JPEGs one behind the other
    child -> parent: a JSON header (the shape of each picture, null for one that is left to the
                     parent), the pictures in RGB, uint8

The JPEGs of a request are decoded in one call. A device that has failed for good ends the process.
"""

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torchvision.io import ImageReadMode, decode_jpeg

from vitsearch.photos.child import Message, answer
from vitsearch.untrusted import reason

_CUT_ROWS = 8  # the height of a block
_NEAR_WHITE = 250
_FIRST_TRANSPOSED = 5  # from this EXIF orientation on, height and width change places


def serve(device: str) -> None:
    """Decode on a device what comes on stdin until it ends: all that the process does."""
    warnings.simplefilter("ignore")  # nobody reads them
    decoder = _JpegDecoder(torch.device(device))
    answer(decoder.try_out, decoder.answers)


class _JpegDecoder:
    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._problem: str | None = None

    def try_out(self) -> None:
        """Decode a small picture, which loads all that is needed; a problem is told when asked."""
        small = io.BytesIO()
        Image.new("RGB", (16, 16)).save(small, "JPEG")
        try:
            self._read([_tensor(small.getvalue())])
        except Exception as error:
            self._problem = reason(error)

    @torch.inference_mode()
    def answers(self, data: bytes, request: Mapping[str, Any]) -> Iterator[Message]:
        """Yield the pictures of a request, or why there can be none."""
        if self._problem is not None:
            yield {"reason": self._problem}, b""
            return
        jpegs = request["jpegs"]
        ends = list(accumulate((jpeg["bytes"] for jpeg in jpegs), initial=0))
        decoded = self._decoded([_tensor(data[start:end]) for start, end in pairwise(ends)])
        made = [self._prepared(*each) for each in zip(decoded, jpegs, strict=True)]
        pictures = [picture for picture in made if picture is not None]
        # one copy from the device for all of them
        pixels = torch.cat([each.flatten() for each in pictures]).cpu() if pictures else _NOTHING
        shapes = [None if picture is None else [*picture.shape] for picture in made]
        yield {"shapes": shapes}, pixels.numpy().tobytes()

    def _read(self, contents: Sequence[Tensor]) -> list[Tensor]:
        return list(decode_jpeg(list(contents), mode=ImageReadMode.RGB, device=self._device))

    def _decoded(self, contents: Sequence[Tensor]) -> list[Tensor | None]:
        """Return each picture, ``(3, h, w)``, None for one that cannot be decoded here."""
        if not contents:
            return []
        try:
            return [*self._read(contents)]
        except RuntimeError:
            self._check()
        if len(contents) == 1:
            return [None]
        return [picture for content in contents for picture in self._decoded([content])]

    def _prepared(self, picture: Tensor | None, jpeg: Mapping[str, Any]) -> Tensor | None:
        """Return the model's input, ``(h, w, 3)``; None where memory does not hold what it takes,
        or the picture is not the one of the head or may be cut off.
        """
        if picture is None or [*picture.shape] != [3, *reversed(jpeg["size"])]:
            return None
        try:
            return None if _may_be_cut_off(picture) else prepared(picture, **jpeg["becomes"])
        except RuntimeError:
            self._check()
            return None

    def _check(self) -> None:
        """Raise RuntimeError where the device answers nothing any more."""
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.synchronize(self._device)


_NOTHING = torch.empty(0, dtype=torch.uint8)


def _tensor(data: bytes) -> Tensor:
    return torch.frombuffer(data, dtype=torch.uint8)


def _may_be_cut_off(picture: Tensor) -> bool:
    """Return whether the last rows of a picture are of one colour, as decoders fill up what is
    missing, though none with white.
    """
    rows = picture[:, -_CUT_ROWS:]
    corner = rows[:, :1, :1]
    return bool((rows == corner).all() & (corner < _NEAR_WHITE).any())


def prepared(
    picture: Tensor, orientation: int, layout: Mapping[str, Any], fill_color: int
) -> Tensor:
    """Return a picture ``(3, h, w)`` turned, resized and cropped, ``(h, w, 3)``."""
    (height, width), (crop_height, crop_width) = layout["size"], layout["crop"]
    if orientation >= _FIRST_TRANSPOSED:
        sizes = [(width, picture.shape[2]), (width, height)]
    else:
        sizes = [(picture.shape[1], width), (height, width)]
    pixels = picture[None].float()
    for size in sizes:  # the rows as they are seen, then the columns, rounded as Pillow does
        pixels = functional.interpolate(
            pixels, size=size, mode=layout["interpolation"], align_corners=False, antialias=True
        )
        pixels = pixels.add_(0.5).floor_().clamp_(0, 255)
    upright = turned(pixels[0].to(torch.uint8), orientation)
    top, left = layout["top"], layout["left"]
    # a margin below 0 is cropped
    margins = (-left, left + crop_width - width, -top, top + crop_height - height)
    return functional.pad(upright, margins, value=fill_color).permute(1, 2, 0)


def turned(pixels: Tensor, orientation: int) -> Tensor:
    """Return pixels ``(..., h, w)`` of an EXIF orientation from 1 to 8 upright (Exif 2.32)."""
    if orientation >= _FIRST_TRANSPOSED:
        pixels = pixels.transpose(-2, -1)
    axes = {2: [-1], 3: [-2, -1], 4: [-2], 6: [-1], 7: [-2, -1], 8: [-2]}.get(orientation)
    return pixels.flip(axes) if axes else pixels
