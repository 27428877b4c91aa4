"""Models whose weights are written down instead of trained, so that the right explanation is known.

One file per model; `python -m pellucid.zoo.truth.build` makes them all. `answer` reads what is known about one; it
needs no torch.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

from pellucid.zoo.truth._program import Program

FOLDER = Path(__file__).parent.parent / "models" / "truth"


def names() -> list[str]:
    """Return the names of the constructed models, as in `zoo:truth/NAME`, sorted."""
    return sorted(
        path.stem.replace("_", "-") for path in Path(__file__).parent.glob("[!_]*.py") if path.stem != "build"
    )


def program(name: str) -> Program:
    """Return the program that a constructed model was made from."""
    found = importlib.import_module(f"{__name__}.{name.replace('-', '_')}").PROGRAM
    assert isinstance(found, Program)
    return found


def answer(name: str) -> dict[str, Any]:
    """Return the known answer of a constructed model, as it ships beside the weights (see docs/truth.md)."""
    known: dict[str, Any] = json.loads((FOLDER / name / "answer.json").read_text(encoding="utf-8"))
    return known
