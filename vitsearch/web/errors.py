"""Errors of the server, besides those of the library."""

from vitsearch.errors import VitsearchError


class ServiceBusy(VitsearchError):
    """The collection cannot be read just now: the same request may work in a moment."""


class NotShown(VitsearchError):
    """The request is for what this server does not show to remote users."""


class TooLarge(VitsearchError):
    """An upload has more bytes than the server takes."""
