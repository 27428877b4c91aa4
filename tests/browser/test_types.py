"""The page's types are those of the API: generated, and equal to what is committed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.browser.conftest import ROOT

pytestmark = pytest.mark.browser
FRONTEND = ROOT / "frontend"


def _run(*command: str) -> None:
    if shutil.which("node") is None or not (FRONTEND / "node_modules").is_dir():
        pytest.skip("Node or its packages are absent; run npm --prefix frontend ci")
    done = subprocess.run(command, cwd=FRONTEND, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_types_are_those_of_the_document(tmp_path: Path) -> None:
    fresh = tmp_path / "api.d.ts"
    _run("npx", "--no-install", "openapi-typescript", "openapi.json", "--output", str(fresh), "--alphabetize")
    committed = (FRONTEND / "src" / "api.d.ts").read_text()
    assert fresh.read_text() == committed, "run npm --prefix frontend run types"


def test_the_page_passes_the_type_checker() -> None:
    _run("npx", "--no-install", "tsc", "--noEmit")


def test_the_colours_are_those_of_exported_files() -> None:
    from pellucid.render.colours import DARK, LIGHT, hexadecimal

    sheet = (FRONTEND / "src" / "style.css").read_text()
    light, dark = sheet.split("@media (prefers-color-scheme:dark)", 1)
    for part, palette in ((light, LIGHT), (dark.split("}", 2)[0], DARK)):
        for name, rgb in vars(palette).items():
            assert f"--{name}:{hexadecimal(rgb)}" in part, name


def test_nothing_but_preact_runs_on_the_page() -> None:
    import json

    package = json.loads((FRONTEND / "package.json").read_text())
    assert set(package["dependencies"]) == {"preact", "@preact/signals"}
