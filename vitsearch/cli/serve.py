"""`vitsearch serve`: a collection in the browser and over HTTP."""

from typing import Any

import click

from vitsearch.cli.options import ANYWHERE, COLLECTION, DEVICE, check_place
from vitsearch.cli.output import print_note
from vitsearch.errors import VitsearchError

_PACKAGES = frozenset(
    ("fastapi", "starlette", "uvicorn", "jinja2", "pydantic", "multipart", "python_multipart")
)


@click.command()
@ANYWHERE
@COLLECTION
@DEVICE
@click.option(
    "--photos",
    "root",
    metavar="ROOT",
    help="Of a collection in Milvus: where its photos are, if not where they were embedded.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="H",
    help="Where to listen; beyond this machine it needs --token.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8765,
    show_default=True,
    metavar="N",
    help="0 takes a free one.",
)
@click.option(
    "--token",
    envvar="VITSEARCH_TOKEN",
    metavar="T",
    help="A secret that every client must give; or set VITSEARCH_TOKEN.",
)
@click.option("--open", "open_browser", is_flag=True, help="Open the page in the browser.")
@click.option(
    "--show-exif",
    is_flag=True,
    help="Show remote users when, where and with what camera photos were taken.",
)
@click.option(
    "--allow-host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="One more name of this server; may be repeated.",
)
@click.option(
    "--upload-mb",
    type=click.IntRange(1, 1000),
    default=20,
    show_default=True,
    metavar="N",
    help="The largest photo to upload.",
)
@click.option(
    "--thumbnails-mb",
    type=click.IntRange(0),
    default=500,
    show_default=True,
    metavar="N",
    help="Disk for thumbnails, beside the index.",
)
def serve(photos: str, **options: Any) -> int:
    """Show PHOTOS on a web page, and answer programs over HTTP, until Ctrl-C or SIGTERM.

    PHOTOS is an indexed folder, or a collection in Milvus: milvus://HOST:PORT/NAME.

    The page is at http://127.0.0.1:8765/, the interface for programs is described at /api/docs. It
    listens on this machine only unless --host says otherwise; the connection is not encrypted, so
    put a proxy with TLS in front of it on a network that you do not trust.
    """
    from vitsearch.web.settings import MEGABYTE, ServeSettings

    settings = ServeSettings(
        host=options["host"],
        port=options["port"],
        token=options["token"] or None,
        show_exif=options["show_exif"],
        hosts=options["hosts"],
        upload_bytes=options["upload_mb"] * MEGABYTE,
        thumbnail_bytes=options["thumbnails_mb"] * MEGABYTE,
    )
    settings.check()
    check_place(photos, options)
    run = _server()
    from vitsearch.web.service import PhotoService

    chosen = {name: options[name] for name in ("collection", "device", "root")}
    service = PhotoService.open(photos, settings=settings, **chosen)
    try:
        open_browser = options["open_browser"]
        run(
            service,
            settings,
            ready=lambda address: _announce(address, service.count(), settings.token, open_browser),
        )
    finally:
        service.close()
    print_note("vitsearch: stopped")
    return 0


def _server() -> Any:
    try:
        from vitsearch.web.app import serve as run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _PACKAGES:
            raise
        raise VitsearchError(
            f"the web page needs the package {error.name}: pip install 'vitsearch[web]'"
        ) from error
    return run


def _announce(address: str, photos: int, token: str | None, open_browser: bool) -> None:
    asks = " (asks for the token)" if token else ""
    print_note(f"vitsearch: {photos} photos at {address}{asks}; Ctrl-C stops")
    if open_browser:
        import webbrowser
        from urllib.parse import quote

        webbrowser.open(f"{address}?token={quote(token, safe='')}" if token else address)
