"""Readers of Pillow that would give wrong pixels for some files, mended."""

import struct

from PIL import PsdImagePlugin, TgaImagePlugin

from vitsearch.errors import PhotoError

_VERSION_INFO, _EXIF, _XMP = 1057, 1058, 1060  # resources of Photoshop


class PsdImageFile(PsdImagePlugin.PsdImageFile):
    """The merged picture of a Photoshop file, its EXIF and its XMP."""

    def _open(self) -> None:
        assert self.fp is not None
        head = self.fp.read(26)
        depth = int.from_bytes(head[22:24], "big")
        if depth in (16, 32):
            raise PhotoError(f"cannot be decoded: a PSD of {depth} bits, of which 8 are read")
        self.fp.seek(0)
        try:
            super()._open()
        except (struct.error, LookupError) as error:
            raise PhotoError("cannot be decoded: a PSD that is cut or damaged") from error
        resources = {number: data for number, _, data in reversed(self.resources)}
        if resources.get(_VERSION_INFO, b"\0\0\0\0\1")[4:5] == b"\0":
            raise PhotoError(
                "a PSD without a merged picture: save it again with Maximize Compatibility"
            )
        if self.mode == "RGBA" and not self._is_transparent():
            self._mode, self.tile = "RGB", self.tile[:3]  # the fourth is a stored selection
        if _EXIF in resources:
            self.info["exif"] = resources[_EXIF]
        if _XMP in resources:
            self.info["xmp"] = resources[_XMP]

    def _is_transparent(self) -> bool:
        """Return whether the first channel behind the colours is transparency, which a negative
        number of layers says (Adobe Photoshop File Formats, Layer info).
        """
        assert self.fp is not None
        if self._layers_position is None:
            return False
        before = self.fp.tell()
        self.fp.seek(self._layers_position)
        count = int.from_bytes(self.fp.read(2), "big", signed=True)
        self.fp.seek(before)
        return count < 0


class TgaImageFile(TgaImagePlugin.TgaImageFile):
    """A Targa picture, whose fourth byte is transparency only where its header says so."""

    def _open(self) -> None:
        assert self.fp is not None
        self._alpha_bits = self.fp.read(18)[17] & 15
        self.fp.seek(0)
        super()._open()

    def load_end(self) -> None:
        """Turn the picture, and make one without transparency opaque."""
        super().load_end()
        if self.mode == "RGBA" and not self._alpha_bits:
            self.im.fillband(3, 255)
