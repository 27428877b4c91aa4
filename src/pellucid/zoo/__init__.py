"""Small bundled models: where they are, and what is known about them. Importing this needs no torch."""

import difflib
import json
from pathlib import Path
from typing import Any

_MODELS = Path(__file__).parent / "models"


class UnknownModelError(ValueError):
    """Say that no bundled model has the name asked for."""


def names() -> list[str]:
    """Return the names of the bundled models, sorted."""
    return sorted(file.parent.relative_to(_MODELS).as_posix() for file in _MODELS.rglob("config.json"))


def path(name: str) -> Path:
    """Return the folder of a bundled model, as `AutoModelForCausalLM.from_pretrained` takes it."""
    known = names()
    if name in known:
        return _MODELS / name
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}."
    raise UnknownModelError(f"The zoo has no model named {name!r}; {hint}")


def card(name: str) -> dict[str, Any]:
    """Return what is known about a bundled model.

    Keys: `name`, `path`, `bytes` on disk, `parameters` (a count), `training` (minutes, steps, seed), `tasks` (per task
    accuracy, mean probability of the right answer, chance level, number of prompts) and `text`, the card itself.
    """
    folder = path(name)
    measured = folder / "capabilities.json"  # the constructed models ship their answer instead
    known = json.loads(measured.read_text(encoding="utf-8")) if measured.exists() else {}
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return {
        "name": name,
        "path": folder,
        "bytes": size,
        **known,
        "text": (folder / "card.md").read_text(encoding="utf-8"),
    }
