"""The wheel holds what a user needs beside the code, and no tests, caches or places of one machine."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
def test_the_wheel_is_complete(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
        ".",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = next(name for name in names if name.endswith(".dist-info/METADATA"))
        assert "Requires-Dist: torch" in archive.read(metadata).decode()
        entry_points = archive.read(metadata.replace("METADATA", "entry_points.txt")).decode()
    assert "pellucid = pellucid.cli:main" in entry_points
    assert {"pellucid/py.typed", "pellucid/core/map.json", "pellucid/cli/__init__.py"} <= names
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {
        Path(name).name for name in names if name.startswith("pellucid/zoo/models/tiny-lm/")
    }
    sources = {f"pellucid/{path.relative_to(ROOT / 'src' / 'pellucid')}" for path in (ROOT / "src").rglob("*.py")}
    assert sources <= names
    strange = [name for name in names if not name.startswith(("pellucid/", "pellucid-")) or "__pycache__" in name]
    assert strange == []
