"""The application: its commands, and how errors leave it."""

from __future__ import annotations

import sys
from typing import Any

import typer

from pellucid.cli import bench, check, evaluate, explain, mcp, methods, models, run, runs, serve, study
from pellucid.cli import open as open_
from pellucid.core.errors import PellucidError


class OneLineErrors(run.HelpWhenBare):
    """A group whose errors are one line on standard error and exit status 2; `--debug` anywhere shows the traceback."""

    def main(  # pyright: ignore[reportIncompatibleMethodOverride] - further arguments are passed on
        self, args: Any = None, prog_name: str | None = None, standalone_mode: bool = True, **extra: Any
    ) -> Any:
        """Run with `args` (default: the process's own) and leave with the exit status."""
        given = list(sys.argv[1:] if args is None else args)
        ours = given[: given.index("--")] if "--" in given else given
        debug = "--debug" in ours
        given = [word for word in ours if word != "--debug"] + given[len(ours) :]
        try:
            done = super().main(given, prog_name="pellucid", standalone_mode=False, **extra)
            status = done if isinstance(done, int) else 0
        except (KeyboardInterrupt, typer.Abort):
            status = 130
        except Exception as error:
            if debug:
                raise
            sys.stderr.write(f"pellucid: {one_line(error)}\n")
            status = 2
        if status == 130:
            sys.stderr.write("pellucid: stopped; nothing half-written is left.\n")
        if standalone_mode:
            sys.exit(status)
        return status


def one_line(error: Exception) -> str:
    """Return what an error says on one line; one that was not foreseen is named, with the way to see more."""
    usage = getattr(error, "format_message", None)
    text = " ".join((usage() if usage else str(error)).split())
    if usage or isinstance(error, PellucidError):
        return text
    return f"unexpected {type(error).__name__}: {text[:300]}; run again with --debug to see where."


app = typer.Typer(cls=OneLineErrors, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


def _version(asked: bool) -> bool:
    if asked:
        from pellucid import __version__

        typer.echo(f"pellucid {__version__}")
        raise typer.Exit
    return asked


@app.callback()
def pellucid(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and leave."
    ),
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error; may stand anywhere."),
) -> None:
    """Explain transformer language models, with the evidence beside each explanation."""


app.command("explain")(explain.explain)
app.command("evaluate")(evaluate.evaluate)
app.command("methods")(methods.methods)
app.command("models")(models.models)
app.command("check")(check.check)
app.command("open")(open_.open_)
app.command("serve")(serve.serve)
app.command("mcp")(mcp.mcp)
app.add_typer(run.app, name="run")
app.add_typer(runs.app, name="runs")
app.add_typer(bench.app, name="bench")
app.add_typer(study.app, name="study")
