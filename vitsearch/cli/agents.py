"""`vitsearch mcp`: a collection for agents, over the Model Context Protocol."""

from typing import Any

import click

from vitsearch.cli.options import COLLECTION, INDEXED, MODEL, open_collection
from vitsearch.errors import needing

_PACKAGES = ("mcp", "mcp_types")


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
    with needing(_PACKAGES, "agents need the package", "mcp"):
        from vitsearch.agents import make_server
    with open_collection(photos, options) as collection:
        make_server(collection, may_write=may_write).run("stdio")
    return 0
