"""`pellucid methods`: what can be run, and which rows of the map it covers."""

from __future__ import annotations

from typing import Any

import typer

from pellucid.cli.common import Json, print_json


def methods(
    json: bool = Json,
    coverage: bool = typer.Option(False, "--coverage", help="List the rows of the map and what delivers each."),
) -> None:
    """List methods, metrics, studies and views."""
    from pellucid.core import catalogue

    if coverage:
        rows = catalogue.coverage()
        print_json(rows) if json else _show_coverage(rows)
        return
    found = [entry.as_dict() for entry in catalogue.entries()]
    print_json(found) if json else _show_methods(found)


def _show_methods(found: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("name", "what it does (what it takes; what it needs of a model)", box=None, header_style="bold")
    group = ""
    for entry in found:
        if group != f"{entry['kind']}s: {entry['family']}":
            group = f"{entry['kind']}s: {entry['family']}"
            table.add_row(f"[bold]{escape(group)}[/bold]")
        asks = "; ".join(filter(None, (entry["takes"], " ".join(entry["needs"]))))
        patent = f" [bold]Patent:[/bold] {escape(entry['patent'])}" if entry["patent"] else ""
        table.add_row(escape(entry["name"]), f"{escape(entry['summary'])} [dim]({escape(asks)})[/dim]{patent}")
    table.columns[0].no_wrap = True
    Console().print(table)
    typer.echo(f"{len(found)} in all; `pellucid run NAME --help` lists the options of one.")


def _show_coverage(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        state = ", ".join(row["delivered_by"]) or (f"not delivered: {row['reason']}" if row["reason"] else "-")
        typer.echo(f"{row['id']:<34} {row['technique'][:60]:<60} {state}")
    delivered = sum(bool(row["delivered_by"]) for row in rows)
    reasons = sum(bool(row["reason"]) and not row["delivered_by"] for row in rows)
    typer.echo(f"{delivered} of {len(rows)} rows delivered, {reasons} left out with a reason.")
