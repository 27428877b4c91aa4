"""`pellucid models`: the bundled models."""

from __future__ import annotations

from pellucid.cli.common import Json, print_json


def models(json: bool = Json) -> None:
    """List the bundled models and what is known about each."""
    import pellucid

    cards = [pellucid.zoo.card(name) for name in pellucid.zoo.names()]
    if json:
        print_json([{**card, "path": str(card["path"])} for card in cards])
        return
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False)
    for card in cards:
        console.print(f"[bold]zoo:{escape(card['name'])}[/bold]  {card['bytes'] / 1e6:.1f} MB on disk")
        console.print(f"{escape(card['text'].strip())}\n")
