"""Who may see where, when and with what photos were taken, and who may change things.

That is the person at this machine, and nobody else unless the server was started with
``--show-exif``. Behind any proxy, tunnel or port that somebody has forwarded, every visitor has the
address 127.0.0.1, so the address alone says nothing: the person at this machine has besides it the
key of this server, which is only in the address that `vitsearch serve` prints and opens.
"""

import hashlib
import hmac
from functools import cache

from starlette.requests import Request

from vitsearch.errors import NotShown, QueryError
from vitsearch.filters import parse_filter
from vitsearch.filters.tree import Filter
from vitsearch.photos.columns import PRIVATE
from vitsearch.web import ServeSettings, is_loopback

KEY = "key"  # the parameter of an address
SECRETS = ("token", KEY)  # parameters that no address keeps
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")


def key_cookie(settings: ServeSettings) -> tuple[str, str]:
    """Return the name and value of the cookie that stands for the key without containing it."""
    return f"vitsearch-key-{settings.port}", _stand_in(settings.key)


@cache
def _stand_in(key: str) -> str:
    return hmac.new(key.encode(), b"vitsearch key", hashlib.sha256).hexdigest()


def is_local(request: Request) -> bool:
    """Return whether a request comes from the person at this machine, by its own loopback address
    and with the key; nobody where the server asks for a token or stands behind a proxy.
    """
    settings: ServeSettings = request.app.state.settings
    name, value = key_cookie(settings)
    held = is_same(request.cookies.get(name, ""), value) or has_key(request, settings)
    return held and comes_from_here(request, settings)


def comes_from_here(request: Request, settings: ServeSettings) -> bool:
    """Return whether the key counts for a request."""
    return (
        settings.token is None
        and settings.behind_proxy is None
        and settings.local
        and request.client is not None
        and is_loopback(request.client.host)
        and is_loopback(request.url.hostname or "")
        and not any(name in request.headers for name in _FORWARDED)
    )


def has_key(request: Request, settings: ServeSettings) -> bool:
    """Return whether the address of a request holds the key."""
    return is_same(request.query_params.get(KEY, ""), settings.key)


def is_same(secret: str, expected: str) -> bool:
    """Return whether two secrets are the same, in a time that does not say where they differ."""
    return hmac.compare_digest(
        secret.encode("utf-8", "surrogateescape"), expected.encode("utf-8", "surrogateescape")
    )


def may_write(request: Request) -> bool:
    """Return whether this client may change what is stored: the person at this machine, and with
    ``allow_edits`` everybody who has given the token.
    """
    settings: ServeSettings = request.app.state.settings
    return is_local(request) or (settings.allow_edits and settings.token is not None)


def exif_shown(request: Request) -> bool:
    """Return whether this client may see EXIF: where and when photos were taken, and with what."""
    settings: ServeSettings = request.app.state.settings
    return settings.show_exif or is_local(request)


def filter_for(request: Request, text: str | None) -> Filter | None:
    """Return the filter of a request, None for an empty one.

    Raises QueryError for a filter that cannot be read, and NotShown for one on private columns that
    this client may not see: its results would reveal them.
    """
    if text is None or not text.strip():
        return None
    try:
        where = parse_filter(text)
    except RecursionError:
        raise QueryError("the filter is nested too deep: write it flatter") from None
    check_filter(request, where)
    return where


def check_filter(request: Request, where: Filter) -> None:
    """Raise NotShown for a filter on columns that this client may not see."""
    hidden = sorted(where.columns() & PRIVATE)
    if hidden and not exif_shown(request):
        raise NotShown(
            f"this server does not show you EXIF, so there is no filter on {', '.join(hidden)}: "
            "open the address that `vitsearch serve` printed on its own machine, or serve with "
            "--show-exif"
        )
