"""`pellucid explain`: several methods and their evidence for one question."""

from __future__ import annotations

from pathlib import Path

import typer

from pellucid.cli.common import (
    Budget,
    Chat,
    File,
    Html,
    Json,
    Model,
    Save,
    Text,
    as_prompt,
    hand_out,
    load_subject,
    read_text,
    working,
)
from pellucid.core.errors import InputError
from pellucid.core.params import TargetLike, Unit, parse_text


def explain(
    text: str | None = Text,
    model: str = Model,
    method: str = typer.Option("auto", "--method", metavar="A,B", help="Methods by name, or auto."),
    target: str | None = typer.Option(
        None, "--target", help="What to explain: a text, or id:N for a token id or class."
    ),
    contrast: str | None = typer.Option(None, "--contrast", help="Rather than what: a text, or id:N."),
    generate: int = typer.Option(0, "--generate", metavar="N", min=0, help="Explain N generated tokens."),
    unit: str = typer.Option("token", "--unit", help="token, word, sentence, line, message, or [[start, end], ...]."),
    budget: float | None = Budget,
    seed: int = typer.Option(0, "--seed", help="The seed of everything random."),
    file: Path | None = File,
    chat: bool = Chat,
    json: bool = Json,
    html: Path | None = Html,
    save: Path | None = Save,
) -> None:
    """Explain why a model answers a prompt as it does."""
    import pellucid
    from pellucid.methods import find

    prompt = as_prompt(read_text(text, file), chat)
    chosen: str | list[str] = (
        "auto" if method == "auto" else [name.strip() for name in method.split(",") if name.strip()]
    )
    if not chosen:
        raise InputError("--method was given no name; pass names such as integrated_gradients,occlusion, or auto.")
    for name in chosen if isinstance(chosen, list) else ():
        find(name)
    subject = load_subject(model)
    with working("Explaining", batches=True):
        explanation = pellucid.explain(
            subject,
            prompt,
            target=None if target is None else parse_text(target, TargetLike),
            contrast=None if contrast is None else parse_text(contrast, TargetLike),
            methods=chosen,
            unit=parse_text(unit, Unit),
            generate=generate,
            budget=budget,
            seed=seed,
        )
    hand_out(explanation, as_json=json, html=html, save=save)
