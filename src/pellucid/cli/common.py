"""What the commands share: reading the prompt, showing progress, handing out the result."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from pellucid.core.errors import FileError, InputError

DEFAULT_MODEL = "zoo:tiny-lm"

Model = typer.Option(DEFAULT_MODEL, "--model", metavar="MODEL", help="A Hugging Face name, a folder, or zoo:NAME.")
Text = typer.Argument(None, metavar="TEXT", help="The prompt; - or nothing reads standard input.", show_default=False)
File = typer.Option(None, "--file", metavar="FILE", help="Read the prompt from a UTF-8 file.")
Chat = typer.Option(False, "--chat", help='The prompt is JSON: [{"role": "user", "content": "..."}, ...].')
Budget = typer.Option(None, "--budget", metavar="SECONDS", help="The time that may be spent.", show_default=False)
Json = typer.Option(False, "--json", help="Print one JSON document and nothing else.")
Html = typer.Option(None, "--html", metavar="FILE", help="Write one self-contained page.")
Save = typer.Option(None, "--save", metavar="DIR", help="Save the result; `pellucid open DIR` shows it again.")


def read_text(text: str | None, file: Path | None) -> str:
    """Return the text that was given as an argument, in a file or on standard input, without a final line break."""
    if text not in (None, "-") and file is not None:
        raise InputError("Both TEXT and --file were given; give one of them.")
    if file is not None:
        try:
            return file.read_text(encoding="utf-8").removesuffix("\n")
        except OSError as error:
            raise FileError(
                f"The file {str(file)!r} cannot be read ({error.strerror or error}); check its path."
            ) from None
        except UnicodeDecodeError as error:
            raise FileError(
                f"The file {str(file)!r} is not UTF-8 text ({error.reason} at byte {error.start})."
            ) from None
    if text not in (None, "-"):
        return str(text)
    if text is None and sys.stdin.isatty():
        raise InputError("No prompt was given; pass TEXT, --file FILE, or text on standard input.")
    try:
        return sys.stdin.read().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"Standard input is not UTF-8 text ({error.reason} at byte {error.start}).") from None


def as_prompt(text: str, chat: bool) -> Any:
    """Return the prompt that a text stands for: itself, or the chat messages that it holds as JSON."""
    if not chat:
        return text
    messages = parse_json(text, "--chat")
    if not isinstance(messages, list) or not all(
        isinstance(m, dict) and {"role", "content"} <= set(m) for m in messages
    ):
        raise InputError('--chat needs a JSON list of messages such as {"role": "user", "content": "Hello"}.')
    return messages


def parse_json(text: str, what: str) -> Any:
    """Parse JSON, or lines of JSON; raise `InputError` naming `what` it was for."""
    try:
        return json.loads(text)
    except ValueError as error:
        with contextlib.suppress(ValueError):
            lines = [json.loads(line) for line in text.splitlines() if line.strip()]
            if len(lines) > 1:
                return lines
        raise InputError(f"{what} needs JSON, but what was given does not parse: {error}.") from None


@contextlib.contextmanager
def working(what: str, *, batches: bool = False) -> Iterator[None]:
    """Show on standard error that work goes on, where that is a terminal; what libraries print goes there, too.

    `batches` shows how many rows of the current engine call are done (this imports the engine).
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        if console.is_terminal:
            columns = (
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
            )
            bar = stack.enter_context(Progress(*columns, console=console, transient=True))
            task = bar.add_task(what, total=None)
            if batches:
                from pellucid.engine.planning import controlled

                stack.enter_context(controlled(lambda done, total: bar.update(task, completed=done, total=total)))
        yield


SMALL = 5_000_000  # weights; below this a second thread makes a forward slower


def load_subject(model: str) -> Any:
    """Load a model, with progress in this program's own form only."""
    with working(f"Loading {model}"):
        import pellucid

        load = pellucid.load
        if "transformers" in sys.modules:
            from huggingface_hub.utils import disable_progress_bars
            from transformers.utils import logging

            logging.disable_progress_bar()
            if not sys.stderr.isatty():
                disable_progress_bars()
        import torch

        # Loading proves the layout on a few tokens: products too short to share, where waiting threads only cost.
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        subject = load(model)
        live = getattr(subject, "model", None)
        if live is None or sum(p.numel() for p in live.parameters()) >= SMALL:
            torch.set_num_threads(threads)
        return subject


def hand_out(result: Any, *, as_json: bool, html: Path | None = None, save: Path | None = None) -> None:
    """Save, write and print a result, in this order, so that what is printed last is all done."""
    written: list[str] = []
    if save is not None:
        written.append(f"Saved to {result.save(save)}")
    if html is not None:
        result.html(html)
        written.append(f"Page written to {html.resolve()}")
    if as_json:
        from pellucid.core.jsonable import as_json as document

        print_json(document(result))
    else:
        result.show()
        for line in written:
            typer.echo(line)


def print_json(document: Any) -> None:
    """Print one JSON document in ASCII, which every terminal and pipe carries."""
    typer.echo(json.dumps(document, allow_nan=False))
