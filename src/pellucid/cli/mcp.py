"""`pellucid mcp`: an MCP server on standard input and output, for assistants."""

from __future__ import annotations

import typer

from pellucid.cli.common import DEFAULT_MODEL
from pellucid.cli.runs import Place, Tensors
from pellucid.core.errors import optional


def mcp(
    model: list[str] = typer.Option(
        [DEFAULT_MODEL], "--model", metavar="MODEL", help="A Hugging Face name, a folder, or zoo:NAME; may be repeated."
    ),
    store: str | None = Place,
    tensors: str | None = Tensors,
    longest: int = typer.Option(20_000, "--longest", min=1, help="How many characters a text may have."),
    tokens: int = typer.Option(2_000, "--tokens", min=1, help="How many tokens a prompt may have."),
    seconds: float = typer.Option(300.0, "--seconds", min=1, help="The time that an explanation may take."),
    trust_remote_code: bool = typer.Option(
        False, "--trust-remote-code", help="Run code from the repositories of the models given here."
    ),
) -> None:
    """Serve explanations to assistants by the Model Context Protocol, on standard input and output."""
    optional("mcp", "mcp", "The MCP server")
    optional("sqlalchemy", "store", "The MCP server, which keeps its results,")
    from pellucid.store import Store, place
    from pellucid.web.mcp import server
    from pellucid.web.mcp_service import Limits, Service
    from pellucid.web.settings import model_ids

    with Store.open(*place(store, tensors)) as opened:
        limits = Limits(longest, tokens, seconds)
        server(Service(model_ids(model), opened, limits, trust_remote_code)).run("stdio")
