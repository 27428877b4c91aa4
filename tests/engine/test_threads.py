"""Two threads that explain different prompts with different edits on one model get what they get alone."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import pellucid
from pellucid import Edit
from pellucid.engine import store
from tests.state import changed, model_state
from tests.tiny import TINY


@pytest.mark.parametrize("rounds", [15, pytest.param(100, marks=pytest.mark.slow)])
def test_rounds_side_by_side(rounds: int) -> None:
    subject = pellucid.load(TINY["llama"]())
    before = model_state(subject.model)
    other = subject.with_(Edit("blocks.0.mlp.out", "scale", 0.5), Edit("blocks.1.attn.z", "zero", where={"head": 1}))
    jobs: list[tuple[str, pellucid.Subject, dict[str, Any]]] = [
        ("occlusion", subject, {"prompt": [11, 42, 7, 23, 64], "target": 3}),
        ("gradient_x_input", other, {"prompt": [5, 91, 33, 12], "target": 4}),
    ]
    alone = [pellucid.run(name, on, **arguments).scores for name, on, arguments in jobs]
    wrong: list[str] = []

    def work(number: int) -> None:
        name, on, arguments = jobs[number]
        for round_ in range(rounds):
            with store.unused():
                found = pellucid.run(name, on, **arguments).scores
            if not np.allclose(found, alone[number], atol=1e-6):
                wrong.append(f"{name} in round {round_}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert changed(before, model_state(subject.model)) == []
