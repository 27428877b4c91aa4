"""The card that stands beside a bundled model: what it is, how it was made, what it was measured to do."""

import json
from pathlib import Path


def write(folder: Path, measured: dict[str, dict[str, object]], run: dict[str, object]) -> None:
    """Write capabilities.json and card.md into the model's folder."""
    rounded = {name: {key: round(v, 4) if isinstance(v, float) else v for key, v in row.items()} for name, row in measured.items()}
    content = {"training": run, "tasks": rounded}
    (folder / "capabilities.json").write_text(json.dumps(content, indent=2) + "\n")
