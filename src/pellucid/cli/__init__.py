"""The command line: `pellucid explain`, `evaluate`, `run`, `methods`, `models`, `check`, `bench` and `open`."""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, 2 for an error, 130 when stopped by the user."""
    from pellucid.cli.app import app

    try:
        app(args=list(arguments) if arguments is not None else None, prog_name="pellucid")
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 0
    return 0
