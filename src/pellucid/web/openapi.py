"""The OpenAPI document of the server: `python -m pellucid.web.openapi` prints it, without starting anything."""

from __future__ import annotations

import json
import sys
from typing import Any

from pellucid.web.app import make_app
from pellucid.web.settings import Settings


def document() -> dict[str, Any]:
    """Return the OpenAPI document."""
    return make_app(Settings(models={"model": "zoo:tiny-lm"}, store=":memory:")).openapi()


if __name__ == "__main__":
    sys.stdout.write(json.dumps(document(), indent=1, sort_keys=True) + "\n")
