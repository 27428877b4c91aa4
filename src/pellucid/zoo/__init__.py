"""Small bundled models: where they are, and what is known about them. Importing this needs no torch."""

import difflib
import json
from math import prod
from pathlib import Path
from typing import Any

from pellucid.core.errors import InputError

_MODELS = Path(__file__).parent / "models"


class UnknownModelError(InputError):
    """Say that no bundled model has the name asked for."""


def names() -> list[str]:
    """Return the names of the bundled models, sorted."""
    return sorted(file.parent.relative_to(_MODELS).as_posix() for file in _MODELS.rglob("config.json"))


def path(name: str) -> Path:
    """Return the folder of a bundled model, as `from_pretrained` takes it."""
    known = names()
    if name in known:
        return _MODELS / name
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}."
    raise UnknownModelError(f"The zoo has no model named {name!r}; {hint}")


def card(name: str) -> dict[str, Any]:
    """Return what is known about a bundled model.

    Keys: `name`, `path`, `bytes` on disk, `parameters` (a count), `architecture`, `known` (sentences: what there is to
    compare a method with), `text`, the card itself; and where the model was trained `training` (minutes, steps, seed)
    and `tasks` (per task accuracy, mean probability of the right answer, chance level, number of prompts).
    """
    folder = path(name)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    measured = _json(folder / "capabilities.json")
    return {
        "name": name,
        "path": folder,
        "bytes": sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
        "parameters": _weights(folder / "model.safetensors"),
        "architecture": config["architectures"][0],
        "known": _known(name, measured, _json(folder / "answer.json")),
        **measured,
        "text": (folder / "card.md").read_text(encoding="utf-8"),
    }


def _json(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return found


def _weights(file: Path) -> int:
    """Count the weights by the header of the file, so that no tensor is read."""
    with file.open("rb") as opened:
        header = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
    return sum(prod(tensor["shape"]) for key, tensor in header.items() if key != "__metadata__")


def _known(name: str, measured: dict[str, Any], answer: dict[str, Any]) -> list[str]:
    """Say in sentences what is known."""
    found = []
    if measured:
        count, training = len(measured["tasks"]), measured["training"]
        found.append(f"trained in {training['processor_minutes']} processor minutes, seed {training['seed']}")
        found.append(f"{count} tasks measured; again: pellucid check zoo:{name} --capabilities")
    if answer:
        parts = [part for part in (*answer.get("heads", ()), *answer.get("neurons", ())) if part["relevant"]]
        inner = f", {len(answer['pairs'])} pairs and {len(parts)} inner part(s)" if answer["pairs"] else ""
        asked = "which words matter in" if not inner else "the right explanation of"
        found.append(f"{asked} {len(answer['prompts'])} prompts{inner}; scored by: pellucid bench truth")
    return found
