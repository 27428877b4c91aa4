"""Memory that runs out once, on the way back of the first gradient."""

from __future__ import annotations

import pytest
import torch

from pellucid.core.errors import ResourceError
from pellucid.engine import gradients


def short_once(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let memory run out on the first way back; the list counts all of them."""
    own, tries = gradients.backward, list[int]()

    def short(*args: torch.Tensor) -> torch.Tensor:
        tries.append(1)
        if len(tries) == 1:
            raise ResourceError("The model ran out of memory on 1 row; use a smaller batch.")
        return own(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(gradients, "backward", short)
    return tries
