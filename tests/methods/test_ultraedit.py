"""UltraEdit against its formula, with keys and gradients taken by plain hooks of torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pellucid
from pellucid.core.errors import InputError
from pellucid.core.facts import Fact

SUBJECT = pellucid.load("zoo:tiny-lm")
FACTS = [Fact("The capital of {} is", "Japan", "Vienna"), Fact("{} lives in", "Mary Vargas", "Stockholm"),
         Fact("The capital of {} is called", "Norway", "Beirut", "Oslo")]  # fmt: skip


def plain_factors(layer: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what enters the matrix at the last token of each prompt, and the gradient at what leaves it."""
    module = SUBJECT.model.model.layers[layer].mlp.down_proj
    keys, gradients = [], []
    for fact in FACTS:
        ids = list(SUBJECT.encode(fact.text).ids)
        [target] = SUBJECT.encode(fact.text + fact.continuation).ids[len(ids) :]
        held: dict[str, torch.Tensor] = {}

        def look(_: object, args: tuple[torch.Tensor], out: torch.Tensor, held: dict[str, torch.Tensor] = held) -> None:
            held["key"] = args[0].detach()[0, -1]
            out.retain_grad()
            held["out"] = out

        handle = module.register_forward_hook(look)
        torch.nn.functional.cross_entropy(
            SUBJECT.model(torch.tensor([ids])).logits[:, -1], torch.tensor([target])
        ).backward()
        handle.remove()
        assert held["out"].grad is not None
        keys.append(held["key"].double().numpy())
        gradients.append(held["out"].grad[0, -1].double().numpy())
    SUBJECT.model.zero_grad()
    return np.stack(keys), np.stack(gradients)


def test_the_change_is_the_solution_of_the_least_squares_problem() -> None:
    edit = pellucid.run("ultraedit", SUBJECT, FACTS, layers=[2], rate=0.7, ridge=2.0, neutral=["Mary lives"])
    keys, gradients = plain_factors(2)
    normal_keys, normal = ((x - x.mean(0)) / x.std(0) for x in (keys, gradients))
    shifts = -0.7 * (normal_keys**2).mean(1, keepdims=True) * normal
    wanted = np.linalg.solve(keys.T @ keys + 2.0 * np.eye(keys.shape[1]), keys.T @ shifts).T
    found = edit.delta("model.layers.2.mlp.down_proj.weight")
    np.testing.assert_allclose(found, wanted, atol=2e-3 * np.abs(wanted).max())


def test_facts_become_likely_and_turns_build_on_each_other() -> None:
    whole = pellucid.run("ultraedit", SUBJECT, FACTS, neutral=["Mary lives"])
    before = next(check for check in whole.evidence if check.name == "efficacy")
    assert before.values["after"] > 1000 * before.values["before"]
    turns = pellucid.run("ultraedit", SUBJECT, FACTS, per_turn=2, neutral=["Mary lives"])
    assert not np.allclose(turns.delta(turns.names[0]), whole.delta(whole.names[0]))


def test_one_position_is_refused() -> None:
    with pytest.raises(InputError, match="more facts"):
        pellucid.run("ultraedit", SUBJECT, FACTS[:1])
