"""`pellucid open PATH`: a saved result again."""

from __future__ import annotations

from pathlib import Path

import typer

from pellucid.cli.common import Html, Json, hand_out


def open_(
    path: Path = typer.Argument(..., metavar="PATH", help="The folder that --save or `result.save` wrote."),
    json: bool = Json,
    html: Path | None = Html,
) -> None:
    """Show a saved result; needs neither the model nor torch."""
    import pellucid

    hand_out(pellucid.open(path), as_json=json, html=html)
