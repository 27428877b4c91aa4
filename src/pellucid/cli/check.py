"""`pellucid check MODEL`: a layout proved, the engine's exactness, or what a zoo model can do, on the model at hand."""

from __future__ import annotations

import importlib
from pathlib import Path

import typer

from pellucid.cli.common import Html, Json, Save, hand_out, load_subject, working
from pellucid.core.errors import InputError


def check(
    model: str = typer.Argument(..., metavar="MODEL", help="A Hugging Face name, a folder, or zoo:NAME."),
    capabilities: bool = typer.Option(
        False, "--capabilities", help="Measure what a trained model of the zoo can do, beside its card."
    ),
    seed: int | None = typer.Option(None, "--seed", help="With --capabilities: of the prompts.", show_default=False),
    prompts: int = typer.Option(200, "--prompts", min=1, help="With --capabilities: prompts per task."),
    json: bool = Json,
    html: Path | None = Html,
    save: Path | None = Save,
) -> None:
    """Prove that pellucid reads a model rightly; leaves with status 1 when a check fails."""
    if seed is not None and not capabilities:
        raise InputError("--seed belongs to --capabilities; the other checks draw nothing.")
    subject = load_subject(model)
    with working(f"Checking {model}", batches=True):
        if capabilities:
            measured = importlib.import_module("pellucid.zoo.measured")
            table = measured.capability_table(subject, seed=measured.SEED if seed is None else seed, prompts=prompts)
        else:
            table = importlib.import_module("pellucid.engine.check").check(subject)
    hand_out(table, as_json=json, html=html, save=save)
    failed = "ok" in table.columns and not all(row[table.columns.index("ok")] for row in table.rows)
    if failed or any(evidence.ok is False for evidence in table.evidence):
        raise typer.Exit(1)
