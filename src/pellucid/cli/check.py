"""`pellucid check MODEL`: the proofs of a layout and the exactness of the engine, on the user's own model."""

from __future__ import annotations

import importlib
from pathlib import Path

import typer

from pellucid.cli.common import Html, Json, Save, hand_out, load_subject, working


def check(
    model: str = typer.Argument(..., metavar="MODEL", help="A Hugging Face name, a folder, or zoo:NAME."),
    json: bool = Json,
    html: Path | None = Html,
    save: Path | None = Save,
) -> None:
    """Prove that pellucid reads a model rightly; leaves with status 1 when a check fails."""
    subject = load_subject(model)
    with working(f"Checking {model}", batches=True):
        table = importlib.import_module("pellucid.engine.check").check(subject)
    hand_out(table, as_json=json, html=html, save=save)
    if "ok" in table.columns and not all(row[table.columns.index("ok")] for row in table.rows):
        raise typer.Exit(1)
