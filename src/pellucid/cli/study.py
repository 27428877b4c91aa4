"""`pellucid study NAME`: one published experiment on a model, with its report."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from pellucid.cli import common, run
from pellucid.core.catalogue import ROOTS, Entry, entries
from pellucid.core.errors import InputError, did_you_mean

Out = typer.Option(None, "--out", metavar="DIR", help="Write DIR/report.html and the result to DIR/result.")


class Studies(run.HelpWhenBare):
    """A group with one command per study, made when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all studies."""
        return list(_studies())

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command of one study; raise `InputError` with the closest name when there is none."""
        known = _studies()
        if cmd_name not in known:
            listed = f"; there are {', '.join(known)}"
            raise InputError(f"There is no study {cmd_name!r}{did_you_mean(cmd_name, list(known)) or listed}.")
        one = typer.Typer(add_completion=False, rich_markup_mode=None)
        one.command(cmd_name, short_help=known[cmd_name].summary)(_command(known[cmd_name]))
        made = typer.main.get_command(one)
        made.name = cmd_name
        return made


app = typer.Typer(
    cls=Studies,
    rich_markup_mode=None,
    help="Run a published experiment; `pellucid study NAME --help` lists its options.",
)


@app.callback()
def study() -> None:
    """Run a published experiment; `pellucid study NAME --help` lists its options."""


def _studies() -> dict[str, Entry]:
    return {entry.name: entry for entry in entries() if entry.kind == ROOTS["studies"]}


def _command(entry: Entry) -> Callable[..., None]:
    """Return the function behind `pellucid study <entry>`, with one option per parameter of the study."""
    own = [parameter for parameter in entry.parameters if parameter["name"] != "subject"]

    def call(**values: Any) -> None:
        given = {p["name"]: values.pop(p["name"]) for p in own}
        _execute(entry, {name: value for name, value in given.items() if value is not None}, **values)

    options = {p["name"]: run._option(p) for p in own}
    options |= {"model": (str, common.Model), "out": (Path | None, Out), "json": (bool, common.Json)}
    call.__signature__ = inspect.Signature([  # type: ignore[attr-defined]
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in options.items()
    ])  # fmt: skip
    call.__annotations__ = {name: kind for name, (kind, _) in options.items()}
    call.__doc__ = f"{entry.summary}\n\nPaper: {entry.paper}. A list may be a file: @names.txt, one entry a line."
    return call


def _execute(entry: Entry, own: dict[str, Any], *, model: str, out: Path | None, json: bool) -> None:
    """Run a study and hand out its result."""
    import pellucid
    from pellucid.core.metadata import annotations_of
    from pellucid.methods import function

    with common.working(f"Reading {entry.name}"):
        types = annotations_of(function(entry.name))
    lists = {parameter["name"] for parameter in entry.parameters if parameter["kind"] == "list"}
    values: dict[str, Any] = {
        name: _lines(value[1:])
        if name in lists and value.startswith("@")
        else run.value_of(value, types.get(name, str), False)
        for name, value in own.items()
    }
    subject = common.load_subject(model)
    with common.working(f"Running {entry.name}", batches=True):
        result = pellucid.run(entry.name, subject, **values)
    save, page = (None, None) if out is None else (out / "result", out / "report.html")
    common.hand_out(result, as_json=json, html=page, save=save)


def _lines(path: str) -> list[Any]:
    """Return the lines of a file, or its JSON where it holds a list."""
    text = common.read_text(None, Path(path))
    found = common.parse_json(text, path) if text.lstrip().startswith("[") else text.splitlines()
    return [item for item in found if item]
