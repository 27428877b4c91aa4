"""What a server was started with: its models, where it listens, where it keeps results, and its limits."""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from pellucid.core.errors import InputError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
EVERYWHERE = ("0.0.0.0", "::", "")
SHORTEST_TOKEN = 16


@dataclass(frozen=True)
class Settings:
    """The choices of whoever started the server; nothing in a request can change them.

    `models` maps the id of a model, which requests name, to what `pellucid.load` is given. `store` is a file or a
    database URL, `folder` the place of tensors where that is no file. Sizes are in bytes, prompts in characters.
    """

    models: dict[str, str]
    store: str
    folder: str | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    token: str = ""
    names: tuple[str, ...] = ()
    trust_remote_code: bool = False
    static: Path = field(default_factory=lambda: Path(__file__).parent / "static")
    longest_prompt: int = 200_000
    largest_body: int = 2_000_000
    largest_upload: int = 64_000_000
    most_waiting: int = 200
    patience: float = 5.0

    def __post_init__(self) -> None:
        """Refuse to be reachable by others without a token that cannot be guessed."""
        if self.host not in LOOPBACK and not self.token:
            raise InputError(
                f"The server was asked to listen on {self.host!r}, where other machines reach it, without an access "
                "token; pass --token, or leave --host out."
            )
        if self.token and (len(self.token) < SHORTEST_TOKEN or not re.fullmatch(r"[\x21-\x7e]+", self.token)):
            raise InputError(
                f"The access token has {len(self.token)} characters or a character that headers cannot carry; give at "
                f"least {SHORTEST_TOKEN} letters, digits or signs, or --token auto to have one made."
            )
        if not self.models:
            raise InputError("The server was given no model; pass --model, for example --model zoo:tiny-lm.")

    def serves(self, host: str) -> bool:
        """Say whether a Host header names this server: what DNS rebinding cannot forge.

        A page of a foreign name that is made to point here still sends its own name. Addresses are no names.
        """
        name = _without_port(host).lower()
        if name in (*LOOPBACK, self.host.lower(), *(n.lower() for n in self.names)):
            return bool(name)
        if self.host in EVERYWHERE:
            return name == socket.gethostname().lower() or _is_address(name)
        return False


def model_ids(names: Sequence[str]) -> dict[str, str]:
    """Return an id for each model name, in order: letters, digits, dots and hyphens, never a path.

    Raises:
        InputError: a name is given twice.
    """
    found: dict[str, str] = {}
    for name in names:
        if name in found.values():
            raise InputError(f"The model {name!r} was given twice; give each --model once.")
        own = Path(name).name if Path(name).is_absolute() or name.startswith((".", "~")) else name
        plain = re.sub(r"[^A-Za-z0-9.]+", "-", own).strip("-.") or "model"
        unique, count = plain, 2
        while unique in found:
            unique, count = f"{plain}-{count}", count + 1
        found[unique] = name
    return found


def _without_port(host: str) -> str:
    """Return the name in a Host header, or the empty string where it is none."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:/@]+))(?::\d*)?", host)
    return (match[1] or match[2]) if match else ""


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
