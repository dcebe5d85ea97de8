"""A collection as tools for agents: what they are answered, and that they change nothing unless
they may.
"""

import asyncio
import base64
import io
import json
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from helpers.cli import environment
from helpers.lazy import library
from vitsearch import Collection
from vitsearch.encoders.colour import ColourEncoder

mcp = library("mcp")
agents = library("vitsearch.agents")
READING = ["albums", "info", "label", "photo", "search", "similar"]


def asked(
    photos: Path,
    questions: Callable[[Any], Coroutine[Any, Any, Any]],
    *,
    may_write: bool = False,
) -> Any:
    """Return what a client's questions to a server of the photos come to."""

    async def run(collection: Collection) -> Any:
        async with mcp.Client(agents.make_server(collection, may_write=may_write)) as client:
            return await questions(client)

    with Collection.open(photos, encoder=ColourEncoder()) as opened:
        return asyncio.run(run(opened))


async def rows(client: Any, tool: str, **values: object) -> Any:
    """Return the rows of a tool's answer."""
    answer = await client.call_tool(tool, values)
    assert not answer.is_error, answer.content
    return [json.loads(part.text) for part in answer.content if part.type == "text"]


def test_tools_are_read_only_unless_writing_is_allowed(indexed: Path) -> None:
    async def names(client: Any) -> dict[str, bool]:
        tools = (await client.list_tools()).tools
        return {tool.name: tool.annotations.read_only_hint for tool in tools}

    assert asked(indexed, names) == dict.fromkeys(READING, True)
    assert asked(indexed, names, may_write=True) == {
        **dict.fromkeys(READING, True),
        "add_to_album": False,
    }


def test_photos_are_found_and_looked_at(indexed: Path) -> None:
    async def questions(client: Any) -> Any:
        red = await rows(client, "search", query="red", top_k=2)
        like = await rows(client, "similar", path="red.png", top_k=1)
        where = await rows(client, "search", query="red", where="path like 'sub/%'")
        photo = await client.call_tool("photo", {"path": "red.png"})
        return red, like, where, photo.content

    red, like, where, content = asked(indexed, questions)
    assert len(red) == 2
    assert red[0]["path"] == "red.png"
    assert red[0]["score"] > red[1]["score"]
    assert like[0]["path"] != "red.png"
    assert [row["path"] for row in where] == ["sub/blue.png"]
    picture, facts = content
    with Image.open(io.BytesIO(base64.b64decode(picture.data))) as shown:
        assert (shown.format, picture.mime_type) == ("JPEG", "image/jpeg")
        with Image.open(indexed / "red.png") as original:
            assert shown.size == original.size
    assert json.loads(facts.text)["path"] == "red.png"


def test_labels_and_info(indexed: Path) -> None:
    async def questions(client: Any) -> Any:
        return await rows(client, "label", labels=["red", "green"]), await rows(client, "info")

    labels, (info,) = asked(indexed, questions)
    assert {row["label"] for row in labels} == {"red", "green"}
    assert sum(row["photos"] for row in labels) == info["photos"] == 4
    assert labels[0]["surest"][0]["path"] == "red.png"


def test_albums_are_filled_where_writing_is_allowed(indexed: Path) -> None:
    async def questions(client: Any) -> Any:
        await rows(client, "add_to_album", name="Warm", paths=["red.png", "yellow.png"])
        again = await rows(client, "add_to_album", name="Warm", paths=["red.png", "sub/blue.png"])
        return again, await rows(client, "albums")

    again, (albums,) = asked(indexed, questions, may_write=True)
    assert again == [{"album": "Warm", "photos": 3}]
    assert albums["albums"] == [
        {"name": "Warm", "photos": ["red.png", "yellow.png", "sub/blue.png"]}
    ]


@pytest.mark.parametrize(
    "path", ["../secret.png", "/etc/passwd", "none.png", "red.png/../none", ""]
)
def test_other_files_are_not_shown(indexed: Path, path: str) -> None:
    (indexed.parent / "secret.png").write_bytes((indexed / "red.png").read_bytes())

    async def question(client: Any) -> Any:
        return await client.call_tool("photo", {"path": path})

    answer = asked(indexed, question)
    assert answer.is_error
    assert "is not in the collection: name a path as `search` gives it" in answer.content[0].text


def test_a_query_that_cannot_be_read_says_why(indexed: Path) -> None:
    async def question(client: Any) -> Any:
        return await client.call_tool("search", {"query": "red", "where": "pth = 'a'"})

    answer = asked(indexed, question)
    assert answer.is_error
    assert "pth" in answer.content[0].text


@pytest.mark.slow
def test_the_command_answers_on_standard_output(indexed: Path) -> None:
    server = mcp.StdioServerParameters(
        command=sys.executable,
        args=["-m", "vitsearch", "mcp", str(indexed)],
        env=environment(),
    )

    async def run() -> Any:
        async with mcp.Client(server) as client:
            return await rows(client, "search", query="blue", top_k=1)

    assert [row["path"] for row in asyncio.run(run())] == ["sub/blue.png"]
