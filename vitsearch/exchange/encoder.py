"""Which encoder made the vectors that are imported."""

from pathlib import Path

from vitsearch.encoders import load_encoder
from vitsearch.encoders.golden import check_golden
from vitsearch.encoders.protocol import ImageEncoder
from vitsearch.errors import EncoderError, EncoderMismatch
from vitsearch.exchange.passport import Passport
from vitsearch.exchange.rows import Source
from vitsearch.layout import Settings, check_fingerprint


def chosen_encoder(
    source: Source, folder: Path, settings: Settings | None, *, encoder: str | ImageEncoder | None, device: str
) -> ImageEncoder:
    """Return the encoder that was asked for, or else that of the source's ``vitsearch.json``, or else of the collection in ``folder``.

    Raises EncoderError where none is named, and EncoderMismatch unless it fits the source and the collection.
    """
    passport = source.passport
    if passport and settings and passport.encoder_fingerprint != settings.encoder_fingerprint:
        raise EncoderMismatch(
            f"{source.name} was made with {passport.encoder} (fingerprint {passport.encoder_fingerprint[:8]}), {folder} with "
            f"{settings.encoder} ({settings.encoder_fingerprint[:8]}): import into another --collection DIR"
        )
    chosen = encoder or (passport or settings or _Unnamed(source.name)).encoder
    if isinstance(chosen, str):
        said = passport or settings
        chosen = load_encoder(chosen, device, said.dtype if said and said.encoder == chosen else "auto")
    if chosen.dim != source.dim:
        raise EncoderMismatch(
            f"the vectors of {source.name} have {source.dim} numbers, encoder {chosen.name} gives {chosen.dim}: name the one that made them"
        )
    if settings:
        check_fingerprint(folder, settings, chosen)
    if passport:
        _check_passport(source.name, passport, chosen)
    return chosen


class _Unnamed:
    """Stands for the encoder that nobody named."""

    def __init__(self, source: str) -> None:
        self.source = source

    @property
    def encoder(self) -> str:
        raise EncoderError(f"{self.source} does not say which encoder made its vectors: name it, as in --encoder open_clip:ViT-B-32/openai")


def _check_passport(source: str, passport: Passport, encoder: ImageEncoder) -> None:
    if encoder.fingerprint != passport.encoder_fingerprint:
        raise EncoderMismatch(
            f"{source} was made with {passport.encoder} (fingerprint {passport.encoder_fingerprint[:8]}), not with this {encoder.name} "
            f"({encoder.fingerprint[:8]}): use that encoder and version"
        )
    if passport.golden:
        check_golden(encoder, passport.golden_vectors())
