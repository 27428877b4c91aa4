"""`pellucid models`: the bundled models and those that were downloaded, with what is known about each."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated, Any

import typer

from pellucid.cli.common import Json, print_json


def models(
    name: Annotated[str, typer.Argument(help="A bundled or downloaded model, to read its whole card.")] = "",
    json: bool = Json,
) -> None:
    """List the bundled models and those in the local cache of the hub, or show the card of one."""
    import pellucid

    plain = name.removeprefix("zoo:")
    loaded = downloaded()
    if name and plain not in pellucid.zoo.names() and any(card["name"] == name for card in loaded):
        cards = [card for card in loaded if card["name"] == name]
    else:
        cards = [pellucid.zoo.card(one) for one in ([plain] if name else pellucid.zoo.names())]
        cards += [] if name else loaded
    if json:
        print_json([{**card, "path": str(card["path"])} for card in cards])
        return
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False)
    for card in cards:
        prefix = "" if card.get("downloaded") else "zoo:"
        facts = [_size(card["bytes"]), card.get("architecture", "")]
        if card.get("parameters"):
            facts.append(f"{card['parameters']:,} weights")
        console.print(f"[bold]{prefix}{escape(card['name'])}[/bold]  {escape(', '.join(filter(None, facts)))}")
        console.print(f"{escape(card['text'].strip() if name else '  ' + first(card['text']))}")
        for sentence in card.get("known", ()):
            console.print(f"  [dim]{escape(sentence)}[/dim]")
        console.print()


def downloaded() -> list[dict[str, Any]]:
    """Return one card per model in the local cache of the hub, sorted by name; keys as in `pellucid.zoo.card`."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repos = [repo for repo in scan_cache_dir().repos if repo.repo_type == "model"]
    except (CacheNotFound, ValueError):
        return []
    cards = []
    for repo in sorted(repos, key=lambda repo: repo.repo_id):
        folder = max(repo.revisions, key=lambda revision: revision.last_modified).snapshot_path
        cards.append(_card(repo.repo_id, folder, repo.size_on_disk))
    return cards


def _card(name: str, folder: Path, size: int) -> dict[str, Any]:
    config, readme = folder / "config.json", folder / "README.md"
    described = jsonlib.loads(config.read_text(encoding="utf-8")) if config.exists() else {}
    kind = described.get("model_type", "")
    return {
        "name": name, "path": folder, "bytes": size, "downloaded": True,
        "architecture": (described.get("architectures") or [""])[0], "known": [_layout(kind)] if kind else [],
        "text": readme.read_text(encoding="utf-8") if readme.exists() else "Its card was not downloaded.",
    }  # fmt: skip


def _layout(kind: str) -> str:
    from pellucid.models.layout import known_types

    if kind in known_types():
        return f"pellucid knows where the parts of {kind} are; proved when it is loaded"
    return f"the parts of {kind} are guessed and proved when it is loaded"


def _size(count: int) -> str:
    return f"{count / 1e6:.2f} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"


def first(text: str) -> str:
    """Return the first sentence of a card below its title; front matter is skipped."""
    if text.startswith("---\n"):
        text = text.partition("\n---\n")[2]
    paragraphs = [part.strip() for part in text.split("\n\n") if part.strip() and not part.lstrip().startswith("#")]
    body = " ".join(paragraphs[0].split()) if paragraphs else text.strip()
    return body.split(". ")[0].rstrip(".") + "."
