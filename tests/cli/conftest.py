from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner

import pellucid
import pellucid.methods
from pellucid.cli.app import app
from pellucid.core import catalogue
from tests.cli import stubs


class Cli:
    """Call the command line in this process."""

    def __init__(self) -> None:
        self.status, self.out, self.err = 0, "", ""

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        done = CliRunner().invoke(app, list(arguments), input=stdin)
        self.status, self.out, self.err = done.exit_code, done.stdout, done.stderr
        return self.out


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """A command line with a stub model, a stub `explain`, stub checks, and one method named `example`."""
    folder = tmp_path / "package" / "pellucid" / "methods" / "family"
    folder.mkdir(parents=True)
    (folder / "example.py").write_text(stubs.METHOD, encoding="utf-8")
    monkeypatch.setattr(catalogue, "PACKAGE", folder.parent.parent)
    monkeypatch.setattr(catalogue, "VIEWS", folder / "absent.json")
    monkeypatch.setattr(pellucid.methods, "function", _function(folder / "example.py"))
    monkeypatch.setitem(pellucid.__dict__, "load", stubs.Subject)
    monkeypatch.setitem(pellucid.__dict__, "explain", stubs.explanation)
    check = ModuleType("pellucid.engine.check")
    check.__dict__["check"] = stubs.checks
    monkeypatch.setitem(sys.modules, "pellucid.engine.check", check)
    monkeypatch.chdir(tmp_path)
    return Cli()


def _function(path: Path):
    def function(name: str):
        pellucid.methods.find(name)
        space: dict[str, object] = {"Subject": object, "__name__": "planted"}
        exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), space)
        return space[name]

    return function
