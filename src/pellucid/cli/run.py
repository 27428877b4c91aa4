"""`pellucid run METHOD`: one method, its options made from its signature without importing it."""

from __future__ import annotations

import inspect
import json as jsonlib
import typing
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from pellucid.cli import common
from pellucid.core.catalogue import Entry, entries
from pellucid.core.errors import InputError
from pellucid.core.params import Named, PromptLike, parse_text
from pellucid.core.results import KINDS

INEXPRESSIBLE = {"function", "Pair", "Edit", "Units", "Tokens", "Generator", "Subject"}
OPTIONS: dict[str, tuple[Any, Any]] = {
    "model": (str, common.Model),
    "file": (Path | None, common.File),
    "chat": (bool, common.Chat),
    "preset": (
        str,
        typer.Option("", "--preset", metavar="PEER", help="The conventions of another toolkit, e.g. captum."),
    ),
    "budget": (float | None, common.Budget),
    "estimate": (
        bool,
        typer.Option(False, "--estimate", help="Say what the run would take, and do not run it."),
    ),
    "json": (bool, common.Json),
    "html": (Path | None, common.Html),
    "save": (Path | None, common.Save),
}

ONLY_WITH_INPUT = ("model", "file", "chat", "preset", "budget", "estimate")


class HelpWhenBare(TyperGroup):
    """A group that shows its help when it is called without a command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read `--help` where nothing was given."""
        return super().parse_args(ctx, args or ["--help"])


class Methods(HelpWhenBare):
    """A group with one command per method, made when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all methods, metrics and studies."""
        return [entry.name for entry in entries() if entry.kind != "view"]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command of one method; raise `InputError` with the closest name when there is none."""
        from pellucid.methods import find

        one = typer.Typer(add_completion=False, rich_markup_mode=None)
        entry = find(cmd_name)
        one.command(cmd_name, short_help=entry.summary)(command(entry))
        made = typer.main.get_command(one)
        made.name = cmd_name
        return made


app = typer.Typer(
    cls=Methods, rich_markup_mode=None, help="Run one method; `pellucid run METHOD --help` lists its options."
)


@app.callback()
def run() -> None:
    """Run one method; `pellucid run METHOD --help` lists its options."""


def command(entry: Entry) -> Callable[..., None]:
    """Return the function behind `pellucid run <entry>`, with one option per parameter of the method."""
    given = _split(entry)[2]

    def call(**values: Any) -> None:
        own = {p["name"]: values.pop(p["name"]) for p in given}
        execute(entry, {name: value for name, value in own.items() if value is not None}, **values)

    options = {p["name"]: _option(p) for p in given}
    if _split(entry)[1]:
        options["text"] = (str | None, common.Text)
    wanted = options | {name: pair for name, pair in OPTIONS.items() if entry.parameters and name not in options}
    if "text" not in options:
        kept = {"model"} if _split(entry)[0] else set[str]()
        wanted = {name: pair for name, pair in wanted.items() if name in kept or name not in ONLY_WITH_INPUT}
    parameters = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in wanted.items()
    ]
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {name: kind for name, (kind, _) in wanted.items()}
    cost = f" Cost: {entry.cost}, with F a row forward and B a row backward." if entry.cost else ""
    call.__doc__ = f"{entry.summary}\n\nPaper: {entry.paper or 'none'}.{cost}"
    return call


def _split(entry: Entry) -> tuple[str, str, list[dict[str, Any]]]:
    """Return the names of the subject and of the input ("" where the method has none), and the other parameters."""
    own = [
        p for p in entry.parameters if p["required"] or p["kind"] not in INEXPRESSIBLE or set(p["also"]) - INEXPRESSIBLE
    ]
    if own and own[0]["name"] == "subject":
        given = len(own) > 1 and not own[1]["keyword"]  # what reads weights alone has options only
        return ("subject", own[1]["name"], own[2:]) if given else ("subject", "", own[1:])
    return "", "", own


def _option(parameter: dict[str, Any]) -> tuple[Any, Any]:
    flag = "--" + parameter["name"].replace("_", "-")
    default = parameter["default"]
    stands = "" if parameter["required"] or default is None else f" Default: {default}."
    help_ = f"{parameter['doc'] or parameter['words']}{'' if parameter['doc'].endswith('.') else '.'}{stands}"
    if parameter["kind"] == "bool":
        return bool | None, typer.Option(None, f"{flag}/--no-{flag[2:]}", help=help_, show_default=False)
    metavar = _metavar(parameter)
    if parameter["required"]:
        return str, typer.Option(..., flag, metavar=metavar, help=help_)
    return str | None, typer.Option(None, flag, metavar=metavar, help=help_, show_default=False)


def _metavar(parameter: dict[str, Any]) -> str:
    """Return what stands for the value of an option, such as `zero|mean|INT` or `TEXT|id:N`."""
    choices = [str(choice) for choice in parameter["choices"]]
    kinds = [kind for kind in [*([] if choices else [parameter["kind"]]), *parameter["also"]] if kind != "function"]
    if "text" in kinds:
        return "TEXT|id:N" if "int" in kinds else "TEXT"
    return "|".join([*choices, *(kind.upper() for kind in kinds)])


def execute(
    entry: Entry,
    own: dict[str, Any],
    *,
    text: str | None = None,
    model: str = common.DEFAULT_MODEL,
    file: Path | None = None,
    chat: bool = False,
    preset: str = "",
    budget: float | None = None,
    estimate: bool = False,
    json: bool = False,
    html: Path | None = None,
    save: Path | None = None,
) -> None:
    """Run a method on what the command line gave, and hand out its result."""
    import pellucid
    from pellucid.methods import function

    subject_name, input_name, _ = _split(entry)
    if entry.takes == "models" and not subject_name:
        raise InputError(
            f"{entry.name} compares several models, which the command line cannot give; call it from Python."
        )
    positional: list[Any] = []
    if input_name:
        content = common.read_text(text, file)
        plain = entry.takes in ("prompt", "pair")
        positional.append(common.as_prompt(content, chat) if plain else common.parse_json(content, entry.name))
    with common.working(f"Reading {entry.name}"):
        types = _annotations(function(entry.name))
        values = {name: value_of(value, types.get(name, str), chat) for name, value in own.items()}
    if subject_name:
        positional.insert(0, common.load_subject(model))
    if estimate:
        from pellucid.methods import estimate as estimated

        with common.working(f"Measuring {model}"):
            found = estimated(entry.name, *positional, preset=preset, **values)
        typer.echo(jsonlib.dumps(asdict(found)) if json else f"{entry.name} would take about {found}.")
        return
    with common.working(f"Running {entry.name}", batches=bool(subject_name)):
        if subject_name:
            result = pellucid.run(entry.name, *positional, preset=preset, budget=budget, **values)
        else:
            result = function(entry.name)(**values)
    common.hand_out(result, as_json=json, html=html, save=save)


def _annotations(called: Callable[..., Any]) -> Any:
    from pellucid.core.metadata import annotations_of

    return annotations_of(called)


def value_of(value: Any, annotation: Any, chat: bool) -> Any:
    """Turn the text of an option into the value that an annotation asks for; a saved result is given by its folder."""
    if not isinstance(value, str):
        return value
    if annotation == PromptLike:
        return common.as_prompt(value, chat)
    if _is_result(annotation):
        import pellucid

        return pellucid.open(value)
    inner = typing.get_args(annotation)
    if inner and _is_result(inner[0]):
        import pellucid

        return [pellucid.open(path) for path in value.split(",")]
    return parse_text(value, annotation)


def _is_result(annotation: Any) -> bool:
    members = annotation if isinstance(annotation, tuple) else (annotation,)
    return any(isinstance(member, Named) and member.name in (*KINDS, "Result") for member in members)
