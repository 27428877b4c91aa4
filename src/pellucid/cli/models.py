"""`pellucid models`: the bundled models."""

from __future__ import annotations

from typing import Annotated

import typer

from pellucid.cli.common import Json, print_json


def models(
    name: Annotated[str, typer.Argument(help="A bundled model, to read its whole card.")] = "", json: bool = Json
) -> None:
    """List the bundled models, or show the card of one."""
    import pellucid

    wanted = [name.removeprefix("zoo:")] if name else pellucid.zoo.names()
    cards = [pellucid.zoo.card(one) for one in wanted]
    if json:
        print_json([{**card, "path": str(card["path"])} for card in cards])
        return
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False)
    for card in cards:
        console.print(f"[bold]zoo:{escape(card['name'])}[/bold]  {card['bytes'] / 1e6:.2f} MB on disk")
        console.print(f"{escape(card['text'].strip() if name else '  ' + _first(card['text']))}\n")


def _first(text: str) -> str:
    """Return the first sentence below a card's title."""
    body = " ".join(line for line in text.split("\n\n")[1].splitlines())
    return body.split(". ")[0].rstrip(".") + "."
