"""What remote users are not shown: EXIF, which says where and when photos were taken."""

from starlette.requests import Request

from vitsearch.errors import QueryError
from vitsearch.web.asking import columns_of
from vitsearch.web.errors import NotShown
from vitsearch.web.settings import ServeSettings, is_loopback
from vitsearch.where import Where, parse_where

EXIF_COLUMNS = frozenset({"taken_at", "year", "month", "camera", "latitude", "longitude"})
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")


def is_local(request: Request) -> bool:
    """Return whether a request comes from this machine, through no proxy."""
    settings: ServeSettings = request.app.state.settings
    own = request.client is not None and is_loopback(request.client.host)
    return settings.local and own and not any(name in request.headers for name in _FORWARDED)


def exif_shown(request: Request) -> bool:
    """Return whether this client may see EXIF: where and when photos were taken, and with what."""
    settings: ServeSettings = request.app.state.settings
    return settings.show_exif or is_local(request)


def filter_for(request: Request, text: str | None) -> Where | None:
    """Return the filter that a client asks for, None for an empty one.

    Raises QueryError for what cannot be read, and NotShown for a filter on EXIF that this client may not see: its results would tell.
    """
    if text is None or not text.strip():
        return None
    try:
        where = parse_where(text)
    except RecursionError:
        raise QueryError("the filter is nested too deep: write it flatter") from None
    hidden = sorted(columns_of(where) & EXIF_COLUMNS)
    if hidden and not exif_shown(request):
        raise NotShown(f"this server does not show EXIF to remote users, so there is no filter on {', '.join(hidden)} (--show-exif)")
    return where
