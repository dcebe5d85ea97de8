"""A collection for agents, over the Model Context Protocol (modelcontextprotocol.io): search, like
photos, pictures, labels and albums as tools.
"""

import io
from collections.abc import Sequence
from functools import wraps
from typing import Any

from mcp.server.mcpserver import Image as PictureContent
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations
from PIL import Image

from vitsearch._version import __version__
from vitsearch.collection import Collection
from vitsearch.errors import VitsearchError
from vitsearch.storage.user_data import Album, album_named, put_album, writing
from vitsearch.types import Photo, SearchResult

MAX_RESULTS = 100
MAX_SIDE = 1024  # pixels of a picture that is handed over
SHOWN = 5  # photos of each label
INSTRUCTIONS = """\
A person's photos, searched by what they show. Names of photos are paths relative to their folder,
as `search` gives them. Words that say a date, place or camera filter. A score is a cosine; the
relevance is how likely the photo shows the words at all, from 0 to 1: below 0.1 nothing fits.
Captions are not stored: look at a photo with `photo` before you say what is on it."""

Facts = dict[str, Any]


class PhotoTools:
    """What an agent may do with a collection; each method is a tool, its docstring what the agent
    reads.
    """

    def __init__(self, collection: Collection) -> None:
        self._collection = collection

    def search(self, query: str, top_k: int = 10, where: str | None = None) -> list[Facts]:
        """Find photos by words, such as "a dog on the beach, summer 2020", best first.

        `where` is a filter: columns such as path, taken_at, camera, label, city or country with =,
        <, >, like, in, and, or, not; for example taken_at >= '2020-01-01' and camera like 'Canon%'.
        """
        return self._listed(self._collection.search(query, min(top_k, MAX_RESULTS), where=where))

    def similar(self, path: str, top_k: int = 10) -> list[Facts]:
        """Find photos that look like one of the collection, best first."""
        file = self._collection.root / self._photo(path).path
        return self._listed(self._collection.similar(file, min(top_k, MAX_RESULTS)))

    def photo(self, path: str) -> list[Any]:
        """Look at a photo: its picture, at most 1024 pixels wide and high, and its facts."""
        photo = self._photo(path)
        picture = self._collection.read_photo(self._collection.root / photo.path)
        return [_content(picture), _facts(photo)]

    def label(self, labels: list[str]) -> list[Facts]:
        """Tell for all photos which of some labels fits each best: how many photos each label has,
        and the five surest. Add a label such as "something else", since every photo gets one.
        """
        classes: dict[str, list[Facts]] = {name: [] for name in labels}
        for each in self._collection.label(labels):
            classes[each.label].append({"path": each.path, "probability": round(each.score, 3)})
        return [
            {
                "label": name,
                "photos": len(photos),
                "surest": sorted(photos, key=lambda row: -row["probability"])[:SHOWN],
            }
            for name, photos in classes.items()
        ]

    def albums(self) -> Facts:
        """List the albums with the paths of their photos, and the saved searches."""
        return self._collection.albums()

    def info(self) -> Facts:
        """Tell how many photos there are, of what dates, and by which model they are found."""
        return self._collection.info()

    def add_to_album(self, name: str, paths: list[str]) -> Facts:
        """Put photos at the end of an album, which is made where there is none of this name; photo
        files are not touched.
        """
        ids = [self._photo(path).photo_id for path in paths]
        with writing(self._collection.folder) as store:
            album = (album_named(store, name) or Album(name)).with_photos(ids)
            put_album(store, album)
        return {"album": name, "photos": len(album.ids)}

    # -- what they share ---------------------------------------------------------------------------

    def _photo(self, path: str) -> Photo:
        """Return a photo of the collection; raises ToolError for any other file."""
        photo = self._collection.queries.photo_of(self._collection.root / path)
        if photo is None:
            raise ToolError(f"{path} is not in the collection: name a path as `search` gives it")
        return photo

    def _listed(self, results: Sequence[SearchResult]) -> list[Facts]:
        rows = []
        for result in results:
            photo = self._collection.store.photo_at(result.stored_path)
            if photo is None:  # it has left the collection meanwhile
                continue
            row = _facts(photo) | {"score": round(result.score, 4)}
            if result.relevance is not None:
                row["relevance"] = round(result.relevance, 2)
            rows.append(row)
        return rows


def _facts(photo: Photo) -> Facts:
    """Return what is known of a photo, without what is not."""
    size = {"width": photo.info.width, "height": photo.info.height}
    label = {"label": photo.label} if photo.label else {}
    return {"path": photo.path, **photo.info.metadata, **size, **label}


def _content(picture: Image.Image) -> PictureContent:
    """Return a picture as a JPEG file within ``MAX_SIDE``."""
    buffer = io.BytesIO()
    picture.thumbnail((MAX_SIDE, MAX_SIDE))
    picture.save(buffer, "JPEG", quality=85)
    return PictureContent(data=buffer.getvalue(), format="jpeg")


def make_server(collection: Collection, *, may_write: bool = False) -> MCPServer[Any]:
    """Return the server of a collection's tools; ``may_write`` adds those that change albums."""
    tools = PhotoTools(collection)
    server: MCPServer[Any] = MCPServer("vitsearch", instructions=INSTRUCTIONS, version=__version__)
    reading = (
        tools.search,
        tools.similar,
        tools.photo,
        tools.label,
        tools.albums,
        tools.info,
    )
    for tool in reading:
        _add(server, tool, is_read_only=True)
    if may_write:
        _add(server, tools.add_to_album, is_read_only=False)
    return server


def _add(server: MCPServer[Any], tool: Any, *, is_read_only: bool) -> None:
    """Add a method as a tool whose known errors are one line for the agent."""

    @wraps(tool)
    def guarded(*values: Any, **named: Any) -> Any:
        try:
            return tool(*values, **named)
        except VitsearchError as error:
            raise ToolError(" ".join(str(error).split())) from error

    annotations = ToolAnnotations(read_only_hint=is_read_only, open_world_hint=False)
    server.tool(annotations=annotations, structured_output=False)(guarded)
