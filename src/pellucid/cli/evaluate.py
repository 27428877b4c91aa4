"""`pellucid evaluate`: several methods judged by several metrics over a data set, in one resumable run."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer

from pellucid.cli.common import Html, Json, Model, hand_out, load_subject, working
from pellucid.cli.run import value_of
from pellucid.core.errors import InputError
from pellucid.core.params import Measure, Replacement, Unit, check, parse_text

LINE_SECONDS = 10.0


def evaluate(
    data: Path = typer.Option(
        ..., "--data", metavar="FILE", help="csv, tsv, jsonl, json, parquet, or a folder of the datasets library."
    ),
    methods: str = typer.Option(..., "--methods", metavar="A,B", help="Methods that give one score per unit."),
    metrics: str = typer.Option(..., "--metrics", metavar="X,Y", help="Metrics that judge one prompt."),
    model: str = Model,
    record: Path | None = typer.Option(
        None, "--record", metavar="FILE", help="Where the run is kept; default: FILE.evaluation in this folder."
    ),
    column: list[str] = typer.Option(
        [], "--column", metavar="FIELD=NAME", help="The column of text, pair, label, rationale or target."
    ),
    limit: int | None = typer.Option(None, "--limit", min=1, help="Take the first so many examples."),
    explain: str = typer.Option("predicted", "--explain", metavar="predicted|label", help="What is explained."),
    generate: int = typer.Option(0, "--generate", metavar="N", min=0, help="Explain N generated tokens."),
    measure: str = typer.Option("auto", "--measure", metavar="auto|logit|log_prob|prob", help="In which measure."),
    unit: str = typer.Option("token", "--unit", help="token, word, sentence, line or message."),
    replacement: str | None = typer.Option(None, "--replacement", help="How units are removed: mask, delete, ..."),
    orders: int = typer.Option(5, "--orders", min=0, help="Random orders that metrics compare with."),
    seed: int = typer.Option(0, "--seed", help="The seed of everything random."),
    setting: list[str] = typer.Option(
        [], "--set", metavar="NAME.PARAMETER=VALUE", help="A parameter of one method or metric."
    ),
    language_model: str | None = typer.Option(
        None, "--language-model", metavar="MODEL", help="For removal_perplexity, where MODEL is none."
    ),
    workers: int = typer.Option(1, "--workers", min=1, help="Processes that share out the examples (Linux, CPU)."),
    tests: bool = typer.Option(False, "--tests", help="Print the tests between all pairs of methods, too."),
    json: bool = Json,
    html: Path | None = Html,
    save: Path | None = typer.Option(None, "--save", metavar="DIR", help="Save the table with its intervals."),
) -> None:
    """Judge several methods by several metrics over a data set; the same command goes on after any interruption."""
    named, given = dict(_split(word, "=", "--column text=sentence") for word in column), _settings(setting)
    check("evaluate", {"measure": Measure}, {"measure": measure})
    kept = Path(f"{data.name}.evaluation") if record is None else record
    subject = load_subject(model)
    other = None if language_model is None else load_subject(language_model)
    with _watched(f"{data.name}, kept in {kept}") as watch:
        from pellucid import evaluate_dataset

        found = evaluate_dataset(
            subject, data, methods=methods.split(","), metrics=metrics.split(","), record=kept, columns=named,
            limit=limit, explain=explain, generate=generate, measure=measure, unit=parse_text(unit, Unit),
            replacement=None if replacement is None else parse_text(replacement, Replacement), orders=orders,
            seed=seed, settings=given, language_model=other, workers=workers, progress=watch,
        )  # fmt: skip
    table = found.table() if json else found.brief()
    if html is not None:
        with working("Writing the page"):
            found.html(html)
        typer.echo(f"Page written to {html.resolve()}", err=True)
    if save is not None:
        typer.echo(f"Saved to {found.save(save)}", err=True)
    hand_out(table, as_json=json)
    if tests and not json:
        hand_out(found.significance(), as_json=False)


def _settings(words: list[str]) -> dict[str, dict[str, Any]]:
    """Return the parameters that `--set` gives, by the name of their method or metric."""
    from pellucid.core.catalogue import find_entry

    given: dict[str, dict[str, Any]] = {}
    for word in words:
        name, value = _split(word, "=", "--set lime.samples=64")
        owner, parameter = _split(name, ".", "--set lime.samples=64")
        known = find_entry(owner) is not None
        given.setdefault(owner, {})[parameter] = _value(owner, parameter, value) if known else value
    return given


def _split(word: str, sign: str, example: str) -> tuple[str, str]:
    left, found, right = word.partition(sign)
    if not found or not left or not right:
        raise InputError(f"{word!r} has no {sign!r} between two parts; write for example {example}.")
    return left, right


def _value(owner: str, parameter: str, text: str) -> Any:
    """Return the value that an option's text stands for in the eyes of a method; unknown names are refused later."""
    from pellucid.core.metadata import annotations_of
    from pellucid.methods import function

    with working(f"Reading {owner}"):
        annotation = annotations_of(function(owner)).get(parameter, str)
    return value_of(text, annotation, False)


@contextlib.contextmanager
def _watched(what: str) -> Iterator[Callable[[int, int, float], None]]:
    """Yield what shows progress: a bar on a terminal, else a line on standard error now and then."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

    console = Console(stderr=True)
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        if not console.is_terminal:
            last = [time.monotonic()]

            def line(done: int, total: int, left: float) -> None:
                if time.monotonic() - last[0] >= LINE_SECONDS or done == total:
                    last[0] = time.monotonic()
                    sys.stderr.write(f"{done} of {total} done, about {duration(left)} left ({what})\n")

            yield line
            return
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                   TextColumn("{task.fields[left]}"))  # fmt: skip
        bar = stack.enter_context(Progress(*columns, console=console, transient=True))
        task = bar.add_task(what, total=None, left="")

        def move(done: int, total: int, left: float) -> None:
            bar.update(task, completed=done, total=total, left=f"about {duration(left)} left")

        yield move


def duration(seconds: float) -> str:
    """Return seconds as "45 s", "3 min 20 s" or "2 h 5 min"."""
    if math.isnan(seconds):
        return "an unknown time"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
