"""The contract of attention methods that take more than a prompt: finite on every architecture, nothing changed.

`make test` runs it on five shapes, `make test-all` on every architecture.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import CapabilityError, SiteError
from pellucid.core.results import Examples
from tests.state import changed, model_state
from tests.test_contract import EVERYWHERE, IDS, numbers, subject

PROMPTS = [IDS, [42, 7, 11, 64, 23, 5, 9], [8, 3, 23, 17]]
RELATIONS = [{"prompt": IDS, "relations": [(0, 2, "r"), (2, 1, "r"), (3, 0, "s")]}]
CALLS: dict[str, Callable[[pellucid.Subject], Any]] = {
    "at2_heads": lambda on: pellucid.run("at2_heads", on, prompts=PROMPTS, target=1, samples=8, held_out=4, length=2),
    "attention_change": lambda on: pellucid.run("attention_change", [on, on], prompt=IDS),
    "embedding_neighbours": lambda on: pellucid.run("embedding_neighbours", on, corpus=PROMPTS, prompt=IDS),
    "head_relations": lambda on: pellucid.run("head_relations", on, examples=RELATIONS, unit="token"),
    "query_key_map": lambda on: pellucid.run("query_key_map", on, prompts=PROMPTS),
}


@pytest.mark.parametrize("shape", EVERYWHERE)
@pytest.mark.parametrize("name", CALLS)
def test_gives_finite_numbers_and_changes_nothing(name: str, shape: str) -> None:
    on = subject(shape)
    before, random = model_state(on.model), torch.get_rng_state()
    try:
        result = CALLS[name](on)
    except (CapabilityError, SiteError) as error:
        pytest.skip(str(error))
    assert changed(before, model_state(on.model)) == []
    assert torch.equal(random, torch.get_rng_state())
    found = result.values if isinstance(result, Examples) else numbers(result)
    assert np.asarray(found).size > 0
    assert np.isfinite(found).all()
    assert result.provenance.method == name
