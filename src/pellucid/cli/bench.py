"""`pellucid bench truth`: methods against models whose right explanation is known."""

from __future__ import annotations

import importlib
from pathlib import Path

import typer

from pellucid.cli.common import Html, Json, Save, hand_out, working
from pellucid.cli.run import HelpWhenBare

app = typer.Typer(cls=HelpWhenBare, help="Score methods against known answers.")


@app.callback()
def bench() -> None:
    """Score methods against known answers."""


@app.command("truth")
def truth(
    json: bool = Json,
    methods: str = typer.Option("", "--methods", metavar="A,B", help="Methods to score; default: all that can be."),
    models: str = typer.Option(
        "", "--models", metavar="A,B", help="Models such as truth/fact; default: all with an answer."
    ),
    prompts: int = typer.Option(16, "--prompts", min=0, help="Prompts per model; 0 takes all that are known."),
    seed: int = typer.Option(0, "--seed", help="Of the draw of prompts."),
    html: Path | None = Html,
    save: Path | None = Save,
) -> None:
    """Score every attribution and patching method on the constructed models of the zoo."""
    with working("Scoring methods"):
        from transformers.utils import logging

        logging.disable_progress_bar()
        bench = importlib.import_module("pellucid.evaluate.truth")
        table = bench.bench_truth(_names(methods), _names(models), seed=seed, prompts=prompts or None)
    if save is not None:
        table.save(save)
    if html is not None:
        table.html(html)
    if json:
        hand_out(table, as_json=True)
        return
    bench.brief(table).show()
    typer.echo("Over all models without redundant parts; --json, --html and --save have every model.")


def _names(text: str) -> list[str] | None:
    return [name.strip() for name in text.split(",") if name.strip()] or None
