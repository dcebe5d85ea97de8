"""`vitsearch serve` and `vitsearch agents`: a collection in the browser, over HTTP and for agents;
and the results of other commands as pictures, in the terminal or on that page.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vitsearch.cli.options import COLLECTION, INDEXED, LANGUAGE, MODEL, check_place, open_collection
from vitsearch.cli.output import print_note, printable
from vitsearch.errors import needing

if TYPE_CHECKING:
    import subprocess

    from vitsearch.types import Photo
    from vitsearch.web import ServeSettings

# as `vitsearch.outputs.pictures` names them, which loads what draws pictures
KINDS = ("kitty", "iterm2", "sixel", "blocks")
AUTO = "auto"
PREVIEW = click.option(
    "--preview",
    is_flag=False,
    flag_value=AUTO,
    type=click.Choice([AUTO, *KINDS]),
    metavar="[KIND]",
    help="Draw the photos in the terminal above their lines: as kitty, iterm2, sixel or blocks, or "
    "without KIND as the terminal can. Nothing is drawn where the output is no terminal.",
)
OPEN = click.option(
    "--open",
    "open_page",
    is_flag=True,
    help="Open these results on the page, of the `vitsearch serve` that runs for PHOTOS, or of one "
    "that is started and runs until Ctrl-C.",
)


def with_kind(arguments: Sequence[str]) -> list[str]:
    """Return the words of a command line in which what follows ``--preview`` is its kind only where
    it is one.
    """
    following = [*arguments[1:], ""]
    return [
        f"--preview={AUTO}" if word == "--preview" and after not in (AUTO, *KINDS) else word
        for word, after in zip(arguments, following, strict=False)
    ]


class Previewing(click.Command):
    """A command with `PREVIEW`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, with_kind(args))


def check_preview(options: Mapping[str, Any]) -> None:
    """Raise UsageError for forms of output in which no pictures are."""
    for_programs = (options.get(name) for name in ("only_paths", "as_json", "others"))
    if options["preview"] and any(for_programs):
        raise click.UsageError(
            "--preview draws above lines for people: leave out --json, --paths and --others",
            click.get_current_context(),
        )


def previews(
    kind: str | None,
    count: int,
    located: "Callable[[], tuple[Path, Sequence[str], Mapping[str, Photo]]]",
) -> Iterator[bytes]:
    """Yield what draws each of so many photos, with a line's end, b"" where nothing is to be drawn;
    ``located`` gives their root, their paths below it, and the indexed ones by path.
    """
    if not kind or not sys.stdout.isatty():
        yield from (b"" for _ in range(count))
        return
    from vitsearch.errors import PhotoError
    from vitsearch.outputs.pictures import (
        SIDE,
        device_attributes,
        drawn,
        kind_of_terminal,
        small_pictures,
    )

    chosen = kind_of_terminal(os.environ, device_attributes) if kind == AUTO else kind
    true_colour = os.environ.get("COLORTERM", "") in ("truecolor", "24bit")
    root, paths, photos = located()
    for picture in small_pictures(paths, root=root, photos=photos, side=SIDE):
        if isinstance(picture, PhotoError):
            yield f"({printable(str(picture))})\n".encode("utf-8", "backslashreplace")
        else:
            yield drawn(picture, chosen, true_colour=true_colour) + b"\n"


def open_results(photos: str, collection: str | None, address: str) -> None:
    """Open an address of the page of PHOTOS, such as ``/?q=cat``, in the browser; where no server
    of it runs, be one until Ctrl-C.
    """
    import webbrowser

    from vitsearch.web import page_at, running

    entrance = running(photos, collection)
    if entrance:
        webbrowser.open(page_at(entrance, address))
        print_note("vitsearch: opened on the page that is being served")
        return

    serve_results(photos, collection, address)


# -- serve -----------------------------------------------------------------------------------------


_PACKAGES = frozenset(
    ("fastapi", "starlette", "uvicorn", "jinja2", "pydantic", "multipart", "python_multipart")
)


@click.command()
@click.argument("photos", nargs=-1, metavar="[PHOTOS]...")
@COLLECTION
@MODEL
@LANGUAGE
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
    help="A secret of 16 characters or more that every client must give, or `generate` to have one "
    "made and printed; or set VITSEARCH_TOKEN.",
)
@click.option(
    "--watch",
    "is_followed",
    is_flag=True,
    help="Index PHOTOS where that is not done, and show what is added as it comes (`vitsearch "
    "watch`).",
)
@click.option("--open", "open_browser", is_flag=True, help="Open the page in the browser.")
@click.option(
    "--show-exif",
    is_flag=True,
    help="Show everybody when, where and with what camera photos were taken, not only the person "
    "who opens the address that is printed on this machine.",
)
@click.option(
    "--allow-edits",
    is_flag=True,
    help="Let everybody who gives the token change albums and labels and index photos, not only "
    "the person at this machine.",
)
@click.option(
    "--allow-delete",
    is_flag=True,
    help="Let them move copies of photos to the system's trash, from the view of duplicates and "
    "after a question (extra [trash]).",
)
@click.option(
    "--allow-host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="One more name of this server; may be repeated.",
)
@click.option(
    "--behind-proxy",
    metavar="URL",
    help="The address at which a proxy shows the page, such as https://photos.example: only that "
    "name is served, and cookies are for TLS only; see docs/web.md.",
)
@click.option(
    "--proxy-address",
    "proxies",
    multiple=True,
    metavar="ADDRESS",
    help="An address or network from which that proxy sends requests, this machine's unless given; "
    "X-Forwarded-For, -Proto and -Host are taken from there only. May be repeated.",
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
def serve(photos: tuple[str, ...], **options: Any) -> int:
    """Show PHOTOS on a web page, and answer programs over HTTP, until Ctrl-C or SIGTERM.

    PHOTOS is a folder of photos, or a collection in Milvus: milvus://HOST:PORT/NAME. A folder that
    is not indexed yet is indexed from the page. Several have a page each, one to switch between
    them, and a search in all that one model has indexed.

    The page is at http://127.0.0.1:8765/, the interface for programs is described at /api/docs. It
    listens on this machine only unless --host says otherwise. When and where photos were taken is
    shown only to who opens the address that is printed, with its key. The connection is not
    encrypted, so put a proxy with TLS in front of it on a network that you do not trust, and say so
    with --behind-proxy.
    """
    from vitsearch.web import LOOPBACK, MEGABYTE, ServeSettings, new_secret

    generated = new_secret() if options["token"] == "generate" else None
    if options["proxies"] and not options["behind_proxy"]:
        raise click.UsageError("--proxy-address goes with --behind-proxy URL")
    settings = ServeSettings(
        host=options["host"],
        port=options["port"],
        token=generated or options["token"] or None,
        show_exif=options["show_exif"],
        allow_edits=options["allow_edits"],
        allow_delete=options["allow_delete"],
        hosts=options["hosts"],
        behind_proxy=options["behind_proxy"],
        proxies=options["proxies"] or LOOPBACK,
        upload_bytes=options["upload_mb"] * MEGABYTE,
        thumbnail_bytes=options["thumbnails_mb"] * MEGABYTE,
    )
    settings.check()
    if settings.allow_delete:
        with needing(("send2trash",), "--allow-delete needs the package", "trash"):
            import send2trash  # noqa: F401  # before photos are indexed for it
    names = _names(photos, options)
    with needing(_PACKAGES, "the web page needs the package", "web"):
        import vitsearch.web.app  # noqa: F401
    for name in names if options["is_followed"] else ():
        _index_first(name, options["collection"])
    _run(names, options, settings, generated, "/" if options["open_browser"] else "")
    return 0


def serve_results(photos: str, collection: str | None, address: str) -> None:
    """Serve a collection on this machine at a free port and open an address of it in the browser,
    until Ctrl-C.
    """
    from vitsearch.web import ServeSettings

    options = {"collection": collection, "device": "auto", "root": None, "is_followed": False}
    _run([photos], options, ServeSettings(port=0), None, address)


def _run(
    names: Sequence[str],
    options: Mapping[str, Any],
    settings: "ServeSettings",
    generated: str | None,
    opened: str,
) -> None:
    """Serve until Ctrl-C; ``opened`` is the address to open in the browser, "" for none."""
    with needing(_PACKAGES, "the web page needs the package", "web"):
        from vitsearch.web import page_at, recorded
        from vitsearch.web.app import serve_app
        from vitsearch.web.several import Several
        from vitsearch.web.several_app import several_app
        from vitsearch.web.sites import Site
    from vitsearch.milvus import is_milvus

    chosen = {name: options[name] for name in ("collection", "device", "root")}
    site: Site | Several
    if len(names) == 1:
        site, paths = Site.of(names[0], **chosen), ["/"]
        start: Callable[[ServeSettings], Any] = site.start
    else:
        site = Several(names, device=options["device"])
        paths = [f"{member.path}/" for member in site.members]
        start = partial(several_app, site)
    followers: list[subprocess.Popen[bytes]] = []
    notes = ExitStack()

    def ready(address: str) -> None:
        for name, path in zip(names, paths, strict=True):
            if not is_milvus(name):
                page = page_at(address, path)
                notes.enter_context(recorded(name, options["collection"], page))
        _announce(address, site.content, settings, generated, opened)
        for name in names if options["is_followed"] else ():
            followers.append(_follow(name, options["collection"]))

    try:
        serve_app(start, settings, ready=ready)
    finally:
        notes.close()
        for follower in followers:
            follower.terminate()
            follower.wait()
        site.close()
    print_note("vitsearch: stopped")


def _names(photos: tuple[str, ...], options: Mapping[str, Any]) -> list[str]:
    """Return what is to be served, without a name the collection of the working folder or of one
    above it; raises UsageError for what does not go together.
    """
    from vitsearch.storage import collection_above

    names = list(dict.fromkeys(name.rstrip("/") or name for name in photos))
    names = names or [str(collection_above())]
    for name in names:
        check_place(name, options)
    for flag, value in (("--collection", "collection"), ("--photos", "root")):
        if len(names) > 1 and options[value]:
            raise click.UsageError(
                f"{flag} goes with one folder of photos", click.get_current_context()
            )
    return names


def _index_first(photos: str, collection: str | None) -> None:
    """Index a folder that has no collection yet."""
    from vitsearch.cli.output import ProgressBar
    from vitsearch.collection.update import index_folder
    from vitsearch.errors import CollectionNotFound
    from vitsearch.storage import collection_folder, photo_root, read_collection_config

    root = photo_root(photos)
    try:
        read_collection_config(collection_folder(root, collection), root)
    except CollectionNotFound:
        with ProgressBar() as bar:
            index_folder(root, collection=collection, progress=bar)


def _follow(photos: str, collection: str | None) -> "subprocess.Popen[bytes]":
    """Start `vitsearch watch` in a process of its own, so that answers do not wait for it; it ends
    with this one.
    """
    import subprocess
    import sys

    from vitsearch.untrusted import python_command

    command = python_command("from vitsearch.__main__ import main; main()")
    command += ["watch", photos, "--with-stdin"]
    command += ["--collection", collection] if collection else []
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=sys.stderr)


def _announce(
    address: str, content: str, settings: "ServeSettings", generated: str | None, opened: str
) -> None:
    asks = "asks for the token; " if settings.token else ""
    outside = f"for the proxy at {settings.behind_proxy}; " if settings.behind_proxy else ""
    # a space ends the address, so that terminals open no more than it
    print_note(f"vitsearch: {content} at {address} ({outside}{asks}Ctrl-C stops)")
    if generated:
        print_note(f"vitsearch: the token is {generated}")
    if opened:
        import webbrowser
        from urllib.parse import quote

        from vitsearch.web import page_at

        token, shown = settings.token, settings.behind_proxy or address
        if token:
            shown = f"{shown.partition('?')[0]}?token={quote(token, safe='')}"
        webbrowser.open(page_at(shown, opened))


_AGENT_PACKAGES = ("mcp", "mcp_types")


@click.command("mcp")
@INDEXED
@COLLECTION
@MODEL
@click.option("--write", "may_write", is_flag=True, help="Let the agent put photos into albums.")
def serve_agents(photos: str, may_write: bool, **options: Any) -> int:
    """Offer the collection of PHOTOS to an agent on standard input and output (Model Context
    Protocol).

    The agent can search, look at photos of the collection, label them, and list albums; it changes
    nothing unless --write is given, and photo files never. A client starts it by the command
    `vitsearch mcp PHOTOS`.
    """
    with needing(_AGENT_PACKAGES, "agents need the package", "mcp"):
        from vitsearch.agents import make_server
    with open_collection(photos, options) as collection:
        make_server(collection, may_write=may_write).run("stdio")
    return 0
