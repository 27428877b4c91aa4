"""`pellucid serve`: the web page and its API on this machine."""

from __future__ import annotations

import os
import secrets
import socket
import sys
from pathlib import Path

import typer

from pellucid.cli.common import DEFAULT_MODEL
from pellucid.core.errors import InputError, ResourceError, optional

BACKLOG = 512


def serve(
    model: list[str] = typer.Option(
        [DEFAULT_MODEL], "--model", metavar="MODEL", help="A Hugging Face name, a folder, or zoo:NAME; may be repeated."
    ),
    host: str = typer.Option("127.0.0.1", "--host", help="Where to listen; other than this machine needs --token."),
    port: int = typer.Option(8000, "--port", min=0, max=65535, help="0 takes any free one."),
    token: str = typer.Option("", "--token", help="What requests must carry; `auto` makes one and prints it."),
    allow_host: list[str] = typer.Option(
        [], "--allow-host", metavar="NAME", help="A further name by which browsers reach this server."
    ),
    store: str = typer.Option(
        "", "--store", metavar="FILE|URL", help="Where results go. Default: pellucid/web.db in the user's data folder."
    ),
    tensors: str | None = typer.Option(
        None, "--tensors", metavar="DIR", help="Where large arrays go, for a store that is no file."
    ),
    trust_remote_code: bool = typer.Option(
        False, "--trust-remote-code", help="Run code from the repositories of the models given here."
    ),
) -> None:
    """Open the page on which models are explained, and its API."""
    optional("fastapi", "web", "The web page")
    optional("uvicorn", "web", "The web page")
    optional("sqlalchemy", "store", "The web page, which keeps its results,")
    from pellucid.web.serving import serve as run
    from pellucid.web.settings import Settings, model_ids

    made = token == "auto"
    settings = Settings(
        models=model_ids(model),
        store=store or str(default_store()),
        folder=tensors,
        host=host,
        port=port,
        token=secrets.token_urlsafe(24) if made else token,
        names=tuple(allow_host),
        trust_remote_code=trust_remote_code,
    )
    with listening(host, port) as listener:
        name = f"[{host}]" if ":" in host else host
        query = f"/?token={settings.token}" if made else "/"
        typer.echo(f"pellucid is at http://{name}:{listener.getsockname()[1]}{query}")
        typer.echo(f"Its results go to {settings.store if '://' not in settings.store else 'the database given'}.")
        sys.stdout.flush()
        run(settings, listener)


def listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        InputError: the host is no name or address of this machine.
        ResourceError: the port is taken, or may not be used.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    except OSError as error:
        raise InputError(
            f"The server cannot listen on {host!r} ({error}); give a name or address of this machine."
        ) from None
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)  # from here on a browser waits for the first answer and is not refused
    except OSError as error:
        listener.close()
        raise ResourceError(
            f"The server cannot listen on port {port} of {host!r} ({error.strerror}); give another --port."
        ) from None
    return listener


def default_store() -> Path:
    """Return where results go by default: the folder that the system keeps for a user's data."""
    if sys.platform == "darwin":
        folder = Path.home() / "Library" / "Application Support"
    else:
        named = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_DATA_HOME", "")
        folder = Path(named) if named else Path.home() / ".local" / "share"
    return folder / "pellucid" / "web.db"
