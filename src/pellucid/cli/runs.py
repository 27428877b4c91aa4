"""`pellucid runs`: what was saved in the store, found, read, annotated, carried away and forgotten."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pellucid.cli.common import Html, Json, Save, hand_out, print_json
from pellucid.cli.run import HelpWhenBare
from pellucid.core.errors import InputError

if TYPE_CHECKING:
    from pellucid.store import Saved, Store

Place = typer.Option(None, "--store", metavar="FILE|URL", help="The store; $PELLUCID_STORE, or the user's own.")
Tensors = typer.Option(None, "--tensors", metavar="DIR", help="The folder of tensors of a store that is no file.")
Number = typer.Argument(..., metavar="NUMBER", help="The number of a result; `pellucid runs list` shows them.")
Limit = typer.Option(20, "--limit", min=1, max=10_000, help="How many results.")
Before = typer.Option(None, "--before", metavar="NUMBER", help="The page after the one that ended with NUMBER.")
UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
SPANS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}

app = typer.Typer(cls=HelpWhenBare, rich_markup_mode=None, help="Find, read, annotate and forget what was saved.")


@app.callback()
def runs() -> None:
    """Find, read, annotate and forget what was saved."""


@app.command("list")
def list_(
    limit: int = Limit,
    before: int | None = Before,
    store: str | None = Place,
    tensors: str | None = Tensors,
    json: bool = Json,
) -> None:
    """List saved results, newest first."""
    with _opened(store, tensors) as opened:
        _print(opened.search(limit=limit, before=before), limit, json)


@app.command()
def search(
    text: str | None = typer.Argument(None, metavar="TEXT", help="A part of the title or the prompt, in any case."),
    method: str | None = typer.Option(None, "--method", help="A method's name."),
    model: str | None = typer.Option(None, "--model", help="A model's name."),
    run: str | None = typer.Option(None, "--run", help="The name of the run."),
    tag: str | None = typer.Option(None, "--tag", help="A tag."),
    note: str | None = typer.Option(None, "--note", help="A part of the note."),
    since: str | None = typer.Option(None, "--since", metavar="DATE|30d", help="Saved at this time or later."),
    until: str | None = typer.Option(None, "--until", metavar="DATE|30d", help="Saved before this time."),
    limit: int = Limit,
    before: int | None = Before,
    store: str | None = Place,
    tensors: str | None = Tensors,
    json: bool = Json,
) -> None:
    """Find saved results by all that is given, newest first."""
    with _opened(store, tensors) as opened:
        found = opened.search(
            text=text, method=method, model=model, run=run, tag=tag, note=note, limit=limit, before=before,
            since=since and _moment(since), until=until and _moment(until),
        )  # fmt: skip
    _print(found, limit, json)


@app.command()
def show(
    number: int = Number,
    store: str | None = Place,
    tensors: str | None = Tensors,
    json: bool = Json,
    html: Path | None = Html,
    save: Path | None = Save,
) -> None:
    """Show a saved result; needs neither the model nor torch."""
    with _opened(store, tensors) as opened:
        saved, result = opened.saved(number), opened.get(number)
    hand_out(result, as_json=json, html=html, save=save)
    if not json and (saved.note or saved.tags):
        typer.echo(f"Note: {_plain(saved.note)}" if saved.note else "", nl=bool(saved.note))
        typer.echo(f"Tags: {_plain(', '.join(saved.tags))}" if saved.tags else "", nl=bool(saved.tags))


@app.command()
def note(
    number: int = Number,
    text: str | None = typer.Argument(None, metavar="TEXT", help='The note, in place of the old one; "" removes it.'),
    tag: list[str] = typer.Option([], "--tag", help="Add a tag; may be given several times."),
    untag: list[str] = typer.Option([], "--untag", help="Take a tag away."),
    store: str | None = Place,
    tensors: str | None = Tensors,
    json: bool = Json,
) -> None:
    """Write a note or tags on a saved result, which retention then spares."""
    if text is None and not tag and not untag:
        raise InputError("Nothing was given to note; give TEXT, --tag or --untag.")
    with _opened(store, tensors) as opened:
        saved = opened.annotate(number, note=text, tags=tag, untag=untag)
    if json:
        print_json(asdict(saved))
    else:
        typer.echo(f"Result {number}: {_plain(saved.note) or 'no note'} [{_plain(', '.join(saved.tags)) or 'no tags'}]")


@app.command()
def export(
    path: Path = typer.Argument(..., metavar="PATH", help="A file NAME.zip, or a new folder."),
    numbers: list[int] | None = typer.Argument(None, metavar="[NUMBER]...", help="Results; all without any."),
    store: str | None = Place,
    tensors: str | None = Tensors,
) -> None:
    """Write saved results and what is known about them to one zip file or a folder."""
    with _opened(store, tensors) as opened:
        count = opened.export(path, numbers or None)
    typer.echo(f"Wrote {count} results to {path}; `pellucid runs import` reads them into another store.")


@app.command("import")
def import_(
    path: Path = typer.Argument(..., metavar="PATH", help="What `pellucid runs export` wrote."),
    store: str | None = Place,
    tensors: str | None = Tensors,
) -> None:
    """Read exported results into the store; what is there already stays as it is."""
    with _opened(store, tensors) as opened:
        count = opened.bring(path)
    typer.echo(f"Read {count} new results from {path}.")


@app.command()
def keep(
    newest: int | None = typer.Option(None, "--newest", metavar="N", min=0, help="Keep the N newest runs."),
    newer_than: str | None = typer.Option(None, "--newer-than", metavar="DATE|30d", help="Keep what is newer."),
    size: str | None = typer.Option(None, "--size", metavar="2GB", help="Keep the newest that fit in this size."),
    annotated: bool = typer.Option(False, "--annotated", help="Forget what has a note or a tag, too."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only say what would be forgotten."),
    store: str | None = Place,
    tensors: str | None = Tensors,
    json: bool = Json,
) -> None:
    """Forget finished runs that any of the rules does not keep; notes and tags protect a run."""
    with _opened(store, tensors) as opened:
        gone = opened.keep(
            newest=newest, since=newer_than and _moment(newer_than), size=None if size is None else _bytes(size),
            annotated=annotated, dry=dry_run,
        )  # fmt: skip
    if json:
        print_json(asdict(gone))
    else:
        would = "Would forget" if dry_run else "Forgot"
        typer.echo(f"{would} {gone.runs} runs with {gone.results} results, about {gone.bytes / 1e6:.1f} MB.")


@contextmanager
def _opened(store: str | None, tensors: str | None) -> Iterator[Store]:
    from pellucid.store import Store, place

    with Store.open(*place(store, tensors)) as opened:
        yield opened


def _print(found: Sequence[Saved], limit: int, json: bool) -> None:
    if json:
        print_json([asdict(saved) for saved in found])
        return
    if not found:
        typer.echo("No results.")
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("number", "saved", "model", "method", "text", "note", box=None, header_style="bold")
    for saved in found:
        note = " ".join([_plain(saved.note, 40), *(f"#{_plain(tag)}" for tag in saved.tags)]).strip()
        moment = datetime.fromisoformat(saved.saved).astimezone().strftime("%Y-%m-%d %H:%M")
        method = ", ".join(saved.methods) or saved.name
        cells = (str(saved.number), moment, saved.model, method, _plain(saved.text, 60), note)
        table.add_row(*(escape(_plain(cell)) for cell in cells))
    Console(highlight=False).print(table)
    if len(found) == limit:
        typer.echo(f"There may be more: --before {found[-1].number} shows the next page.")


def _plain(text: str, longest: int = 2000) -> str:
    """Return text on one line that a terminal shows and never obeys."""
    from pellucid.render.words import visible

    line = visible(" ".join(text.split()))
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def _moment(text: str) -> datetime | str:
    """Return the moment that "30d" (ago) or a date stands for."""
    found = re.fullmatch(r"(\d{1,5})([hdw])", text)
    return datetime.now(UTC) - int(found[1]) * SPANS[found[2]] if found else text


def _bytes(text: str) -> int:
    """Return the number of bytes that "500MB" or "1.5 GB" stands for."""
    found: Any = re.fullmatch(r"(\d{1,15}(?:\.\d+)?)\s*([KMGT]?B)?", text.strip().upper())
    if found is None:
        raise InputError(f"--size was given {text!r}; write a size such as 500MB or 2GB.")
    return int(float(found[1]) * UNITS[found[2] or "B"])
